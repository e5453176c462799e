use plasmavmc_types::ObservedState;

use super::*;
use crate::samples::{Cluster, operation_id, vm_id};
use crate::visible;

const STOP: OperationKind = OperationKind::Stop { force: false };
const PULL: OperationKind = OperationKind::Stop { force: true };
const RESTART: OperationKind = OperationKind::Restart { force: false };
const REPLUG: OperationKind = OperationKind::Restart { force: true };

/// The drawing at the top of the module, row by row.
#[test]
fn the_table_is_as_it_is_drawn() {
    use VmState as State;
    let columns = [
        State::Pending,
        State::Starting,
        State::Running,
        State::Paused,
        State::Stopping,
        State::Stopped,
        State::Failed,
        State::Unknown,
    ];
    let rows = [
        (OperationKind::Start, "joins joins is refused refused goes goes waits"),
        (STOP, "is goes goes refused goes is is waits"),
        (PULL, "is goes goes goes goes is is waits"),
        (
            OperationKind::Reboot,
            "refused refused goes refused refused refused refused waits",
        ),
        (RESTART, "refused refused goes refused refused refused refused waits"),
        (REPLUG, "refused goes goes goes refused refused refused waits"),
        (
            OperationKind::Reset,
            "refused refused goes goes refused refused refused waits",
        ),
        (
            OperationKind::Pause,
            "refused refused goes is refused refused refused waits",
        ),
        (
            OperationKind::Resume,
            "refused refused is goes refused refused refused waits",
        ),
        (OperationKind::Delete, "goes goes goes goes goes goes goes waits"),
    ];
    for (kind, row) in rows {
        let found: Vec<&str> = columns.iter().map(|state| word(verdict(kind, *state))).collect();
        assert_eq!(found.join(" "), row, "{kind:?}");
        assert_eq!(word(verdict(kind, State::Frozen)), "waits", "{kind:?}");
    }
    let found: Vec<&str> = columns.iter().map(|state| word(delete_verdict(*state))).collect();
    assert_eq!(
        found.join(" "),
        "goes refused refused refused refused goes goes refused"
    );
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Goes => "goes",
        Verdict::Joins => "joins",
        Verdict::IsSo(_) => "is",
        Verdict::Waits => "waits",
        Verdict::Refused(..) => "refused",
    }
}

fn ask(cluster: &Cluster, kind: OperationKind, force_delete: bool) -> Result<Admission, Rejection> {
    let view = &cluster.view;
    let shown = visible::vm(view, &cluster.heard, vm_id(1));
    let open = view.open_operations(vm_id(1));
    let vm = view.vms.get(&vm_id(1)).cloned().unwrap_or_default();
    match kind {
        OperationKind::Delete => admit_delete(force_delete, &vm, &open, &shown),
        kind => admit(kind, &vm, &open, &shown),
    }
}

fn admitted(cluster: &Cluster, kind: OperationKind) -> Admission {
    ask(cluster, kind, false).unwrap()
}

#[track_caller]
fn refused(cluster: &Cluster, kind: OperationKind, code: Code, reason: &str) -> Rejection {
    let rejection = ask(cluster, kind, false).unwrap_err();
    assert_eq!((rejection.code, rejection.reason), (code, reason), "{rejection}");
    rejection
}

fn running() -> Cluster {
    Cluster::of_hosts(1)
        .with_vm(1)
        .placed(1, 1)
        .says(1, ObservedState::Running)
}

fn stopped() -> Cluster {
    Cluster::of_hosts(1)
        .with_vm(1)
        .off(1)
        .placed(1, 1)
        .says(1, ObservedState::Stopped)
}

#[test]
fn a_graceful_stop_leaves_the_power_to_the_host() {
    let admission = admitted(&running(), STOP);
    assert_eq!((admission.record, admission.state), (None, OperationState::Pending));
    let parts: Vec<&Part> = admission.expects.iter().map(|(part, _)| part).collect();
    assert_eq!(
        parts,
        [
            &Part::VmRecord(vm_id(1)),
            &Part::Placement(vm_id(1)),
            &Part::Status(vm_id(1))
        ]
    );
    assert!(admission.expects.iter().all(|(_, revision)| *revision > 0));
}

#[test]
fn stopping_what_runs_nowhere_is_done_at_once() {
    let waiting = Cluster::of_hosts(0).with_vm(1);
    let admission = admitted(&waiting, STOP);
    assert_eq!(admission.state, OperationState::Done);
    assert_eq!(admission.record.unwrap().power(), PowerWanted::Off);
    let again = admitted(&stopped(), STOP);
    assert_eq!((again.state, again.record), (OperationState::Done, None));
}

#[test]
fn starting_wants_it_on_in_a_new_generation() {
    let admission = admitted(&stopped(), OperationKind::Start);
    let record = admission.record.unwrap();
    assert_eq!((record.power(), record.generation().get()), (PowerWanted::On, 3));
    let reason = "no disk".to_owned();
    let failed = Cluster::of_hosts(1)
        .with_vm(1)
        .placed(1, 1)
        .says(1, ObservedState::Failed { reason });
    assert_eq!(
        admitted(&failed, OperationKind::Start)
            .record
            .unwrap()
            .generation()
            .get(),
        2
    );
    let again = admitted(&running(), OperationKind::Start);
    assert_eq!((again.state, again.record), (OperationState::Done, None));
}

#[test]
fn deleting_what_runs_needs_force() {
    refused(
        &running(),
        OperationKind::Delete,
        Code::FailedPrecondition,
        "VM_RUNNING",
    );
    let forced = ask(&running(), OperationKind::Delete, true).unwrap();
    assert!(forced.record.unwrap().is_deleted());
    assert!(admitted(&stopped(), OperationKind::Delete).record.unwrap().is_deleted());
    let deleted = stopped().deleted(1).with_operation(7, 1, OperationKind::Delete);
    let rejection = refused(&deleted, OperationKind::Start, Code::FailedPrecondition, "VM_DELETED");
    assert_eq!(rejection.operation, Some(operation_id(7)));
}

#[test]
fn two_orders_do_not_run_into_each_other() {
    let rebooting = running().with_operation(7, 1, OperationKind::Reboot);
    for kind in [OperationKind::Start, STOP, RESTART, OperationKind::Pause] {
        let rejection = refused(&rebooting, kind, Code::Aborted, "OPERATION_IN_PROGRESS");
        assert_eq!(rejection.operation, Some(operation_id(7)));
    }
    assert!(ask(&rebooting, PULL, false).is_ok());
    assert!(ask(&rebooting, OperationKind::Delete, true).is_ok());
    let pulling = running().with_operation(7, 1, PULL);
    refused(&pulling, PULL, Code::Aborted, "OPERATION_IN_PROGRESS");
    // What waits for the VM to start stands in nobody's way.
    assert!(ask(&running().with_operation(7, 1, OperationKind::Start), STOP, false).is_ok());
}

#[test]
fn orders_for_a_host_that_is_silent_wait_and_say_so() {
    let silent = running().silent(1, 12_000);
    for kind in [STOP, PULL, RESTART, OperationKind::Reset] {
        let admission = admitted(&silent, kind);
        assert_eq!((admission.record, admission.state), (None, OperationState::Pending));
        assert!(
            admission.step.contains("host h1 last heard of 12 s ago"),
            "{}",
            admission.step
        );
    }
    refused(&silent, OperationKind::Delete, Code::FailedPrecondition, "VM_UNKNOWN");
    assert!(ask(&silent, OperationKind::Delete, true).is_ok());
}

#[test]
fn there_is_nothing_to_do_with_a_vm_that_is_not_there() {
    refused(
        &Cluster::of_hosts(1),
        OperationKind::Start,
        Code::NotFound,
        "VM_NOT_FOUND",
    );
}

#[test]
fn a_refusal_says_what_to_do() {
    let rejection = refused(
        &stopped(),
        OperationKind::Reboot,
        Code::FailedPrecondition,
        "VM_NOT_RUNNING",
    );
    assert_eq!(rejection.to_string(), "VM vm1 is stopped: start it first");
    assert_eq!(OperationError::from(rejection).code, 9);
}

#[test]
fn nobody_means_to_ask_a_hundred_times() {
    let ask = |cluster: Cluster, number| cluster.with_operation(number, 1, OperationKind::Start);
    let pending = Cluster::of_hosts(1).with_vm(1);
    let full = (1..=100).fold(pending, ask);
    refused(
        &full,
        OperationKind::Start,
        Code::ResourceExhausted,
        "TOO_MANY_OPERATIONS",
    );
    let vm = &full.view.vms[&vm_id(1)];
    let (open, shown) = (
        full.view.open_operations(vm_id(1)),
        visible::vm(&full.view, &full.heard, vm_id(1)),
    );
    assert!(admit(OperationKind::Start, vm, &open[1..], &shown).is_ok());
    assert!(admit(PULL, vm, &open, &shown).is_ok(), "there is always a way out");
    assert!(admit_delete(false, vm, &open, &shown).is_ok());
}
