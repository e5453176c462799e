use plasmavmc_types::{HostName, ObservedState, VmSpecFields};

use super::*;
use crate::samples::{Cluster, host_id, process, vm_id};

fn running(cluster: Cluster, vm: u32, leased: bool) -> Cluster {
    cluster.says_of(vm, |fields| {
        fields.leased = leased;
        fields.state = ObservedState::Running;
        fields.process = Some(process());
    })
}

fn of_memory(memory_mb: u64) -> impl FnOnce(&mut VmSpecFields) {
    move |fields| fields.memory_mb = memory_mb
}

#[test]
fn what_is_not_leased_is_told_with_the_reason() {
    let check = |cluster: &Cluster, voters, expected: Option<&str>| {
        let told = unprotected(&cluster.view, voters);
        assert_eq!(told.len(), usize::from(expected.is_some()), "{told:?}");
        assert_eq!(why_not(&cluster.view, vm_id(1), voters).is_some(), expected.is_some());
        if let (Some(told), Some(words)) = (told.first(), expected) {
            assert_eq!((told.vm, told.host), (vm_id(1), host_id(1)));
            assert!(told.why.contains(words), "{told:?}");
        }
    };
    let placed = Cluster::of_hosts(2).with_vm(1).placed(1, 1);
    check(&placed, 3, None);
    check(&running(placed.clone(), 1, true), 3, None);
    let alone = running(placed.clone(), 1, false);
    check(&alone, 2, Some("the store has 2 voters"));
    check(&alone, 3, Some("when it starts again"));
    check(&alone.clone().says(1, ObservedState::Stopped), 2, None);
    let one_host = running(Cluster::of_hosts(1).with_vm(1).placed(1, 1), 1, false);
    check(&one_host, 3, None);
    let bound = |fields: &mut VmSpecFields| fields.affinity.hosts = vec![HostName::new("h1").unwrap()];
    let bound = running(Cluster::of_hosts(2).with_vm_of(1, bound).placed(1, 1), 1, false);
    check(&bound, 3, Some("no other host may run it"));
}

#[test]
fn what_is_meant_to_stay_is_no_news() {
    let off = |fields: &mut VmSpecFields| fields.ha = HaPolicy::Off;
    let cluster = running(Cluster::of_hosts(2).with_vm_of(1, off).placed(1, 1), 1, false);
    assert_eq!(unprotected(&cluster.view, 3), []);
    let why = why_not(&cluster.view, vm_id(1), 3);
    assert_eq!(why.as_deref(), Some("its policy is ha = off"));
}

#[test]
fn what_would_fit_nowhere_after_a_loss_is_told_for_each_host() {
    let check = |cluster: &Cluster, expected: &[(u32, &[u32])]| {
        let losses = losses(&cluster.view, &cluster.heard);
        let found: Vec<(HostId, Vec<VmId>)> = losses.into_iter().map(|loss| (loss.host, loss.homeless)).collect();
        let expected: Vec<(HostId, Vec<VmId>)> = expected
            .iter()
            .map(|(host, vms)| (host_id(*host), vms.iter().map(|vm| vm_id(*vm)).collect()))
            .collect();
        assert_eq!(found, expected);
    };
    // Hosts have 8192 MB.
    let two = Cluster::of_hosts(2)
        .with_vm_of(1, of_memory(5000))
        .placed(1, 1)
        .with_vm_of(2, of_memory(3000))
        .placed(2, 1)
        .with_vm_of(3, of_memory(3000))
        .placed(3, 2);
    let leased = (1..=3).fold(two, |cluster, vm| running(cluster, vm, true));
    // The first in boot order takes the room.
    check(&leased, &[(1, &[2]), (2, &[3])]);
    check(&leased.clone().with_host(3, |_| ()), &[]);
    // What is not leased stays where it is, and takes its room.
    let stays = running(leased, 1, false);
    check(&stays, &[(2, &[3])]);
    check(&stays.with_vm_of(3, of_memory(100)), &[]);
}

#[test]
fn of_a_lease_is_left_what_was_not_silent() {
    let left = |cluster: &Cluster| lease_left_ms(&cluster.view, &cluster.heard, host_id(1));
    assert_eq!(left(&Cluster::of_hosts(2).silent(1, 600)), 3400);
    assert_eq!(left(&Cluster::of_hosts(2).silent(1, 4001)), 0);
    let mut unheard = Cluster::of_hosts(2);
    unheard.heard.ago_ms.clear();
    assert_eq!(left(&unheard), 0);
}
