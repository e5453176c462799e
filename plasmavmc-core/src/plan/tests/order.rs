//! Several VMs at once: who goes where, and who goes first.

use std::collections::BTreeMap;

use super::*;

#[test]
fn many_are_placed_in_one_plan_without_filling_a_host_twice() {
    let cluster = (1..=20).fold(Cluster::of_hosts(2), |cluster, number| cluster.with_vm(number));
    let actions = plan_of(&cluster);
    let mut per_host = BTreeMap::<HostId, u32>::new();
    for action in actions.iter().filter(|action| action.kind == ControlKind::Place) {
        *per_host.entry(placement_in(action).0).or_default() += 1;
    }
    assert_eq!(per_host.into_values().collect::<Vec<_>>(), [8, 8]);
    let waiting = actions.iter().filter(|action| action.kind == ControlKind::NoteWaiting);
    assert_eq!(waiting.count(), 4);
}

#[test]
fn higher_priority_goes_first() {
    let high = |fields: &mut VmSpecFields| (fields.priority, fields.memory_mb) = (200, 5000);
    let low = |fields: &mut VmSpecFields| fields.memory_mb = 5000;
    let cluster = Cluster::of_hosts(1).with_vm_of(1, low).with_vm_of(2, high);
    let actions = check(&cluster, &[ControlKind::Place, ControlKind::NoteWaiting]);
    assert_eq!(actions[0].vm, Some(vm_id(2)));
}

#[test]
fn a_new_leader_waits_for_a_beat_before_it_gives_a_vm_to_a_host_that_may_be_gone() {
    let both_unheard = Cluster::of_hosts(2).with_vm(1).silent(1, 900).silent(2, 900);
    check(&both_unheard.clone().leading_for(100), &[]);
    let one_heard = both_unheard.clone().silent(2, 50).leading_for(100);
    let actions = check(&one_heard, &[ControlKind::Place]);
    assert_eq!(placement_in(&actions[0]).0, host_id(2));
    // Beats are late everywhere: no reason to wait for ever.
    let late = both_unheard.silent(1, 2_500).silent(2, 2_400).leading_for(2_000);
    check(&late, &[ControlKind::Place]);
}
