//! After a recovery: what may run on a host that was lost stays as it is, until that host is taken out.

use plasmavmc_types::{Incarnation, SessionState};

use super::*;
use crate::samples::NOW_MS;
use crate::view::{Recovery, Stored};

/// Host 1 goes on, host 2 was lost.
fn recovered(mut cluster: Cluster) -> Cluster {
    cluster.view.recovery = Recovery {
        generation: 7,
        at_ms: NOW_MS + 10_000,
    };
    let session = &mut cluster.view.hosts.get_mut(&host_id(2)).unwrap().session;
    let before = session.take().unwrap();
    let state = SessionState::Unconfirmed;
    *session = Some(Stored::new(
        plasmavmc_types::Session { state, ..before.value },
        before.revision,
    ));
    cluster
}

/// It waits, and says for whom; once host 2 was taken out it starts on host 1, above all that was given before.
fn check_held(cluster: Cluster, kind: ControlKind) {
    let cluster = recovered(cluster);
    let noted = check(&cluster, &[ControlKind::NoteWaiting]);
    let text = &noted[0].change.decision.as_ref().unwrap().text;
    assert!(text.contains("cluster remove h2 --dead"), "{text}");
    let actions = check(&cluster.without_host(2), &[kind]);
    assert_eq!(placement_in(&actions[0]), (host_id(1), Incarnation::floor(7).get() + 1));
}

#[test]
fn what_may_run_on_a_lost_host_waits_until_it_is_said_to_be_off() {
    let placed = || Cluster::of_hosts(2).with_vm(1).placed(1, 2);
    let leased = placed().says_of(1, |fields| {
        fields.leased = true;
        fields.state = ObservedState::Running;
        fields.process = Some(crate::samples::process());
    });
    check_held(leased, ControlKind::Replace);
    // What it said last is not what it did last.
    check_held(placed().says(1, ObservedState::Stopped), ControlKind::Replace);
    check_held(placed(), ControlKind::Replace);
}

#[test]
fn what_was_to_be_placed_may_have_been_placed_by_those_who_were_lost() {
    check_held(Cluster::of_hosts(2).with_vm(1), ControlKind::Place);
    let mut later = recovered(Cluster::of_hosts(2).with_vm(1));
    later.view.recovery.at_ms = 0;
    let actions = check(&later, &[ControlKind::Place]);
    assert_eq!(placement_in(&actions[0]).0, host_id(1), "ordered since, it is nowhere");
}

#[test]
fn generations_go_up_whatever_a_backup_knows_and_the_clock_says() {
    let known = Recovery {
        generation: 7,
        at_ms: 1,
    };
    assert_eq!(known.next(0).generation, 8);
    let at_ms = 1_767_225_600_000 + 90 * 60_000;
    assert_eq!(known.next(at_ms).generation, 90);
    assert_eq!(Recovery::default().next(at_ms).generation, 90);
    assert_eq!(known.next(at_ms).floor().get(), 90 << 32);
}
