use plasmavmc_types::{
    Dependency, DependencyReached, HostMode, Incarnation, Leaving, ObservedState, OperationKind, OperationState,
    VmSpecFields,
};

use super::*;
use crate::change::{Part, Put};
use crate::samples::{Cluster, NOW_MS, host_id, operation_id, vm_id};

mod departure;
mod failover;
mod held;
mod order;
mod random;
mod scale;

const STOP: OperationKind = OperationKind::Stop { force: false };

fn plan_of(cluster: &Cluster) -> Vec<ControlAction> {
    let actions = plan(&cluster.view, &cluster.heard, NOW_MS);
    for action in &actions {
        assert!(!action.change.expects.is_empty(), "{action:#?}");
        assert_eq!(action.change.unguarded(), [], "{action:#?}");
        assert!(action.change.holds_in(&cluster.view), "{action:#?}");
    }
    actions
}

/// The kinds of what is done, in order.
#[track_caller]
fn check(cluster: &Cluster, expected: &[ControlKind]) -> Vec<ControlAction> {
    let actions = plan_of(cluster);
    let kinds: Vec<ControlKind> = actions.iter().map(|action| action.kind).collect();
    assert_eq!(kinds, expected, "{actions:#?}");
    let again = plan_of(&after(cluster, &actions));
    assert_eq!(again, [], "the second plan is not empty");
    actions
}

fn after(cluster: &Cluster, actions: &[ControlAction]) -> Cluster {
    let mut cluster = cluster.clone();
    for action in actions {
        let revision = cluster.view.revision + 1;
        assert!(action.change.apply_to(&mut cluster.view, revision), "{action:#?}");
    }
    cluster
}

fn placement_in(action: &ControlAction) -> (HostId, u64) {
    let mut placements = action.change.puts.iter().filter_map(|put| match put {
        Put::Placement(_, placement) => Some((placement.host, placement.incarnation.get())),
        _ => None,
    });
    placements.next_back().unwrap()
}

fn operation_in(action: &ControlAction) -> &Operation {
    let mut operations = action.change.puts.iter().filter_map(|put| match put {
        Put::Operation(operation) => Some(operation),
        _ => None,
    });
    operations.next_back().unwrap()
}

#[track_caller]
fn ends(cluster: &Cluster, expected: &str) {
    let actions = check(cluster, &[ControlKind::FinishOperation]);
    let found = match &operation_in(&actions[0]).state {
        OperationState::Done => "done".to_owned(),
        OperationState::Cancelled => "cancelled".to_owned(),
        OperationState::Failed(error) => format!("{}: {}", error.reason, error.message),
        other => format!("{other:?}"),
    };
    assert!(found.starts_with(expected), "{found}");
}

fn placed() -> Cluster {
    Cluster::of_hosts(2).with_vm(1).placed(1, 1)
}

fn stopped() -> Cluster {
    placed().says(1, ObservedState::Stopped)
}

#[test]
fn what_is_wanted_on_is_placed_and_its_operation_says_where() {
    let cluster = Cluster::of_hosts(2)
        .with_vm(1)
        .with_operation(1, 1, OperationKind::Create);
    let actions = check(&cluster, &[ControlKind::Place]);
    assert_eq!(placement_in(&actions[0]), (host_id(1), 1));
    assert_eq!(operation_in(&actions[0]).step, "placed on h1");
    let decision = actions[0].change.decision.as_ref().unwrap();
    assert_eq!((decision.kind.as_str(), decision.host), ("place", Some(host_id(1))));
    assert!(
        decision.evidence.iter().any(|fact| fact.contains("h2 fits")),
        "{:?}",
        decision.evidence
    );
    let session = Part::Session(host_id(1));
    assert!(actions[0].change.expects.contains_key(&session));
    check(
        &cluster
            .off(1)
            .with_operation_of(1, 1, OperationKind::Create, |it| it.state = OperationState::Done),
        &[],
    );
}

#[test]
fn what_depends_on_another_waits_for_it() {
    let needs = |fields: &mut VmSpecFields| {
        let until = DependencyReached::Running;
        fields.depends_on = vec![Dependency { vm: vm_id(2), until }];
    };
    let cluster = Cluster::of_hosts(1)
        .with_vm_of(1, needs)
        .with_vm(2)
        .placed(2, 1)
        .with_operation(1, 1, OperationKind::Start);
    let actions = check(&cluster, &[ControlKind::NoteWaiting]);
    assert_eq!(operation_in(&actions[0]).step, "waits for VM vm2, which is not placed");
    check(&cluster.says(2, ObservedState::Running), &[ControlKind::Place]);
}

#[test]
fn a_note_is_renewed_only_now_and_then() {
    let cluster = Cluster::of_hosts(1)
        .with_vm_of(1, |fields| fields.memory_mb = 9000)
        .with_operation(1, 1, OperationKind::Create);
    let noted = after(&cluster, &check(&cluster, &[ControlKind::NoteWaiting]));
    // Another VM comes, and the numbers are others.
    let other = noted.with_vm(2).placed(2, 1).says(2, ObservedState::Running);
    check(&other, &[]);
    let later = plan(&other.view, &other.heard, NOW_MS + 1000);
    assert_eq!(later.len(), 1, "{later:#?}");
    assert_eq!(later[0].change.decision, None);
    let much_later = plan(&other.view, &other.heard, NOW_MS + 59_999);
    assert_eq!(much_later[0].change.decision, None);
}

#[test]
fn what_is_stopped_leaves_a_host_that_is_emptied() {
    for cluster in [stopped().off(1), stopped(), placed()] {
        let actions = check(&cluster.clone().mode(1, HostMode::Draining), &[ControlKind::Replace]);
        assert_eq!(placement_in(&actions[0]), (host_id(2), 2));
        check(&cluster.mode(1, HostMode::Maintenance), &[ControlKind::Replace]);
    }
}

#[test]
fn what_may_run_is_never_moved() {
    let process = Some(crate::samples::process());
    for state in [
        ObservedState::Running,
        ObservedState::Stopping,
        ObservedState::Starting,
        ObservedState::Frozen,
    ] {
        let cluster = placed().says_of(1, |fields| (fields.state, fields.process) = (state, process));
        check(&cluster.clone().mode(1, HostMode::Draining), &[]);
        check(&cluster.clone().silent(1, 3_600_000), &[]);
        check(&cluster.clone().departing(1, Leaving::Move, NOW_MS), &[]);
        check(&cluster.off(1).mode(1, HostMode::Maintenance), &[]);
    }
}

#[test]
fn what_was_on_a_host_that_was_taken_out_goes_on_elsewhere() {
    let running = placed().says_of(1, |fields| {
        (fields.state, fields.process) = (ObservedState::Running, Some(crate::samples::process()));
    });
    check(&running.clone().silent(1, 3_600_000), &[]);
    let lost = running.without_host(1);
    let actions = check(&lost, &[ControlKind::Replace]);
    assert_eq!(placement_in(&actions[0]), (host_id(2), 2));
    // Should the host be back when this is written, it is not written.
    let mut back = lost.clone();
    back.view
        .hosts
        .insert(host_id(1), placed().view.hosts[&host_id(1)].clone());
    assert!(!actions[0].change.holds_in(&back.view));
    assert_eq!(
        crate::visible::vm(&lost.view, &lost.heard, vm_id(1)).state,
        plasmavmc_types::VmState::Pending
    );

    check(&lost.clone().deleted(1), &[ControlKind::Forget]);
    // What is wanted off moves as well, so that it can be started; its disks may keep it.
    check(&lost.off(1), &[ControlKind::Replace]);
}

#[test]
fn a_vm_whose_disks_were_on_a_host_that_was_taken_out_waits() {
    let disk = |fields: &mut plasmavmc_types::VmSpecFields| {
        let location = plasmavmc_types::DiskLocation::File {
            path: "/srv/a.qcow2".into(),
        };
        let name = plasmavmc_types::Label::new("root").unwrap();
        fields.disks = vec![plasmavmc_types::Disk::new(name, location, 1024)];
    };
    let cluster = Cluster::of_hosts(2).with_vm_of(1, disk).placed(1, 1);
    let cluster = cluster.says(1, ObservedState::Running).without_host(1);
    let actions = check(&cluster, &[ControlKind::NoteWaiting]);
    let text = &actions[0].change.decision.as_ref().unwrap().text;
    assert!(
        text.contains("was taken out") && text.contains("its disks (root) lie on"),
        "{text}"
    );
    check(&cluster.deleted(1), &[ControlKind::Forget]);
}

#[test]
fn what_is_to_start_leaves_a_host_that_is_silent() {
    check(&stopped().silent(1, 6000), &[ControlKind::Replace]);
    check(&placed().silent(1, 6000), &[ControlKind::Replace]);
    check(&stopped().off(1).silent(1, 6000), &[]);
    check(&stopped(), &[]);
}

#[test]
fn what_failed_stays_until_somebody_starts_it() {
    let reason = "no disk".to_owned();
    let failed = placed()
        .says(1, ObservedState::Failed { reason })
        .mode(1, HostMode::Draining);
    check(&failed, &[]);
    check(&failed.on(1), &[ControlKind::Replace]);
}

#[test]
fn a_restart_under_way_is_left_to_its_host() {
    let kind = OperationKind::Restart { force: false };
    let cluster = stopped()
        .mode(1, HostMode::Draining)
        .with_operation_of(1, 1, kind, |operation| {
            operation.state = OperationState::Running;
            operation.runner = Some((host_id(1), plasmavmc_types::Epoch::FIRST));
        });
    check(&cluster, &[]);
}

#[test]
fn a_tombstone_goes_with_everything_once_nothing_can_run() {
    let unplaced = Cluster::of_hosts(1).with_vm(1);
    for cluster in [unplaced, stopped(), placed()] {
        let cluster = cluster
            .deleted(1)
            .with_operation(1, 1, OperationKind::Delete)
            .with_operation(2, 1, STOP);
        let actions = check(&cluster, &[ControlKind::Forget]);
        let empty = after(&cluster, &actions).view;
        assert!(
            empty.vms.is_empty() && empty.names.is_empty() && empty.numbers.is_empty(),
            "{empty:#?}"
        );
        assert_eq!(empty.operations[&operation_id(1)].value.state, OperationState::Done);
        assert!(empty.operations[&operation_id(2)].value.is_ended());
    }
    check(&placed().says(1, ObservedState::Running).deleted(1), &[]);
}

#[test]
fn operations_that_nobody_else_ends_are_ended() {
    let late = |operation: &mut Operation| operation.deadline_ms = NOW_MS;
    let cancelled = |operation: &mut Operation| operation.cancel_requested = true;
    let running = || placed().says(1, ObservedState::Running);
    ends(&running().with_operation(1, 1, OperationKind::Start), "done");
    ends(&running().with_operation_of(1, 1, STOP, cancelled), "cancelled");
    ends(
        &stopped().off(1).with_operation(1, 1, OperationKind::Start),
        "cancelled",
    );
    ends(&stopped().off(1).with_operation(1, 1, OperationKind::Create), "done");
    let reason = "no disk".to_owned();
    let failed = placed().says(1, ObservedState::Failed { reason });
    ends(
        &failed.clone().with_operation(1, 1, OperationKind::Start),
        "VM_FAILED: no disk",
    );
    check(&failed.on(1).with_operation(1, 1, OperationKind::Start), &[]);
    ends(&running().deleted(1).with_operation(1, 1, STOP), "VM_DELETED");
    ends(
        &Cluster::of_hosts(1).with_operation(1, 1, OperationKind::Delete),
        "done",
    );
    ends(
        &placed().with_operation_of(1, 1, OperationKind::Start, late),
        "NOT_STARTED",
    );
    ends(
        &running().silent(1, 9000).with_operation_of(1, 1, STOP, late),
        "HOST_DID_NOT_ANSWER",
    );
    check(&running().with_operation_of(1, 1, STOP, late), &[]);
    let later = |operation: &mut Operation| operation.deadline_ms = NOW_MS - 5000;
    ends(&running().with_operation_of(1, 1, STOP, later), "HOST_DID_NOT_ANSWER");
    let silent = running().silent(1, 9000);
    check(&silent.with_operation(1, 1, OperationKind::Start), &[]);
}

#[test]
fn a_creation_that_found_no_host_in_time_says_why() {
    let cluster = Cluster::of_hosts(1)
        .with_vm_of(1, |fields| fields.memory_mb = 9000)
        .with_operation_of(1, 1, OperationKind::Create, |operation| {
            operation.deadline_ms = NOW_MS;
            operation.step = "no host fits: h1: needs 9000 MB".to_owned();
        });
    let actions = plan_of(&cluster);
    let OperationState::Failed(error) = &operation_in(&actions[0]).state else {
        panic!("{actions:#?}");
    };
    assert_eq!((error.code, error.reason.as_str()), (4, "NO_HOST_FITS"));
    assert!(error.message.contains("needs 9000 MB"), "{error}");
}

#[test]
fn old_operations_are_let_go_of() {
    let ended = |at_ms: u64| {
        move |operation: &mut Operation| {
            operation.state = OperationState::Done;
            operation.updated_at_ms = at_ms;
        }
    };
    let day_ms = 24 * 3600 * 1000;
    let cluster = Cluster::of_hosts(1)
        .with_operation_of(1, 1, STOP, ended(NOW_MS - day_ms - 1))
        .with_operation_of(2, 1, STOP, ended(NOW_MS - day_ms));
    let actions = check(&cluster, &[ControlKind::CollectGarbage]);
    assert_eq!(actions[0].change.removes, [Part::Operation(operation_id(1))]);
    let many = (1..=1051).fold(Cluster::default(), |cluster, number| {
        cluster.with_operation_of(number, 1, STOP, ended(NOW_MS - 2000 + u64::from(number)))
    });
    let actions = check(&many, &[ControlKind::CollectGarbage]);
    assert_eq!(actions[0].change.removes.len(), 51);
    assert_eq!(actions[0].change.removes[0], Part::Operation(operation_id(1)));
}

#[test]
fn incarnations_only_go_up() {
    let mut cluster = stopped().mode(1, HostMode::Draining);
    let at = cluster.view.vms.get_mut(&vm_id(1)).unwrap();
    at.placement.as_mut().unwrap().value.incarnation = Incarnation::from_raw(u64::MAX);
    let status = at.status.as_ref().unwrap();
    let mut fields = plasmavmc_types::VmStatusFields::from(status.value.clone());
    fields.incarnation = Incarnation::from_raw(u64::MAX);
    at.status = Some(Stored::new(
        plasmavmc_types::VmStatus::new(fields).unwrap(),
        status.revision,
    ));
    assert_eq!(plan_of(&cluster), []);
}

/// As many as the store takes in one transaction: compares and writes.
const MOST_OPS: usize = 512;

#[test]
fn however_many_operations_wait_a_transaction_takes_what_it_can() {
    let many = |cluster: Cluster| {
        (1..=300).fold(cluster, |cluster, number| {
            cluster.with_operation(number, 1, OperationKind::Start)
        })
    };
    let ops =
        |action: &ControlAction| action.change.expects.len() + action.change.puts.len() + action.change.removes.len();
    let deleted = many(Cluster::of_hosts(1).with_vm(1)).deleted(1);
    for cluster in [
        many(Cluster::of_hosts(1).with_vm(1)),
        many(Cluster::of_hosts(0).with_vm(1)),
        deleted,
    ] {
        let mut cluster = cluster;
        for _ in 0..10 {
            let actions = plan_of(&cluster);
            assert!(
                actions.iter().all(|action| ops(action) <= MOST_OPS),
                "{}",
                actions.len()
            );
            cluster = after(&cluster, &actions);
        }
        assert_eq!(plan_of(&cluster), []);
        let open = cluster.view.open_operations(vm_id(1)).len();
        let is_gone = !cluster.view.vms.contains_key(&vm_id(1));
        assert!(open == 300 || (is_gone && open == 0), "{open}");
    }
}
