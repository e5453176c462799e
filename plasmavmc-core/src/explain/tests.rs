use plasmavmc_types::{Dependency, DependencyReached, ObservedState};

use super::*;
use crate::samples::{Cluster, NOW_MS, vm_id};

#[track_caller]
fn check(cluster: &Cluster, expected: &str) {
    assert_eq!(summary(&cluster.view, &cluster.heard, vm_id(1), 3, NOW_MS), expected);
}

#[test]
fn one_sentence_says_what_is_wanted_what_is_and_why() {
    let cluster = Cluster::of_hosts(1).with_vm(1);
    check(&cluster, "VM vm1 is wanted on and is pending: not placed yet.");
    let running = cluster.placed(1, 1).says(1, ObservedState::Running);
    check(&running, "VM vm1 is wanted on and is running on h1.");
    check(
        &running.clone().silent(1, 12_000),
        "VM vm1 is wanted on and is unknown on h1: host h1 last heard of 12 s ago; it was running then.",
    );
    let stopping = running.with_operation_of(1, 1, OperationKind::Stop { force: false }, |operation| {
        operation.step = "asking the guest's agent".to_owned();
    });
    check(
        &stopping,
        "VM vm1 is wanted on and is running on h1. A stop is under way: asking the guest's agent.",
    );
    check(&Cluster::of_hosts(1), &format!("there is no VM {}", vm_id(1)));
}

#[test]
fn what_it_waits_for_is_said_once() {
    let cluster = Cluster::of_hosts(1)
        .with_vm_of(1, |fields| {
            let until = DependencyReached::Running;
            fields.depends_on = vec![Dependency { vm: vm_id(2), until }];
        })
        .with_vm(2)
        .placed(1, 1)
        .says(1, ObservedState::Stopped);
    check(
        &cluster,
        "VM vm1 is wanted on and is stopped on h1. It waits for VM vm2, which is not placed.",
    );
}
