//! What may be asked of a VM in which state: one table, used where the call is taken and again where it is
//! carried out.
//!
//! ```text
//!            pending  starting  running   paused    stopping  stopped   failed   unknown, frozen
//!  start     joins    joins     is so     refused   refused   goes      goes     waits
//!  stop      is so    goes      goes      refused   goes      is so     is so    waits
//!   force    is so    goes      goes      goes      goes      is so     is so    waits
//!  reboot    refused  refused   goes      refused   refused   refused   refused  waits
//!  restart   refused  refused   goes      refused   refused   refused   refused  waits
//!   force    refused  goes      goes      goes      refused   refused   refused  waits
//!  reset     refused  refused   goes      goes      refused   refused   refused  waits
//!  pause     refused  refused   goes      is so     refused   refused   refused  waits
//!  resume    refused  refused   is so     goes      refused   refused   refused  waits
//!  delete    goes     refused   refused   refused   refused   goes      goes     refused
//!   force    goes      goes     goes      goes      goes      goes      goes     waits
//! ```
//! What runs cannot be stopped gracefully without its agent: that is asked by the host, when it begins.
//!
//! Must never: let one VM have more under way than anybody means; let two orders at one VM run into each other. Only pulling the plug overtakes what is under way.

use plasmavmc_types::{
    Operation, OperationError, OperationId, OperationKind, OperationState, PowerWanted, VmId, VmName, VmRecord, VmState,
};

use crate::change::{Change, Part, Put};
use crate::code::Code;
use crate::view::{Stored, VmView, revision_of};
use crate::visible::VisibleVm;

/// Operations under way at one VM. Nobody means to have so many; a program that repeats itself has.
const MOST_OPEN: usize = 100;

/// What follows from a call that is admitted: all of it in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The record in its next form, if what is wanted changes.
    pub record: Option<VmRecord>,
    /// Done, where it is so already, or pending.
    pub state: OperationState,
    /// What the operation says it does.
    pub step: String,
    /// What this rests on. A breach means: look again.
    pub expects: Vec<(Part, u64)>,
}

impl Admission {
    /// The operation that a client can follow.
    pub fn operation(&self, id: OperationId, kind: OperationKind, vm: VmId, name: VmName, now_ms: u64) -> Operation {
        Operation {
            id,
            kind,
            vm,
            vm_name: name,
            state: self.state.clone(),
            step: self.step.clone(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            deadline_ms: now_ms.saturating_add(patience_ms(kind)),
            cancel_requested: false,
            runner: None,
        }
    }

    /// With its operation, as one change.
    pub fn into_change(self, operation: Operation) -> Change {
        let mut change = Change::new()
            .expect(Part::Operation(operation.id), 0)
            .put(Put::Operation(operation));
        change.expects.extend(self.expects);
        match self.record {
            Some(record) => change.put(Put::VmRecord(Box::new(record))),
            None => change,
        }
    }
}

/// A call that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    pub code: Code,
    /// For programs: `VM_PAUSED`.
    pub reason: &'static str,
    /// For people, with what to do.
    pub message: String,
    /// What is under way instead.
    pub operation: Option<OperationId>,
}

impl From<Rejection> for OperationError {
    fn from(rejection: Rejection) -> Self {
        rejection.code.error(rejection.reason, rejection.message)
    }
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Goes,
    /// It goes with what is under way already.
    Joins,
    IsSo(&'static str),
    /// Until its host can be heard again.
    Waits,
    Refused(&'static str, &'static str),
}

/// Whether this may be asked of the VM now. `open` are its operations that have not ended.
pub fn admit(
    kind: OperationKind,
    vm: &VmView,
    open: &[&Stored<Operation>],
    shown: &VisibleVm,
) -> Result<Admission, Rejection> {
    admit_with(kind, false, vm, open, shown)
}

/// Whether the VM may be deleted now; with `force`, also if it runs.
pub fn admit_delete(
    force: bool,
    vm: &VmView,
    open: &[&Stored<Operation>],
    shown: &VisibleVm,
) -> Result<Admission, Rejection> {
    admit_with(OperationKind::Delete, force, vm, open, shown)
}

fn admit_with(
    kind: OperationKind,
    force_delete: bool,
    vm: &VmView,
    open: &[&Stored<Operation>],
    shown: &VisibleVm,
) -> Result<Admission, Rejection> {
    let Some(record) = &vm.record else {
        return Err(refusal(
            Code::NotFound,
            "VM_NOT_FOUND",
            "there is no such VM".to_owned(),
        ));
    };
    let name = &record.value.spec().name;
    refuse_deleted(&record.value, open)?;
    refuse_conflict(kind, force_delete, name.as_str(), open)?;
    let verdict = match kind {
        OperationKind::Delete if !force_delete => delete_verdict(shown.state),
        kind => verdict(kind, shown.state),
    };
    let (state, step) = match verdict {
        Verdict::Refused(reason, what_to_do) => {
            let message = format!("VM {name} is {}: {what_to_do}", shown.state);
            return Err(refusal(Code::FailedPrecondition, reason, message));
        }
        Verdict::IsSo(step) => (OperationState::Done, step.to_owned()),
        Verdict::Goes => (OperationState::Pending, String::new()),
        Verdict::Joins => (OperationState::Pending, shown.reason.clone()),
        Verdict::Waits => (OperationState::Pending, format!("waits: {}", shown.reason)),
    };
    Ok(Admission {
        record: next_record(kind, &record.value, verdict)?,
        state,
        step,
        expects: foundations(record.value.id(), vm),
    })
}

/// Whether this makes sense for a VM in this state.
pub fn verdict(kind: OperationKind, state: VmState) -> Verdict {
    use OperationKind as Kind;
    use VmState as State;
    const NOT_RUNNING: Verdict = Verdict::Refused("VM_NOT_RUNNING", "start it first");
    const NOT_YET: Verdict = Verdict::Refused("VM_NOT_RUNNING", "wait until it runs");
    const PAUSED: Verdict = Verdict::Refused("VM_PAUSED", "its guest can take no part; resume it first, or use force");
    match (kind, state) {
        (Kind::Delete | Kind::Create, State::Unknown | State::Frozen) => Verdict::Waits,
        (Kind::Delete | Kind::Create, _) => Verdict::Goes,
        (_, State::Unknown | State::Frozen) => Verdict::Waits,
        (_, State::Migrating) => Verdict::Refused("VM_MIGRATING", "wait until it has arrived"),

        (Kind::Start, State::Pending | State::Starting) => Verdict::Joins,
        (Kind::Start, State::Running) => Verdict::IsSo("it runs already"),
        (Kind::Start, State::Paused) => Verdict::Refused("VM_PAUSED", "resume it"),
        (Kind::Start, State::Stopping) => Verdict::Refused("VM_STOPPING", "wait until it is stopped"),
        (Kind::Start, State::Stopped | State::Failed) => Verdict::Goes,

        (Kind::Stop { .. }, State::Pending) => Verdict::IsSo("it runs nowhere; it stays off"),
        (Kind::Stop { .. }, State::Stopped | State::Failed) => Verdict::IsSo("it is stopped already"),
        (Kind::Stop { force: false }, State::Paused) => PAUSED,
        (Kind::Stop { .. }, _) => Verdict::Goes,

        (_, State::Pending | State::Stopped | State::Failed) => NOT_RUNNING,
        (_, State::Stopping) => Verdict::Refused("VM_STOPPING", "wait until it is stopped, then start it"),
        (Kind::Restart { force: true }, _) => Verdict::Goes,
        (_, State::Starting) => NOT_YET,
        (Kind::Reboot | Kind::Restart { .. }, State::Paused) => PAUSED,
        (Kind::Pause, State::Paused) => Verdict::IsSo("it is paused already"),
        (Kind::Resume, State::Running) => Verdict::IsSo("it runs already"),
        (_, State::Running | State::Paused) => Verdict::Goes,
    }
}

fn delete_verdict(state: VmState) -> Verdict {
    match state {
        VmState::Pending | VmState::Stopped | VmState::Failed => Verdict::Goes,
        VmState::Unknown => Verdict::Refused(
            "VM_UNKNOWN",
            "it may run; wait for its host, or delete it with force, which waits for the host to kill it",
        ),
        _ => Verdict::Refused("VM_RUNNING", "stop it first, or delete it with force"),
    }
}

fn refuse_deleted(record: &VmRecord, open: &[&Stored<Operation>]) -> Result<(), Rejection> {
    if !record.is_deleted() {
        return Ok(());
    }
    let deleting = open
        .iter()
        .find(|operation| operation.value.kind == OperationKind::Delete);
    let message = format!("VM {} is being deleted, which cannot be undone", record.spec().name);
    Err(Rejection {
        operation: deleting.map(|operation| operation.value.id),
        ..refusal(Code::FailedPrecondition, "VM_DELETED", message)
    })
}

fn refuse_conflict(
    kind: OperationKind,
    force_delete: bool,
    name: &str,
    open: &[&Stored<Operation>],
) -> Result<(), Rejection> {
    let pulls_plug = kind == OperationKind::Stop { force: true } || (kind == OperationKind::Delete && force_delete);
    if open.len() >= MOST_OPEN && !pulls_plug && kind != OperationKind::Delete {
        let message = format!(
            "VM {name} has {} operations under way, and {MOST_OPEN} are allowed: wait until they have ended",
            open.len()
        );
        return Err(refusal(Code::ResourceExhausted, "TOO_MANY_OPERATIONS", message));
    }
    let stands_in_the_way = |operation: &&&Stored<Operation>| {
        let under_way = operation.value.kind;
        let is_overtaken = pulls_plug && under_way != kind;
        under_way.is_order() && !is_overtaken
    };
    let Some(other) = open.iter().find(stands_in_the_way).map(|operation| &operation.value) else {
        return Ok(());
    };
    let (word, id) = (other.kind, other.id);
    let message = format!(
        "VM {name} has a {word} under way (operation {id}): wait for its end, cancel it, or stop the VM with force"
    );
    Err(Rejection {
        operation: Some(id),
        ..refusal(Code::Aborted, "OPERATION_IN_PROGRESS", message)
    })
}

fn refusal(code: Code, reason: &'static str, message: String) -> Rejection {
    Rejection {
        code,
        reason,
        message,
        operation: None,
    }
}

/// What is wanted from now on, if that changes here. The power of a VM that runs is switched off by its host,
/// once the guest's agent has answered.
fn next_record(kind: OperationKind, record: &VmRecord, verdict: Verdict) -> Result<Option<VmRecord>, Rejection> {
    let next = match kind {
        OperationKind::Delete => record.delete(),
        // Also where it is wanted on already: a new generation is what a failed VM waits for.
        OperationKind::Start if verdict == Verdict::Goes || record.power() == PowerWanted::Off => {
            record.with_power(PowerWanted::On)
        }
        OperationKind::Stop { .. } if matches!(verdict, Verdict::IsSo(_)) && record.power() == PowerWanted::On => {
            record.with_power(PowerWanted::Off)
        }
        _ => return Ok(None),
    };
    next.map(Some)
        .map_err(|invalid| refusal(Code::Internal, "VM_RECORD", invalid.to_string()))
}

fn foundations(id: VmId, vm: &VmView) -> Vec<(Part, u64)> {
    vec![
        (Part::VmRecord(id), revision_of(vm.record.as_ref())),
        (Part::Placement(id), revision_of(vm.placement.as_ref())),
        (Part::Status(id), revision_of(vm.status.as_ref())),
    ]
}

/// How long each kind of operation has, unless the caller says otherwise.
pub const fn patience_ms(kind: OperationKind) -> u64 {
    match kind {
        OperationKind::Create | OperationKind::Start | OperationKind::Delete => 300_000,
        OperationKind::Stop { force: false } | OperationKind::Reboot => 120_000,
        OperationKind::Restart { .. } => 300_000,
        OperationKind::Stop { force: true } | OperationKind::Reset | OperationKind::Pause | OperationKind::Resume => {
            60_000
        }
    }
}

#[cfg(test)]
mod tests;
