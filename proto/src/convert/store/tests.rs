//! What must not be taken for a value. That everything else comes back as it was is tested where the bytes
//! are made, in the server's store.

use plasmavmc_types::{Decision, HostRecord, Invalid, Operation, Placement, Session, VmRecord, VmStatus};

use super::*;
use crate::{api, store};

fn id(n: u8) -> Vec<u8> {
    vec![n; 16]
}

/// Refuses the message and names exactly these fields.
fn check<M, T: TryFrom<M, Error = Invalid> + std::fmt::Debug>(message: M, expected: &[&str]) {
    let invalid = T::try_from(message).expect_err("taken, but should be refused");
    let found: Vec<&str> = invalid
        .problems()
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(found, expected, "{invalid}");
}

#[test]
fn a_vm_record_is_whole_or_refused() {
    let good = || store::VmRecord {
        id: id(1),
        number: 101,
        spec: Some(api::VmSpec {
            name: "a".to_owned(),
            vcpus: 1,
            memory_mb: 64,
            ..Default::default()
        }),
        generation: 1,
        ..Default::default()
    };
    assert!(VmRecord::try_from(good()).is_ok());
    check::<_, VmRecord>(store::VmRecord::default(), &["id", "number", "spec"]);
    let mut spoilt = good();
    spoilt.spec.as_mut().unwrap().ha = 9;
    check::<_, VmRecord>(spoilt, &["spec.ha"]);
    let generation = 0;
    check::<_, VmRecord>(store::VmRecord { generation, ..good() }, &["generation"]);
}

#[test]
fn a_placement_and_a_session_begin_at_one() {
    check::<_, Placement>(store::Placement::default(), &["host", "incarnation"]);
    let placement = store::Placement {
        host: id(1),
        incarnation: 0,
    };
    check::<_, Placement>(placement, &["incarnation"]);
    let session = store::Session {
        epoch: 0,
        instance: id(1),
        boot_id: id(2),
        fenced: false,
        unconfirmed: false,
    };
    check::<_, Session>(session, &["epoch"]);
    check::<_, Session>(store::Session::default(), &["instance", "boot_id", "epoch"]);
}

#[test]
fn a_status_of_a_later_version_is_not_guessed() {
    use store::observed_state::Kind;
    let state = |kind: i32| store::VmStatus {
        incarnation: 1,
        attempt: id(1),
        state: Some(store::ObservedState {
            kind,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(VmStatus::try_from(state(Kind::Starting.into())).is_ok());
    check::<_, VmStatus>(state(99), &["state.kind"]);
    check::<_, VmStatus>(state(0), &["state.kind"]);
    check::<_, VmStatus>(state(Kind::Paused.into()), &["state.pause_cause"]);
    check::<_, VmStatus>(state(Kind::Running.into()), &["process"]);
    let spoilt = store::VmStatus {
        agent: 17,
        last_exit: Some(store::Exit { exit: None }),
        conditions: vec![store::Condition::default()],
        ..state(Kind::Starting.into())
    };
    check::<_, VmStatus>(spoilt, &["agent", "last_exit", "conditions[0].name"]);
    check::<_, VmStatus>(store::VmStatus::default(), &["attempt", "state.kind"]);
}

#[test]
fn a_host_record_names_all_that_is_wrong() {
    let spoilt = store::HostRecord {
        id: vec![1],
        name: "Host".to_owned(),
        addresses: vec!["a:1".to_owned(), "nowhere".to_owned()],
        mode: 7,
        cluster_address: "x".to_owned(),
        witness: false,
        departure: Some(store::Departure::default()),
    };
    let wrong = [
        "id",
        "name",
        "addresses[1]",
        "mode",
        "cluster_address",
        "departure.instance",
    ];
    check::<_, HostRecord>(spoilt, &wrong);
}

#[test]
fn a_beat_names_all_that_is_wrong() {
    let beat = store::Beat {
        epoch: 1,
        pools: vec!["P".to_owned()],
        shared_pools: vec![String::new()],
        bridges: vec!["a/b".to_owned()],
        ..Default::default()
    };
    let refused = read_beat(plasmavmc_types::BeatSequence(1), beat).unwrap_err();
    for field in ["instance", "boot_id", "pools[0]", "shared_pools[0]", "bridges[0]"] {
        assert!(refused.mentions(field), "{refused}");
    }
}

#[test]
fn an_operation_and_a_decision_know_what_they_are_about() {
    let operation = store::Operation {
        host: vec![1, 2],
        vm_name: "a".to_owned(),
        ..Default::default()
    };
    check::<_, Operation>(operation, &["id", "kind", "vm", "state", "host"]);
    let decision = store::Decision {
        vm: vec![1],
        ..Default::default()
    };
    check::<_, Decision>(decision, &["vm"]);
    assert!(Decision::try_from(store::Decision::default()).is_ok());
    assert!(read_pointer(&store::VmPointer::default()).is_err());
}
