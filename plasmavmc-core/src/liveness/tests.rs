use super::*;
use crate::samples::{Cluster, NOW_MS, host_id};
use crate::view::Contact;

/// A leader in contact that has listened for long.
fn cluster(hosts: u32) -> Cluster {
    let mut cluster = Cluster::of_hosts(hosts).leading_for(60_000);
    cluster.heard.contact = Contact {
        quorum_ago_ms: Some(100),
        flowing_for_ms: 60_000,
        listening_for_ms: 600_000,
        ..Contact::default()
    };
    cluster
}

fn fenced(cluster: &Cluster) -> Option<Vec<HostId>> {
    match judge(&cluster.view, &cluster.heard, NOW_MS) {
        Judgement::Fence(overdue) => Some(overdue.iter().map(|overdue| overdue.host).collect()),
        Judgement::Wait(_) => None,
    }
}

#[test]
fn a_host_is_given_up_after_its_time_and_not_before() {
    let check = |ago_ms, expected: &[HostId]| {
        assert_eq!(
            fenced(&cluster(3).silent(2, ago_ms)).as_deref(),
            Some(expected),
            "{ago_ms}"
        );
    };
    check(5999, &[]);
    check(6000, &[host_id(2)]);
}

#[test]
fn nobody_who_does_not_lead_gives_up_a_host() {
    let mut follower = cluster(3).silent(2, 60_000);
    follower.heard.leading_for_ms = None;
    assert_eq!(fenced(&follower), Some(vec![]));
}

#[test]
fn silence_counts_only_while_the_reader_can_hear() {
    let check = |edit: fn(&mut Contact), is_heard: bool| {
        let mut cluster = cluster(3).silent(2, 60_000);
        edit(&mut cluster.heard.contact);
        assert_eq!(fenced(&cluster).is_some(), is_heard, "{:?}", cluster.heard.contact);
    };
    check(|_| (), true);
    check(|contact| contact.quorum_ago_ms = None, false);
    check(|contact| contact.quorum_ago_ms = Some(1001), false);
    check(|contact| contact.flowing_for_ms = 2499, false);
    check(|contact| contact.flowing_for_ms = 2500, true);
}

#[test]
fn a_host_that_was_never_heard_gets_the_time_of_a_boot() {
    let check = |listening_for_ms, ago_ms, expected: &[HostId]| {
        let mut cluster = cluster(3).silent(2, ago_ms);
        cluster.heard.contact.listening_for_ms = listening_for_ms;
        assert_eq!(
            fenced(&cluster).as_deref(),
            Some(expected),
            "{listening_for_ms} {ago_ms}"
        );
    };
    check(30_000, 30_000, &[]);
    check(179_999, 179_999, &[]);
    check(180_000, 180_000, &[host_id(2)]);
    // It came, and went.
    check(30_000, 8000, &[host_id(2)]);
    let mut without_note = cluster(3);
    without_note.heard.ago_ms.remove(&host_id(2));
    assert_eq!(fenced(&without_note), Some(vec![host_id(2)]));
}

#[test]
fn a_host_that_was_lost_while_a_member_listened_gets_no_time_of_a_boot() {
    let beat = |cluster: &Cluster| cluster.view.hosts[&host_id(2)].beat.as_ref().unwrap().revision;
    // The reader has listened for so long, and has not heard the host.
    let check = |heard_since: fn(u64) -> Option<u64>, listening_for_ms, expected: &[HostId]| {
        let mut cluster = cluster(3).silent(2, listening_for_ms);
        cluster.heard.contact.listening_for_ms = listening_for_ms;
        cluster.heard.contact.heard_since_revision = heard_since(beat(&cluster));
        let contact = cluster.heard.contact;
        assert_eq!(fenced(&cluster).as_deref(), Some(expected), "{contact:?}");
    };
    let (before, at, after) = (|beat| Some(beat - 1), |beat| Some(beat), |beat| Some(beat + 1));
    check(before, 5999, &[]);
    check(before, 6000, &[host_id(2)]);
    // All members began after it: a cold start, and it may still be starting.
    for since in [at, after, |_| None] {
        check(since, 6000, &[]);
        check(since, 179_999, &[]);
        check(since, 180_000, &[host_id(2)]);
    }
}

#[test]
fn what_others_have_heard_does_not_make_up_for_a_deaf_reader() {
    let check = |edit: fn(&mut Contact), is_heard: bool| {
        let mut cluster = cluster(3).silent(2, 6000);
        let contact = &mut cluster.heard.contact;
        (contact.listening_for_ms, contact.heard_since_revision) = (6000, Some(0));
        edit(contact);
        assert_eq!(fenced(&cluster).is_some(), is_heard, "{:?}", cluster.heard.contact);
    };
    check(|_| (), true);
    check(|contact| contact.quorum_ago_ms = None, false);
    check(|contact| contact.flowing_for_ms = 2499, false);
    // Nor does it make most hosts go at once.
    let mut two = cluster(3).silent(2, 6500).silent(3, 6500);
    let contact = &mut two.heard.contact;
    (contact.listening_for_ms, contact.heard_since_revision) = (6500, Some(0));
    assert_eq!(fenced(&two), None);
}

#[test]
fn a_host_without_a_beat_that_can_be_read_gets_the_time_of_a_boot() {
    let mut cluster = cluster(3).silent(2, 60_000);
    let contact = &mut cluster.heard.contact;
    (contact.listening_for_ms, contact.heard_since_revision) = (60_000, Some(0));
    assert_eq!(fenced(&cluster), Some(vec![host_id(2)]));
    cluster.view.hosts.get_mut(&host_id(2)).unwrap().beat = None;
    assert_eq!(fenced(&cluster), Some(vec![]));
}

#[test]
fn when_most_seem_gone_it_looks_once_more() {
    let two_of_three = |ago_ms| cluster(3).silent(2, ago_ms).silent(3, ago_ms);
    assert_eq!(fenced(&two_of_three(6500)), None);
    assert_eq!(fenced(&two_of_three(7099)), None);
    assert_eq!(fenced(&two_of_three(7100)).map(|hosts| hosts.len()), Some(2));
    let two_of_five = cluster(5).silent(2, 6000).silent(3, 6000);
    assert_eq!(fenced(&two_of_five).map(|hosts| hosts.len()), Some(2));
}

#[test]
fn a_host_that_is_alone_is_left_in_peace() {
    assert_eq!(fenced(&cluster(1).silent(1, 60_000)), Some(vec![]));
}

#[test]
fn a_witness_is_no_host_to_give_up_or_to_take_over() {
    let silent = |cluster: Cluster| fenced(&cluster.silent(1, 6000));
    assert_eq!(silent(cluster(2).with_witness(3)), Some(vec![host_id(1)]));
    assert_eq!(silent(cluster(1).with_witness(2)), Some(vec![]));
    assert_eq!(fenced(&cluster(2).with_witness(3)), Some(vec![]));
}

#[test]
fn a_guard_that_may_be_late_is_told_to_be_early() {
    let timings = Timings::default();
    assert_eq!(early_ms(&timings, true), 0);
    assert_eq!(early_ms(&timings, false), 1000);
    let wide = Timings::new(plasmavmc_types::TimingsFields {
        failover_after_ms: 7000,
        ..*timings
    });
    assert_eq!(early_ms(&wide.unwrap(), false), 0);
}

fn timings(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> Timings {
    let fields = plasmavmc_types::TimingsFields {
        beat_ms,
        freeze_after_ms,
        failover_after_ms,
    };
    Timings::new(fields).unwrap()
}

/// Three hosts of which the second beat under these terms when it was last heard.
fn beating_under(lease_ms: u64, failover_ms: u64) -> Cluster {
    let contact = cluster(3).heard.contact;
    let mut cluster = Cluster::of_hosts(1)
        .with_host(2, |beat| (beat.lease_ms, beat.failover_ms) = (lease_ms, failover_ms))
        .with_host(3, |_| ())
        .leading_for(60_000);
    cluster.heard.contact = contact;
    cluster
}

#[test]
fn a_host_that_has_not_learnt_of_a_change_is_judged_by_the_terms_of_its_last_beat() {
    let check = |(lease_ms, failover_ms), today: Timings, ago_ms, is_fenced: bool| {
        let mut cluster = beating_under(lease_ms, failover_ms).silent(2, ago_ms);
        cluster.view.timings = today;
        let expected: &[HostId] = if is_fenced { &[host_id(2)] } else { &[] };
        assert_eq!(
            fenced(&cluster).as_deref(),
            Some(expected),
            "{failover_ms} {ago_ms} {today:?}"
        );
    };
    // Shortened, and it has not said so.
    check((8000, 10_000), timings(500, 2500, 3500), 9999, false);
    check((8000, 10_000), timings(500, 2500, 3500), 10_000, true);
    // It has.
    check((2500, 3500), timings(500, 2500, 3500), 3499, false);
    check((2500, 3500), timings(500, 2500, 3500), 3500, true);
    // Lengthened, and it has not said so: that may only make the leader wait for longer.
    check((2500, 3500), timings(1000, 8000, 10_000), 9999, false);
    check((2500, 3500), timings(1000, 8000, 10_000), 10_000, true);
    // A version that does not say its terms: today, or the least that belongs to its lease.
    check((4000, 0), Timings::default(), 5999, false);
    check((4000, 0), Timings::default(), 6000, true);
    check((8000, 0), timings(500, 2500, 3500), 9999, false);
    check((8000, 0), timings(500, 2500, 3500), 10_000, true);
}

#[test]
fn when_most_seem_gone_each_is_looked_at_once_more_after_its_own_time() {
    let two_of_three = |ago_ms| beating_under(8000, 10_000).silent(2, ago_ms).silent(3, ago_ms);
    assert_eq!(fenced(&two_of_three(9999)), Some(vec![host_id(3)]));
    assert_eq!(fenced(&two_of_three(11_099)), None);
    assert_eq!(fenced(&two_of_three(11_100)).map(|hosts| hosts.len()), Some(2));
}

#[test]
fn a_host_that_may_beat_less_often_gets_longer_to_be_heard_after_a_gap() {
    let check = |(lease_ms, failover_ms), flowing_for_ms, is_heard: bool| {
        let mut cluster = beating_under(lease_ms, failover_ms).silent(2, 60_000);
        cluster.heard.contact.flowing_for_ms = flowing_for_ms;
        assert_eq!(fenced(&cluster).is_some(), is_heard, "{lease_ms} {flowing_for_ms}");
    };
    check((4000, 6000), 2499, false);
    check((4000, 6000), 2500, true);
    check((8000, 12_000), 7999, false);
    check((8000, 12_000), 8000, true);
    // A version that does not say it has seen no change.
    check((8000, 0), 2500, true);
}
