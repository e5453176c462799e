//! One VM on this host, with the words in which the rules are said.

use plasmavmc_types::{
    Generation, Operation, OperationKind, Placement, PowerWanted, VmId, VmRecord, VmState, VmStatus, VmStatusFields,
};

use super::here::{Here, HereVm, Local, Machine, Observed, OwnSession};
use super::{AgentAction, HereWrite, Why};
use crate::change::{Change, Part, Put};
use crate::reconcile::mark;
use crate::view::Stored;

/// The longest list of crashes that a status holds.
const MAX_CRASHES: usize = 101;

#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub here: &'a Here,
    pub id: VmId,
    pub vm: &'a HereVm,
    pub local: &'a Local,
}

/// A VM that is placed on this host, which may write about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub case: Case<'a>,
    pub record: &'a Stored<VmRecord>,
    pub placement: &'a Stored<Placement>,
    session: OwnSession,
}

impl<'a> Case<'a> {
    pub fn of(here: &'a Here, id: VmId, vm: &'a HereVm) -> Self {
        let local = &vm.local;
        Self { here, id, vm, local }
    }

    pub fn placed_here(&self) -> Option<Placed<'a>> {
        let placement = self.vm.stored.placement.as_ref()?;
        (placement.value.host == self.here.host).then_some(())?;
        Some(Placed {
            case: *self,
            record: self.vm.stored.record.as_ref()?,
            placement,
            session: self.here.session?,
        })
    }

    pub fn machine(&self) -> Option<&'a Machine> {
        self.local.machine.as_ref()
    }

    /// The machine, if its process lives.
    pub fn living(&self) -> Option<&'a Machine> {
        self.machine()
            .filter(|machine| !matches!(machine.observed, Observed::Gone(_)))
    }

    /// A machine that is gone goes out of mind once its end was written, or where that is nobody's business any
    /// more. Without the right to write it stays in mind.
    pub fn clear(&self) -> Option<AgentAction> {
        let machine = self.machine()?;
        let is_over = self.living().is_none();
        let is_ours = self
            .vm
            .stored
            .placement
            .as_ref()
            .is_some_and(|at| at.value.host == self.here.host);
        // Of a VM without a record nothing can be written.
        let is_told = match self
            .vm
            .stored
            .current_status()
            .filter(|_| self.vm.stored.record.is_some())
        {
            Some(status) if status.value.attempt == machine.attempt => end_is_written(&status.value),
            _ => true,
        };
        let clear = AgentAction::Clear {
            vm: self.id,
            attempt: machine.attempt,
        };
        (is_over && (is_told || !is_ours)).then_some(clear)
    }
}

/// Whether the status tells how its attempt ended.
pub(super) fn end_is_written(status: &VmStatus) -> bool {
    use plasmavmc_types::ObservedState as State;
    match status.state {
        State::Stopped | State::Failed { .. } => true,
        State::Starting => mark::has(status, mark::CRASHED) || mark::has(status, mark::WAITING),
        _ => false,
    }
}

impl<'a> Placed<'a> {
    /// The status, if it belongs to this placement.
    pub fn status(&self) -> Option<&'a Stored<VmStatus>> {
        self.case.vm.stored.current_status()
    }

    /// The machine of the attempt that is claimed.
    pub fn machine(&self) -> Option<&'a Machine> {
        let status = self.status()?;
        self.case
            .machine()
            .filter(|machine| machine.attempt == status.value.attempt)
    }

    /// The machine of the attempt that is claimed, if its process lives.
    pub fn living(&self) -> Option<&'a Machine> {
        self.machine().and_then(|_| self.case.living())
    }

    pub fn is_wanted_on(&self) -> bool {
        let record = &self.record.value;
        !record.is_deleted() && record.power() == PowerWanted::On
    }

    /// Whether it is to run on this host now: not while that is about to be switched off.
    pub fn is_wanted_here(&self) -> bool {
        self.is_wanted_on() && self.case.here.departs.is_none()
    }

    pub fn generation(&self) -> Generation {
        self.record.value.generation()
    }

    pub fn now_ms(&self) -> u64 {
        self.case.here.now_ms
    }

    pub fn session(&self) -> OwnSession {
        self.session
    }

    pub fn operations(&self) -> impl Iterator<Item = &'a Stored<Operation>> + use<'a> {
        self.case.vm.operations.iter()
    }

    /// A restart or reboot that a server on this host has taken on.
    pub fn new_start(&self) -> Option<&'a Stored<Operation>> {
        self.operations().find(|operation| {
            let kind = operation.value.kind;
            let starts_anew = matches!(kind, OperationKind::Restart { .. } | OperationKind::Reboot);
            starts_anew && self.is_taken_here(operation)
        })
    }

    pub fn is_taken_here(&self, operation: &Stored<Operation>) -> bool {
        let runner = operation.value.runner.map(|(host, _)| host);
        runner == Some(self.case.here.host)
    }

    /// The state it is in by what this host sees.
    pub fn own_state(&self) -> VmState {
        match (self.living(), self.status()) {
            (Some(machine), status) => match machine.observed {
                Observed::Prepared => VmState::Starting,
                Observed::Running | Observed::Rebooting => VmState::Running,
                Observed::Paused(_) => VmState::Paused,
                Observed::Frozen => VmState::Frozen,
                Observed::Stopping | Observed::PoweredOff | Observed::Ending => VmState::Stopping,
                Observed::Unreachable => status.map_or(VmState::Running, |status| status.value.state.vm_state()),
                Observed::Gone(_) => VmState::Stopped,
            },
            (None, Some(status)) => status.value.state.vm_state(),
            (None, None) => VmState::Pending,
        }
    }

    /// A transaction that holds only while this host may write about this VM, and nothing of it has changed.
    pub fn guarded(&self) -> Change {
        let id = self.case.id;
        Change::new()
            .expect(Part::Session(self.case.here.host), self.session.revision)
            .expect(Part::Placement(id), self.placement.revision)
            .expect_seen(Part::Status(id), self.case.vm.stored.status.as_ref())
    }

    /// As [`Self::guarded`], with another power wanted if that is a change.
    pub fn with_power(&self, change: Change, power: PowerWanted) -> Change {
        let record = &self.record.value;
        if record.power() == power || record.is_deleted() {
            return change;
        }
        match record.with_power(power) {
            Ok(next) => change
                .expect(Part::VmRecord(self.case.id), self.record.revision)
                .put(Put::VmRecord(Box::new(next))),
            // Only at the end of all generations.
            Err(_) => change,
        }
    }

    pub fn write(&self, why: Why, change: Change) -> AgentAction {
        AgentAction::Write(Box::new(HereWrite {
            vm: self.case.id,
            why,
            change,
        }))
    }

    pub fn put_status(&self, change: Change, status: VmStatus) -> Change {
        change.put(Put::Status(self.case.id, status))
    }

    /// The current status with a change, made to fit what a status may hold.
    pub fn edited(&self, edit: impl FnOnce(&mut VmStatusFields)) -> Option<VmStatus> {
        let current = &self.status()?.value;
        let now_ms = self.now_ms();
        let edited = current.edit(|fields| {
            edit(fields);
            if fields.state.vm_state() != current.state.vm_state() {
                fields.since_ms = now_ms;
            }
            fit(fields);
        });
        edited.ok()
    }
}

/// Drops what is too much, oldest first.
pub(super) fn fit(fields: &mut VmStatusFields) {
    let too_many = fields.crashes_at_ms.len().saturating_sub(MAX_CRASHES);
    fields.crashes_at_ms.drain(..too_many);
    let mut conditions = std::mem::take(&mut fields.conditions);
    conditions.truncate(32);
    for condition in conditions {
        mark::set(&mut fields.conditions, condition.name.as_str(), condition.text);
    }
}
