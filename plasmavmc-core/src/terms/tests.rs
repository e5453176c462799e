use plasmavmc_types::TimingsFields;
use proptest::prelude::*;

use super::*;
use crate::samples::{Cluster, host_id};

fn timings(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> Timings {
    Timings::new(TimingsFields {
        beat_ms,
        freeze_after_ms,
        failover_after_ms,
    })
    .unwrap()
}

fn terms(lease_ms: u64, failover_ms: u64) -> Terms {
    Terms { lease_ms, failover_ms }
}

#[test]
fn a_beat_says_no_less_than_what_is_granted_already() {
    let (long, short) = (timings(1000, 20_000, 25_000), timings(1000, 4000, 6000));
    let mut granted = Granted::default();
    assert_eq!(granted.terms(&long, 1000), terms(20_000, 25_000));
    granted.add(1000, granted.terms(&long, 1000));
    let check = |granted: Granted, now_ms, expected| assert_eq!(granted.terms(&short, now_ms), expected, "{now_ms}");
    check(granted, 2000, terms(19_000, 24_000));
    // That it counted changes nothing: it said what was granted.
    granted.add(2000, granted.terms(&short, 2000));
    check(granted, 17_000, terms(4000, 9000));
    check(granted, 20_000, terms(4000, 6000));
    check(granted, 60_000, terms(4000, 6000));
    // Longer ones hold at once.
    assert_eq!(granted.terms(&long, 2000), terms(20_000, 25_000));
}

#[test]
fn a_process_that_follows_another_one_takes_over_what_the_stored_beat_says() {
    let short = timings(1000, 4000, 6000);
    let granted = Granted::inherited(terms(20_000, 25_000), 5000);
    assert_eq!(granted.terms(&short, 5000), terms(20_000, 25_000));
    assert_eq!(granted.terms(&short, 29_000), terms(4000, 6000));
}

#[test]
fn a_host_is_judged_by_its_beat_and_by_today_whichever_is_longer() {
    let check = |(lease_ms, failover_ms), today: Timings, patience, lease, others| {
        let mut cluster = Cluster::default().with_host(1, |beat| {
            (beat.lease_ms, beat.failover_ms) = (lease_ms, failover_ms);
        });
        cluster.view.timings = today;
        let host = cluster.view.hosts.get(&host_id(1)).unwrap();
        let seen = (
            patience_ms(&cluster.view, host),
            lease_ms_of(&cluster, host),
            is_under_others(&cluster.view, host),
        );
        assert_eq!(seen, (patience, lease, others), "{lease_ms} {failover_ms} {today:?}");
    };
    let today = timings(1000, 4000, 6000);
    check((4000, 6000), today, 6000, 4000, false);
    check((3000, 4000), today, 6000, 3000, true);
    check((20_000, 25_000), today, 25_000, 20_000, true);
    check((4000, 9000), today, 9000, 4000, true);
    // It does not say so: what belongs to its lease.
    check((4000, 0), timings(500, 2500, 3500), 5000, 4000, true);
    check((4000, 0), today, 6000, 4000, true);
}

fn lease_ms_of(cluster: &Cluster, host: &HostView) -> u64 {
    lease_ms(&cluster.view, host)
}

#[test]
fn a_host_without_a_beat_is_judged_by_today() {
    let mut cluster = Cluster::of_hosts(1);
    cluster.view.hosts.get_mut(&host_id(1)).unwrap().beat = None;
    let host = cluster.view.hosts.get(&host_id(1)).unwrap();
    assert_eq!(patience_ms(&cluster.view, host), 6000);
    assert_eq!(lease_ms(&cluster.view, host), 4000);
    assert!(!is_under_others(&cluster.view, host) && says_them(host));
}

/// What becomes of a beat.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Counted,
    /// It is stored, and the host does not hear so.
    Unanswered,
    Lost,
}

#[derive(Debug, Clone)]
struct Sent {
    after_ms: u64,
    timings: Timings,
    fate: Fate,
    /// The server was started anew before.
    restarted: bool,
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let fate = prop_oneof![Just(Fate::Counted), Just(Fate::Unanswered), Just(Fate::Lost)];
    let timings = (100u64..3000, 0u64..20_000, 0u64..5000).prop_map(|(beat, slack, late)| {
        let freeze = 2 * beat + 1500 + slack;
        timings(beat, freeze, Timings::least_failover_ms(freeze) + late)
    });
    (0u64..6000, timings, fate, prop::bool::weighted(0.1)).prop_map(|(after_ms, timings, fate, restarted)| Sent {
        after_ms,
        timings,
        fate,
        restarted,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Whatever the timings are at each beat, and whatever is lost: whoever waits as long as the last stored beat says
    /// waits until the guard's deadline, and for the margin of the lease that it is of.
    #[test]
    fn no_stored_beat_lets_a_fence_come_before_the_deadline_and_its_margin(life in prop::collection::vec(any_sent(), 1..40)) {
        let (mut now_ms, mut granted) = (1_000_000, Granted::default());
        // The guard's deadline, and when a fence may come that is by the margin later.
        let (mut deadline_ms, mut fair_ms) = (0, 0);
        let mut stored: Option<(u64, Terms)> = None;
        for sent in life {
            now_ms += sent.after_ms;
            if let Some((_, told)) = stored.filter(|_| sent.restarted) {
                granted = Granted::inherited(told, now_ms);
            }
            let told = granted.terms(&sent.timings, now_ms);
            prop_assert!(told.failover_ms >= Timings::least_failover_ms(told.lease_ms));
            if matches!(sent.fate, Fate::Counted) {
                granted.add(now_ms, told);
                deadline_ms = deadline_ms.max(now_ms + sent.timings.freeze_after_ms);
                fair_ms = fair_ms.max(now_ms + sent.timings.failover_after_ms);
            }
            if !matches!(sent.fate, Fate::Lost) {
                stored = Some((now_ms, told));
            }
            if let Some((sent_ms, told)) = stored {
                prop_assert!(sent_ms + told.lease_ms >= deadline_ms);
                prop_assert!(sent_ms + told.failover_ms >= fair_ms);
            }
        }
    }
}
