use plasmavmc_types::VmSpecFields;

use super::*;
use crate::samples::{Cluster, NOW_MS, vm_id};

/// VM 1 depends on VM 2; what it waits for.
fn check(cluster: Cluster, expected: Option<&str>) {
    let found = waits_for(&cluster.view, vm_id(1), NOW_MS);
    match (&found, expected) {
        (None, None) => {}
        (Some(text), Some(words)) if text.contains(words) => {}
        _ => panic!("{found:?} instead of {expected:?}"),
    }
}

fn needing(until: DependencyReached) -> Cluster {
    Cluster::of_hosts(1).with_vm_of(1, move |fields| {
        fields.depends_on = vec![Dependency { vm: vm_id(2), until }];
    })
}

fn running(cluster: Cluster, agent: AgentHealth) -> Cluster {
    cluster.placed(2, 1).says_of(2, |fields| {
        fields.state = ObservedState::Running;
        fields.process = Some(crate::samples::process());
        fields.agent = agent;
        fields.since_ms = NOW_MS - 5000;
    })
}

#[test]
fn a_vm_without_dependencies_waits_for_nothing() {
    check(Cluster::of_hosts(1).with_vm(1), None);
}

#[test]
fn running_is_enough_where_that_is_asked_for() {
    let cluster = needing(DependencyReached::Running).with_vm(2);
    check(cluster.clone(), Some("VM vm2, which is not placed"));
    check(
        cluster.clone().placed(2, 1).says(2, ObservedState::Stopped),
        Some("vm2, which is stopped"),
    );
    check(running(cluster, AgentHealth::NotAsked), None);
}

#[test]
fn ready_means_that_the_agent_answered() {
    let cluster = needing(DependencyReached::Ready).with_vm(2);
    check(
        running(cluster.clone(), AgentHealth::NotResponding),
        Some("the agent of VM vm2"),
    );
    check(running(cluster, AgentHealth::Responding), None);
    let silent = |fields: &mut VmSpecFields| fields.agent = AgentPolicy::None;
    let cluster = needing(DependencyReached::Ready).with_vm_of(2, silent);
    check(running(cluster, AgentHealth::NotAsked), None);
}

#[test]
fn a_delay_counts_from_when_the_dependency_was_there() {
    let delayed = |seconds: u32| {
        let cluster = needing(DependencyReached::Running).with_vm(2).change(1, |record| {
            let spec = record.spec().edit(|fields| fields.start_delay_s = seconds).unwrap();
            record.with_spec(spec).unwrap()
        });
        running(cluster, AgentHealth::NotAsked)
    };
    check(delayed(6), Some("6.0 s to pass since VM vm2 is there"));
    check(delayed(5), None);
}

#[test]
fn what_does_not_exist_is_said_so() {
    check(needing(DependencyReached::Ready), Some("which does not exist"));
}
