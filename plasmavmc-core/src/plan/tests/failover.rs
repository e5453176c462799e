use plasmavmc_types::{HaPolicy, SessionState};

use super::*;
use crate::view::{Contact, Stored};

/// A leader that hears well.
pub fn listening(mut cluster: Cluster) -> Cluster {
    cluster.heard.leading_for_ms = Some(60_000);
    cluster.heard.contact = Contact {
        quorum_ago_ms: Some(100),
        flowing_for_ms: 60_000,
        listening_for_ms: 600_000,
        ..Contact::default()
    };
    cluster
}

pub fn fenced(mut cluster: Cluster, host: u32) -> Cluster {
    let revision = cluster.view.revision + 1;
    cluster.view.revision = revision;
    let session = &mut cluster.view.hosts.get_mut(&host_id(host)).unwrap().session;
    let over = session.as_ref().unwrap().value.fenced();
    *session = Some(Stored::new(over, revision));
    cluster
}

pub fn leased(cluster: Cluster, vm: u32) -> Cluster {
    cluster.says_of(vm, |fields| {
        fields.leased = true;
        fields.state = ObservedState::Running;
        fields.process = Some(crate::samples::process());
    })
}

/// VM 1 runs leased on host 1 of three, which was fenced.
fn dead() -> Cluster {
    listening(fenced(leased(Cluster::of_hosts(3).with_vm(1).placed(1, 1), 1), 1))
}

#[test]
fn a_silent_host_is_fenced_and_what_it_ran_leased_starts_elsewhere() {
    let alive = leased(Cluster::of_hosts(3).with_vm(1).placed(1, 1), 1);
    check(&listening(alive.clone().silent(1, 5000)), &[]);
    let silent = listening(alive.silent(1, 6000));
    let actions = plan_of(&silent);
    assert_eq!(
        actions.len(),
        1,
        "a fence is read before anybody acts on it: {actions:#?}"
    );
    assert_eq!(actions[0].kind, ControlKind::Fence);
    assert!(actions[0].change.expects.contains_key(&Part::Beat(host_id(1))));
    let after = after(&silent, &actions);
    let session = after.view.hosts[&host_id(1)].session.as_ref().unwrap().value;
    assert_eq!(session.state, SessionState::Fenced);
    let next = check(&after, &[ControlKind::Failover]);
    assert_eq!(placement_in(&next[0]), (host_id(2), 2));
    let expects = &next[0].change.expects;
    for part in [
        Part::Session(host_id(1)),
        Part::Session(host_id(2)),
        Part::Status(vm_id(1)),
    ] {
        assert!(expects.contains_key(&part), "{part:?}");
    }
    assert!(!next[0].change.decision.as_ref().unwrap().evidence.is_empty());
}

#[test]
fn what_was_not_claimed_as_leased_waits_for_its_host() {
    let running = Cluster::of_hosts(3)
        .with_vm(1)
        .placed(1, 1)
        .says(1, ObservedState::Running);
    check(&listening(fenced(running, 1)), &[]);
    let switched_off = dead().change(1, |record| {
        let spec = record.spec().edit(|fields| fields.ha = HaPolicy::Off);
        record.with_spec(spec.unwrap()).unwrap()
    });
    check(&switched_off, &[ControlKind::NoteWaiting]);
}

#[test]
fn a_host_that_came_back_keeps_its_vms() {
    let actions = plan_of(&dead());
    let mut back = dead();
    let session = &mut back.view.hosts.get_mut(&host_id(1)).unwrap().session;
    let reopened = plasmavmc_types::Session {
        epoch: session.as_ref().unwrap().value.epoch.next().unwrap(),
        state: SessionState::Open,
        ..session.as_ref().unwrap().value
    };
    *session = Some(Stored::new(reopened, back.view.revision + 1));
    back.view.revision += 1;
    assert!(
        !actions[0].change.holds_in(&back.view),
        "decided on a fence that is over"
    );
    check(&back, &[]);
}

#[test]
fn without_room_it_waits_visibly_and_starts_when_room_comes() {
    let large = |fields: &mut VmSpecFields| fields.memory_mb = 7000;
    let full = Cluster::of_hosts(2)
        .with_vm_of(1, large)
        .placed(1, 1)
        .with_vm_of(2, large)
        .placed(2, 2)
        .says(2, ObservedState::Running);
    let full = listening(fenced(leased(full, 1), 1));
    let noted = check(&full, &[ControlKind::NoteWaiting]);
    let text = &noted[0].change.decision.as_ref().unwrap().text;
    assert!(text.contains("was fenced") && text.contains("7000 MB"), "{text}");
    check(&full.with_host(3, |_| ()), &[ControlKind::Failover]);
}

#[test]
fn what_is_wanted_off_is_taken_from_its_host_and_started_nowhere() {
    let stopped = dead().off(1).with_operation(1, 1, OperationKind::Stop { force: true });
    let actions = check(&stopped, &[ControlKind::Failover]);
    assert_eq!(placement_in(&actions[0]), (host_id(1), 2));
    assert_eq!(operation_in(&actions[0]).state, OperationState::Done);
    let deleted = dead().deleted(1).with_operation(1, 1, OperationKind::Delete);
    let actions = check(&deleted, &[ControlKind::FinishOperation]);
    assert_eq!(operation_in(&actions[0]).state, OperationState::Done);
}

#[test]
fn the_first_are_those_of_high_priority_and_no_host_gets_too_many_at_once() {
    let mut cluster = Cluster::of_hosts(2);
    for number in 1..=40 {
        let priority = |fields: &mut VmSpecFields| {
            fields.priority = u8::try_from(number).unwrap();
            fields.memory_mb = 64;
        };
        cluster = leased(cluster.with_vm_of(number, priority).placed(number, 1), number);
    }
    let cluster = listening(fenced(cluster, 1));
    let actions = plan_of(&cluster);
    let moved: Vec<_> = actions.iter().filter_map(|action| action.vm).collect();
    let expected: Vec<_> = (25..=40).rev().map(vm_id).collect();
    assert_eq!(moved, expected);
    let next = plan_of(&after(&cluster, &actions));
    assert_eq!(next, [], "the host has its hands full");
}

#[test]
fn what_a_host_gave_up_is_tried_elsewhere_a_few_times() {
    let failed = |cluster: Cluster| {
        cluster.says_of(1, |fields| {
            fields.leased = true;
            fields.state = ObservedState::Failed {
                reason: "no such kernel".to_owned(),
            };
        })
    };
    let mut cluster = listening(failed(Cluster::of_hosts(3).with_vm(1).placed(1, 1)));
    for _ in 0..3 {
        let actions = plan_of(&cluster);
        assert_eq!(actions.len(), 1);
        assert_eq!(actions[0].kind, ControlKind::Retry);
        let from = cluster.view.vms[&vm_id(1)].placement.as_ref().unwrap().value.host;
        assert_ne!(placement_in(&actions[0]).0, from);
        cluster = failed(after(&cluster, &actions));
    }
    check(&cluster, &[]);
}
