//! Carrying out what clients ask of a VM that is here.
//!
//! ```text
//!  pending --verdict--> finished at once, failed at once, or taken (Running, with this host as its runner)
//!  taken --> order at the machine --> outcome, or the process gone --> finished or failed
//! ```
//! A server that starts finds its predecessor's orders taken and not begun by itself: what can be continued is
//! (a stop, a restart), what can be repeated is (pause, resume), and of the rest it is said that nobody knows.

use plasmavmc_types::{
    AgentHealth, AgentPolicy, Condition, Operation, OperationError, OperationKind, OperationState, PowerWanted, VmState,
};

use super::case::Placed;
use super::here::{Doing, Observed};
use super::{AgentAction, Gate, Order, Ordered, Why, mark};
use crate::change::Change;
use crate::code::Code;
use crate::lifecycle::{Verdict, verdict};
use crate::view::Stored;

/// After its deadline an order that is under way at the machine has this long to say so itself.
const GRACE_MS: u64 = 3000;

/// What is to be written about an operation, if anything.
pub(super) fn write(placed: &Placed<'_>) -> Option<AgentAction> {
    if placed.record.value.is_deleted() {
        return None;
    }
    let Some(operation) = next(placed) else {
        return keep_power(placed);
    };
    match operation.value.state {
        OperationState::Pending => begin(placed, operation),
        OperationState::Running if !placed.is_taken_here(operation) => {
            let error = Code::Aborted.error("HOST_CHANGED", "the VM was moved to another host meanwhile");
            Some(fail(placed, operation, error))
        }
        OperationState::Running => go_on(placed, operation),
        _ => None,
    }
}

/// What is to be done at the machine.
pub(super) fn act(placed: &Placed<'_>) -> Option<AgentAction> {
    let operation = next(placed).filter(|operation| placed.is_taken_here(operation))?;
    let machine = placed
        .living()
        .filter(|machine| !matches!(machine.observed, Observed::Prepared | Observed::Frozen))?;
    let status = &placed.status()?.value;
    let is_ended = placed
        .case
        .local
        .outcome
        .as_ref()
        .is_some_and(|outcome| outcome.operation == operation.value.id);
    if is_ended {
        return None;
    }
    let order = match operation.value.kind {
        OperationKind::Stop { force: false } => stop(placed, operation),
        OperationKind::Restart { force: false } if mark::has(status, mark::RESTARTING) => {
            stop_to_restart(placed, operation)?
        }
        OperationKind::Reboot if mark::has(status, mark::REBOOTING) => Order::Reboot,
        OperationKind::Reset => Order::Reset,
        OperationKind::Pause => Order::Pause,
        OperationKind::Resume => Order::Resume,
        _ => return None,
    };
    Some(AgentAction::Order(Box::new(Ordered {
        vm: placed.case.id,
        operation: operation.value.id,
        attempt: machine.attempt,
        order,
        deadline_ms: operation.value.deadline_ms,
    })))
}

/// The one order that counts now: pulling the plug before the oldest.
fn next<'a>(placed: &Placed<'a>) -> Option<&'a Stored<Operation>> {
    let orders = || placed.operations().filter(|operation| operation.value.kind.is_order());
    let is_waiting_to_be_cancelled =
        |operation: &Operation| operation.cancel_requested && operation.state == OperationState::Pending;
    let lively = || orders().filter(|operation| !is_waiting_to_be_cancelled(&operation.value));
    let pulls_plug = |operation: &&Stored<Operation>| operation.value.kind == OperationKind::Stop { force: true };
    lively().find(pulls_plug).or_else(|| lively().next())
}

/// An order that nobody has taken yet.
fn begin(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<AgentAction> {
    let kind = operation.value.kind;
    if placed.now_ms() >= operation.value.deadline_ms {
        let error = Code::DeadlineExceeded.error("NOT_BEGUN", format!("the {kind} was not begun in time; try again"));
        return Some(fail(placed, operation, error));
    }
    let pulls_plug = kind == OperationKind::Stop { force: true };
    if placed.case.local.doing.is_some() && !pulls_plug {
        return None;
    }
    let state = placed.own_state();
    // Claimed, and no process of it: there is nothing to be stopped, and it must not be started any more.
    let is_idle = placed.case.machine().is_none() && placed.case.local.doing.is_none();
    if matches!(kind, OperationKind::Stop { .. }) && state == VmState::Starting && is_idle {
        return Some(finish(placed, operation, "it runs nowhere; it stays off"));
    }
    match verdict(kind, state) {
        Verdict::IsSo(step) => Some(finish(placed, operation, step)),
        Verdict::Refused(reason, what_to_do) => {
            let name = &placed.record.value.spec().name;
            let message = format!("VM {name} is {state}: {what_to_do}");
            Some(fail(placed, operation, Code::FailedPrecondition.error(reason, message)))
        }
        // It is thawed or killed in a moment.
        _ if state == VmState::Frozen && !kind.is_forced() => None,
        // Its guest has not been let loose yet, which takes a moment.
        _ if state == VmState::Starting && !kind.is_forced() => None,
        _ if placed.status().is_none() => None,
        _ => take(placed, operation),
    }
}

fn take(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<AgentAction> {
    let kind = operation.value.kind;
    let step = match kind {
        OperationKind::Stop { force: true } | OperationKind::Restart { force: true } => "pulling the plug",
        OperationKind::Stop { .. } | OperationKind::Restart { .. } | OperationKind::Reboot => match agent(placed) {
            AgentPolicy::None => "asking the guest to power off",
            _ => "asking the guest's agent",
        },
        _ => "under way",
    };
    let mut taken = operation.value.moved(OperationState::Running, step, placed.now_ms());
    taken.runner = Some((placed.case.here.host, placed.session().epoch));
    let mut change = placed.guarded().replace_operation(operation, taken);
    let id = operation.value.id;
    let remembers = match kind {
        OperationKind::Restart { .. } => Some((mark::RESTARTING, format!("it is restarted (operation {id})"))),
        OperationKind::Reboot => Some((mark::REBOOTING, format!("its guest is rebooted (operation {id})"))),
        _ => None,
    };
    if let Some((name, text)) = remembers {
        let marked = placed.edited(|fields| {
            fields.conditions.retain(|condition| !mark::is_of_order(condition));
            mark::set(&mut fields.conditions, name, text);
        })?;
        change = placed.put_status(change, marked);
    }
    if kind == (OperationKind::Stop { force: true }) {
        change = placed.with_power(change, PowerWanted::Off);
    }
    Some(placed.write(Why::TakeOrder(id), change))
}

/// An order that this host has taken.
fn go_on(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<AgentAction> {
    let local = placed.case.local;
    let (id, kind) = (operation.value.id, operation.value.kind);
    let outcome = local.outcome.as_ref().filter(|outcome| outcome.operation == id);
    if let Some(Err(error)) = outcome.map(|outcome| &outcome.result) {
        return Some(fail(placed, operation, error.clone()));
    }
    let is_doing = local.doing == Some(Doing::Order(id));
    let grace_ms = if is_doing { GRACE_MS } else { 0 };
    if placed.now_ms() >= operation.value.deadline_ms.saturating_add(grace_ms) {
        return Some(fail(placed, operation, too_late(placed, kind)));
    }
    if is_doing {
        return None;
    }
    let is_done = outcome.is_some();
    match kind {
        OperationKind::Stop { .. } => stopped(placed, operation),
        OperationKind::Restart { .. } => started_anew(placed, operation, mark::RESTARTING),
        OperationKind::Reboot if is_done => Some(finish(placed, operation, "rebooted")),
        OperationKind::Reboot => started_anew(placed, operation, mark::REBOOTING),
        _ if is_done => Some(finish(placed, operation, "done")),
        _ if placed.living().is_none() => {
            let error = Code::Aborted.error("VM_STOPPED", "the VM has stopped meanwhile");
            Some(fail(placed, operation, error))
        }
        OperationKind::Pause if placed.own_state() == VmState::Paused => Some(finish(placed, operation, "paused")),
        OperationKind::Resume if placed.own_state() == VmState::Running => Some(finish(placed, operation, "it runs")),
        OperationKind::Reset => (local.taken != Some(id)).then(|| fail(placed, operation, nobody_knows(kind))),
        // What can be done twice is done again.
        _ => None,
    }
}

fn stopped(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<AgentAction> {
    let is_over = placed.living().is_none() && placed.own_state() == VmState::Stopped;
    let is_at_rest = placed.living().is_none() && placed.case.local.doing.is_none();
    (is_over || is_at_rest).then(|| finish(placed, operation, "it is stopped"))
}

/// A restart, or a reboot whose process ended: where it is, is in the status.
fn started_anew(placed: &Placed<'_>, operation: &Stored<Operation>, name: &str) -> Option<AgentAction> {
    let status = &placed.status()?.value;
    let id = operation.value.id;
    if placed.record.value.power() == PowerWanted::Off {
        let error = Code::Aborted.error("OVERTAKEN", "the VM was switched off meanwhile");
        return Some(fail(placed, operation, error));
    }
    if mark::has(status, name) {
        let is_lost = name == mark::REBOOTING && placed.case.local.taken != Some(id) && placed.living().is_some();
        return is_lost.then(|| fail(placed, operation, nobody_knows(OperationKind::Reboot)));
    }
    let reason = match placed.own_state() {
        VmState::Failed => "it could not be started again: see the VM's reason",
        VmState::Running => return wait_for_agent(placed, operation),
        VmState::Stopped if placed.case.here.departs.is_some() => {
            let message = "its host is being shut down; the VM stays wanted on, and starts where it is placed next";
            return Some(fail(placed, operation, Code::Aborted.error("HOST_DEPARTS", message)));
        }
        _ => return None,
    };
    Some(fail(
        placed,
        operation,
        Code::FailedPrecondition.error("VM_FAILED", reason),
    ))
}

fn wait_for_agent(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<AgentAction> {
    let answers = placed
        .living()
        .is_some_and(|machine| machine.agent == AgentHealth::Responding);
    if answers || agent(placed) != AgentPolicy::Required {
        return Some(finish(placed, operation, "it runs again"));
    }
    let step = "it runs again; waiting for the guest's agent";
    if operation.value.step == step {
        return None;
    }
    let noted = operation.value.moved(OperationState::Running, step, placed.now_ms());
    let change = placed.guarded().replace_operation(operation, noted);
    Some(placed.write(Why::Report, change))
}

/// A graceful stop: the power that is wanted is off once the gate was passed, and tells it from then on.
fn stop(placed: &Placed<'_>, operation: &Stored<Operation>) -> Order {
    if placed.record.value.power() == PowerWanted::Off {
        return Order::Stop {
            gate: Gate::Passed,
            passed: None,
        };
    }
    let next = operation
        .value
        .moved(OperationState::Running, "the guest is powering off", placed.now_ms());
    let change = placed.guarded().replace_operation(operation, next);
    let passed = placed.with_power(change, PowerWanted::Off);
    Order::Stop {
        gate: Gate::Ask,
        passed: Some(Box::new(passed)),
    }
}

/// The same for a restart, which stays wanted on: here it is a mark that tells.
fn stop_to_restart(placed: &Placed<'_>, operation: &Stored<Operation>) -> Option<Order> {
    let status = &placed.status()?.value;
    if mark::has(status, mark::GOING_DOWN) {
        return Some(Order::Stop {
            gate: Gate::Passed,
            passed: None,
        });
    }
    let next = operation
        .value
        .moved(OperationState::Running, "the guest is powering off", placed.now_ms());
    let marked = placed.edited(|fields| mark::set(&mut fields.conditions, mark::GOING_DOWN, "its guest powers off"))?;
    let change = placed.guarded().replace_operation(operation, next);
    Some(Order::Stop {
        gate: Gate::Ask,
        passed: Some(Box::new(placed.put_status(change, marked))),
    })
}

fn finish(placed: &Placed<'_>, operation: &Stored<Operation>, step: &str) -> AgentAction {
    let ended = operation.value.moved(OperationState::Done, step, placed.now_ms());
    let mut change = placed.guarded().replace_operation(operation, ended);
    if matches!(operation.value.kind, OperationKind::Stop { .. }) {
        change = placed.with_power(change, PowerWanted::Off);
    }
    let change = unmarked(placed, change, |_| true);
    placed.write(Why::FinishOrder(operation.value.id), change)
}

/// What failed has changed nothing: the VM is wanted on again, if it still runs.
fn fail(placed: &Placed<'_>, operation: &Stored<Operation>, error: OperationError) -> AgentAction {
    let state = OperationState::Failed(error);
    let ended = operation.value.moved(state, "failed", placed.now_ms());
    let mut change = placed.guarded().replace_operation(operation, ended);
    let is_stop = operation.value.kind == OperationKind::Stop { force: false };
    if is_stop && placed.living().is_some() {
        change = placed.with_power(change, PowerWanted::On);
    }
    // A guest that was asked to power off may still do so, and is started again then: the mark tells.
    let change = unmarked(placed, change, |condition| condition.name.as_str() == mark::RESTARTING);
    placed.write(Why::FailOrder(operation.value.id), change)
}

/// With those marks of the order that ends here taken away.
fn unmarked(placed: &Placed<'_>, change: Change, goes: impl Fn(&Condition) -> bool) -> Change {
    let Some(status) = placed.status() else { return change };
    let goes = |condition: &Condition| mark::is_of_order(condition) && goes(condition);
    if !status.value.conditions.iter().any(goes) {
        return change;
    }
    match placed.edited(|fields| fields.conditions.retain(|condition| !goes(condition))) {
        Some(next) => placed.put_status(change, next),
        None => change,
    }
}

/// A VM that runs, is wanted off, and nobody stops: a stop was given up while no server was here. What failed has
/// changed nothing.
fn keep_power(placed: &Placed<'_>) -> Option<AgentAction> {
    let runs = matches!(placed.living()?.observed, Observed::Running | Observed::Paused(_));
    let is_left = placed.record.value.power() == PowerWanted::Off && placed.case.local.doing.is_none();
    if !runs || !is_left {
        return None;
    }
    let change = placed.with_power(placed.guarded(), PowerWanted::On);
    Some(placed.write(Why::Settle, change))
}

fn agent(placed: &Placed<'_>) -> AgentPolicy {
    placed.record.value.spec().agent
}

fn too_late(placed: &Placed<'_>, kind: OperationKind) -> OperationError {
    let runs = placed.own_state() == VmState::Running;
    let (reason, message) = match kind {
        OperationKind::Stop { force: false } => (
            "GUEST_DID_NOT_POWER_OFF",
            "the guest did not power off in time; it may still do so. Look at its console, or use force",
        ),
        OperationKind::Restart { .. } | OperationKind::Reboot if runs => (
            "AGENT_SILENT",
            "the VM runs, and its agent has not answered in time: look at its console",
        ),
        OperationKind::Restart { .. } => ("NOT_RESTARTED", "the VM was not up again in time; it stays wanted on"),
        _ => ("NOT_DONE", "it was not done in time; look at the VM, then try again"),
    };
    Code::DeadlineExceeded.error(reason, message)
}

fn nobody_knows(kind: OperationKind) -> OperationError {
    let message =
        format!("the server was restarted during the {kind}; whether it was done is not known: look at the VM");
    Code::Aborted.error("SERVER_RESTARTED", message)
}
