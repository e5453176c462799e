//! Writing down how an attempt ended, and what follows from it.

use plasmavmc_types::{
    AgentHealth, Exit, ObservedState, Operation, OperationKind, OperationState, PowerWanted, VmStatus, VmStatusFields,
};

use super::case::Placed;
use super::here::Ended;
use super::report::end_starts;
use super::{AgentAction, Why, mark};
use crate::change::{Change, OPERATIONS_AT_ONCE};
use crate::code::Code;
use crate::restart::{RestartDecision, next};
use crate::view::Stored;
use crate::visible::seconds;

/// A process is gone, or was never found.
pub(super) fn ended(placed: &Placed<'_>, how: Ended, last_words: &str) -> Option<AgentAction> {
    let status = &placed.status()?.value;
    // Also after the order was given up: what it had begun ends with a start.
    let is_stopped_to_start = mark::has(status, mark::GOING_DOWN)
        || mark::has(status, mark::REBOOTING)
        || (mark::has(status, mark::RESTARTING) && placed.new_start().is_some());
    if !placed.is_wanted_here() || is_stopped_to_start {
        return stopped(placed, Some(how.exit()));
    }
    if !matches!(how, Ended::GuestPoweredOff | Ended::Stopped) {
        return crashed(placed, &format!("QEMU {}", how.text()), last_words, Some(how.exit()));
    }
    // The guest has powered off: so it is wanted off from now on, whoever asked it to.
    let next = placed.edited(|fields| over(fields, ObservedState::Stopped, Some(how.exit())))?;
    let change = placed.with_power(placed.guarded(), PowerWanted::Off);
    let change = end_starts(
        placed,
        change,
        OperationState::Done,
        "it ran, and its guest has powered off",
    );
    let change = finish_stops(placed, placed.put_status(change, next));
    Some(placed.write(Why::Report, change))
}

/// Nothing of it is left, and nobody wonders.
pub(super) fn stopped(placed: &Placed<'_>, exit: Option<Exit>) -> Option<AgentAction> {
    let next = placed.edited(|fields| over(fields, ObservedState::Stopped, exit))?;
    let change = placed.put_status(placed.guarded(), next);
    let change = if placed.is_wanted_on() {
        change
    } else {
        finish_stops(placed, change)
    };
    Some(placed.write(Why::Report, change))
}

/// It died by itself: it is started again after a pause, or given up.
pub(super) fn crashed(placed: &Placed<'_>, what: &str, last_words: &str, exit: Option<Exit>) -> Option<AgentAction> {
    let status = &placed.status()?.value;
    let now_ms = placed.now_ms();
    let mut crashes = status.crashes_at_ms.clone();
    crashes.push(now_ms);
    let said = match last_words.trim() {
        "" => what.to_owned(),
        words => format!("{what}; it said: {words}"),
    };
    match next(placed.record.value.spec().restart, &crashes, now_ms) {
        RestartDecision::At { at_ms } => {
            let pause = seconds(at_ms.saturating_sub(now_ms));
            let text = format!("started again after a pause of {pause}: {said}");
            let next = placed.edited(|fields| {
                over(fields, ObservedState::Starting, exit);
                fields.crashes_at_ms = crashes;
                fields.since_ms = now_ms;
                mark::set(&mut fields.conditions, mark::CRASHED, text);
            })?;
            let change = placed.put_status(placed.guarded(), next);
            Some(placed.write(Why::Report, change))
        }
        RestartDecision::GiveUp { reason } => failed(placed, &format!("{reason}; {said}"), exit, crashes),
    }
}

/// What is asked for cannot be had on this host.
pub(super) fn refused(placed: &Placed<'_>, text: &str) -> Option<AgentAction> {
    let crashes = placed.status()?.value.crashes_at_ms.clone();
    failed(placed, text, None, crashes)
}

/// Something holds what it needs; it is tried again soon.
pub(super) fn waits(placed: &Placed<'_>, text: &str) -> Option<AgentAction> {
    let now_ms = placed.now_ms();
    let next = placed.edited(|fields| {
        over(fields, ObservedState::Starting, None);
        fields.since_ms = now_ms;
        mark::set(&mut fields.conditions, mark::WAITING, text);
    })?;
    let change = placed.put_status(placed.guarded(), next);
    Some(placed.write(Why::Report, change))
}

fn failed(placed: &Placed<'_>, reason: &str, exit: Option<Exit>, crashes: Vec<u64>) -> Option<AgentAction> {
    let reason = match mark::shortened(reason) {
        empty if empty.is_empty() => "it could not be started".to_owned(),
        reason => reason,
    };
    let generation = placed.generation().get();
    let next = placed.edited(|fields| {
        let reason = reason.clone();
        over(fields, ObservedState::Failed { reason }, exit);
        fields.crashes_at_ms = crashes;
        // It is this that failed: only another wish makes it worth another try.
        fields.generation = generation;
    })?;
    let error = Code::FailedPrecondition.error("VM_FAILED", reason.as_str());
    let state = OperationState::Failed(error);
    let change = end_starts(placed, placed.guarded(), state, "the VM could not be started");
    let change = placed.put_status(change, next);
    Some(placed.write(Why::Report, change))
}

/// Ends the stops that wait for this.
fn finish_stops(placed: &Placed<'_>, change: Change) -> Change {
    let is_stop = |operation: &&Stored<Operation>| matches!(operation.value.kind, OperationKind::Stop { .. });
    let stops = placed.operations().filter(is_stop).take(OPERATIONS_AT_ONCE);
    stops.fold(change, |change, operation| {
        let ended = operation
            .value
            .moved(OperationState::Done, "it is stopped", placed.now_ms());
        change.replace_operation(operation, ended)
    })
}

/// No process is left.
fn over(fields: &mut VmStatusFields, state: ObservedState, exit: Option<Exit>) {
    fields.state = state;
    fields.process = None;
    fields.qemu = None;
    fields.agent = AgentHealth::NotAsked;
    fields.conditions.clear();
    if exit.is_some() {
        fields.last_exit = exit;
    }
}

/// When an attempt that ended may be followed by the next; `None`: at once.
pub(super) fn may_start_at(placed: &Placed<'_>, status: &VmStatus) -> Option<u64> {
    const WAIT_MS: u64 = 500;
    if mark::has(status, mark::WAITING) {
        return Some(status.since_ms.saturating_add(WAIT_MS).min(placed.now_ms() + WAIT_MS));
    }
    if !mark::has(status, mark::CRASHED) {
        return None;
    }
    match next(
        placed.record.value.spec().restart,
        &status.crashes_at_ms,
        placed.now_ms(),
    ) {
        RestartDecision::At { at_ms } => Some(at_ms),
        // The policy was made stricter meanwhile: the next crash is the last.
        RestartDecision::GiveUp { .. } => None,
    }
}
