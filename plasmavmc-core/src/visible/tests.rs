use plasmavmc_types::PauseCause;

use super::*;
use crate::samples::{Cluster, operation_id, process, vm_id};

fn check(cluster: &Cluster, state: VmState, words: &str) {
    let shown = vm(&cluster.view, &cluster.heard, vm_id(1));
    assert_eq!(shown.state, state, "{shown:?}");
    assert!(shown.reason.contains(words), "{words:?} is not in {:?}", shown.reason);
}

fn placed() -> Cluster {
    Cluster::of_hosts(1).with_vm(1).placed(1, 1)
}

#[test]
fn what_its_host_says_is_shown_while_the_host_is_heard() {
    check(&placed(), VmState::Pending, "placed on h1, which has not taken it yet");
    check(&placed().says(1, ObservedState::Running), VmState::Running, "");
    let cause = PauseCause::IoError;
    check(
        &placed().says(1, ObservedState::Paused { cause }),
        VmState::Paused,
        "a disk answered",
    );
    let reason = "no disk".to_owned();
    check(
        &placed().says(1, ObservedState::Failed { reason }),
        VmState::Failed,
        "no disk",
    );
}

#[test]
fn a_silent_host_makes_its_vms_unknown() {
    let cluster = placed().says(1, ObservedState::Running);
    check(&cluster.clone().silent(1, 5999), VmState::Running, "");
    check(
        &cluster.silent(1, 12_000),
        VmState::Unknown,
        "host h1 last heard of 12 s ago; it was running then",
    );
    let leased = placed().says_of(1, |fields| {
        fields.leased = true;
        fields.state = ObservedState::Running;
        fields.process = Some(process());
    });
    check(&leased.silent(1, 12_000), VmState::Unknown, "probably frozen");
}

#[test]
fn what_is_stopped_stays_stopped_whatever_becomes_of_its_host() {
    check(
        &placed().says(1, ObservedState::Stopped).silent(1, 12_000),
        VmState::Stopped,
        "",
    );
    let reason = "no disk".to_owned();
    check(
        &placed().says(1, ObservedState::Failed { reason }).silent(1, 12_000),
        VmState::Failed,
        "no disk",
    );
}

#[test]
fn the_word_of_an_earlier_host_counts_no_more() {
    let moved = Cluster::of_hosts(2)
        .with_vm(1)
        .placed(1, 1)
        .says(1, ObservedState::Stopped)
        .placed(1, 2);
    check(&moved, VmState::Pending, "placed on h2");
}

#[test]
fn a_vm_that_waits_for_a_host_says_why() {
    let kind = OperationKind::Create;
    let cluster = Cluster::of_hosts(1)
        .with_vm(1)
        .with_operation_of(1, 1, kind, |operation| {
            operation.step = "no host fits: h1: full".to_owned()
        });
    check(&cluster, VmState::Pending, "h1: full");
    let mut forgotten = cluster.clone();
    forgotten.view.operations.remove(&operation_id(1));
    check(&forgotten, VmState::Pending, "not placed yet");
    check(&cluster.off(1), VmState::Stopped, "has not been started yet");
}

#[test]
fn hosts_are_alive_silent_new_or_fenced() {
    let state = |cluster: &Cluster| host(&cluster.view, &cluster.heard, crate::samples::host_id(1)).state;
    let cluster = Cluster::of_hosts(1);
    assert_eq!(state(&cluster), HostState::Alive);
    assert_eq!(state(&cluster.clone().silent(1, 6000)), HostState::Silent);
    let mut fenced = cluster.clone();
    let known = fenced.view.hosts.get_mut(&crate::samples::host_id(1)).unwrap();
    let session = known.session.clone().unwrap();
    known.session = Some(Stored::new(session.value.fenced(), 9));
    assert_eq!(state(&fenced), HostState::Fenced);
    fenced.view.hosts.get_mut(&crate::samples::host_id(1)).unwrap().session = None;
    assert_eq!(state(&fenced), HostState::New);
}

#[test]
fn ages_are_said_as_people_say_them() {
    let table = [
        (0, "0.0 s"),
        (3456, "3.4 s"),
        (12_345, "12 s"),
        (599_999, "599 s"),
        (600_000, "10 min"),
    ];
    for (ms, text) in table {
        assert_eq!(seconds(ms), text);
    }
}
