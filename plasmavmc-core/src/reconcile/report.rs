//! Writing down what is seen.

use plasmavmc_types::{AgentHealth, ObservedState, Operation, OperationKind, OperationState, VmStatus};

use super::case::{Placed, end_is_written};
use super::here::{Doing, Ended, LaunchFailureKind, Machine, Observed};
use super::{AgentAction, Why, ends, mark};
use crate::change::{Change, OPERATIONS_AT_ONCE};
use crate::view::Stored;

/// What is to be written about the VM itself, if anything.
pub(super) fn write(placed: &Placed<'_>) -> Option<AgentAction> {
    let status = &placed.status()?.value;
    if let Some(machine) = placed.machine() {
        return match machine.observed {
            Observed::Gone(_) if end_is_written(status) => None,
            Observed::Gone(how) => ends::ended(placed, how, &machine.last_words),
            _ => living(placed, status, machine),
        };
    }
    // Another attempt's: it is cleared away first.
    let is_occupied = placed.case.machine().is_some() || matches!(placed.case.local.doing, Some(Doing::Launch));
    if is_occupied {
        return None;
    }
    if let Some(why) = &placed.case.local.left_alone {
        return left_alone(placed, status, why);
    }
    let failure = placed.case.local.launch_failed.as_ref();
    if let Some(failure) = failure.filter(|failure| failure.attempt == status.attempt && !end_is_written(status)) {
        return match failure.kind {
            LaunchFailureKind::Refused => ends::refused(placed, &failure.text),
            LaunchFailureKind::Waits => ends::waits(placed, &failure.text),
            LaunchFailureKind::Broke => ends::crashed(placed, "QEMU could not be started", &failure.text, None),
        };
    }
    match &status.state {
        ObservedState::Stopped => None,
        ObservedState::Starting if status.process.is_none() => {
            (!placed.is_wanted_here()).then(|| ends::stopped(placed, None))?
        }
        ObservedState::Failed { .. } if status.process.is_none() => {
            (!placed.is_wanted_on()).then(|| ends::stopped(placed, None))?
        }
        // The status tells of a process, and there is none.
        _ => ends::ended(placed, Ended::Unseen, ""),
    }
}

/// What is seen of a machine that lives, if it differs from what is written.
fn living(placed: &Placed<'_>, status: &VmStatus, machine: &Machine) -> Option<AgentAction> {
    let state = match machine.observed {
        // Its guest executes in a moment.
        Observed::Prepared | Observed::Gone(_) => return None,
        Observed::Running | Observed::Rebooting => ObservedState::Running,
        Observed::Paused(cause) => ObservedState::Paused { cause },
        Observed::Frozen => ObservedState::Frozen,
        Observed::Stopping | Observed::PoweredOff | Observed::Ending => ObservedState::Stopping,
        Observed::Unreachable => status.state.clone(),
    };
    let has_order = placed.new_start().is_some();
    let next = placed.edited(|fields| {
        fields.state = state;
        fields.process = machine.process.or(fields.process);
        fields.qemu = machine.qemu.clone();
        fields.agent = machine.agent;
        // An agent that answers after its order was given up belongs to a guest that is not going down.
        let keeps_marks = has_order || machine.agent != AgentHealth::Responding;
        fields
            .conditions
            .retain(|condition| keeps_marks && mark::is_of_order(condition));
        fields.conditions.extend(machine.conditions.iter().cloned());
        if machine.observed == Observed::Unreachable {
            mark::set(
                &mut fields.conditions,
                mark::MONITOR_SILENT,
                "QEMU runs and does not answer",
            );
        }
    })?;
    if next == *status {
        return None;
    }
    let is_up = matches!(next.state, ObservedState::Running | ObservedState::Paused { .. });
    let mut change = placed.guarded();
    if is_up {
        let step = match next.state {
            ObservedState::Paused { .. } => "its guest is paused",
            _ => "it runs",
        };
        change = end_starts(placed, change, OperationState::Done, step);
    }
    let change = placed.put_status(change, next);
    Some(placed.write(Why::Report, change))
}

/// Something runs that nobody could take over: nothing is started beside it, and everybody can see why.
fn left_alone(placed: &Placed<'_>, status: &VmStatus, why: &str) -> Option<AgentAction> {
    let text = format!("something of it runs on this host and could not be taken over: {why}");
    let next = placed.edited(|fields| mark::set(&mut fields.conditions, mark::LEFT_ALONE, text))?;
    if next == *status {
        return None;
    }
    let change = placed.put_status(placed.guarded(), next);
    Some(placed.write(Why::Report, change))
}

/// Ends what waits for the VM to start.
pub(super) fn end_starts(placed: &Placed<'_>, change: Change, state: OperationState, step: &str) -> Change {
    let starts =
        |operation: &&Stored<Operation>| matches!(operation.value.kind, OperationKind::Create | OperationKind::Start);
    let starts = placed.operations().filter(starts).take(OPERATIONS_AT_ONCE);
    starts.fold(change, |change, operation| {
        let ended = operation.value.moved(state.clone(), step, placed.now_ms());
        change.replace_operation(operation, ended)
    })
}
