//! Hosts that are shut down on purpose.

use super::*;

#[test]
fn what_is_wanted_leaves_a_host_that_is_shut_down_unless_it_is_to_wait_there() {
    let departs = |cluster: &Cluster, leaving| cluster.clone().departing(1, leaving, NOW_MS);
    for cluster in [stopped(), placed()] {
        for gone in [cluster.clone(), cluster.clone().silent(1, 60_000)] {
            let actions = check(&departs(&gone, Leaving::Move), &[ControlKind::Replace]);
            assert_eq!(placement_in(&actions[0]), (host_id(2), 2));
            check(&departs(&gone, Leaving::Stay), &[]);
        }
        check(&departs(&cluster.clone().off(1), Leaving::Move), &[]);
        // Back, it is a host as any other.
        for leaving in [Leaving::Move, Leaving::Stay] {
            check(&departs(&cluster, leaving).booted(1), &[]);
            check(
                &departs(&cluster, leaving).booted(1).silent(1, 60_000),
                &[ControlKind::Replace],
            );
        }
    }
}

#[test]
fn nothing_is_placed_on_a_host_that_is_shut_down() {
    let cluster = Cluster::of_hosts(1).with_vm(1).departing(1, Leaving::Move, NOW_MS);
    let actions = check(&cluster, &[ControlKind::NoteWaiting]);
    let text = &actions[0].change.decision.as_ref().unwrap().text;
    assert!(text.contains("h1: it is being shut down"), "{text}");
    check(&cluster.booted(1), &[ControlKind::Place]);
}
