//! Ending operations that nobody else will end: every one of them ends (I8).
//!
//! Whoever runs an operation ends it, and knows best how. What is left here is what was cancelled before it
//! began, what came true while its host could not write it down, and what is past its deadline.

use plasmavmc_types::{ObservedState, Operation, OperationKind, OperationState, PowerWanted, VmRecord, VmStatus};

use super::failover::may_be_reassigned;
use super::forget::end_with_vm;
use super::{ControlKind, Planning, starts};
use crate::change::Change;
use crate::code::Code;
use crate::view::{Stored, VmView};
use crate::visible::{HostState, host, seconds};

/// A host that is there ends what it runs by itself at the deadline; it knows more about it.
const GRACE_MS: u64 = 5000;

impl<'a> Planning<'a> {
    pub(super) fn finish_operations(&mut self) {
        let open: Vec<_> = self.open.values().flatten().copied().collect();
        for operation in open {
            if self.touched.contains(&operation.value.id) {
                continue;
            }
            if let Some((state, step)) = self.ending(operation) {
                let ended = operation.value.moved(state, step, self.now_ms);
                let change = Change::new().replace_operation(operation, ended);
                self.touched.insert(operation.value.id);
                self.act(ControlKind::FinishOperation, Some(operation.value.vm), change);
            }
        }
    }

    fn ending(&self, operation: &Stored<Operation>) -> Option<(OperationState, String)> {
        let vm = self.view.vms.get(&operation.value.vm);
        let Some((vm, record)) = vm.and_then(|vm| Some((vm, &vm.record.as_ref()?.value))) else {
            return Some(end_with_vm(operation));
        };
        let kind = operation.value.kind;
        if record.is_deleted() && kind != OperationKind::Delete {
            return Some(end_with_vm(operation));
        }
        if kind == OperationKind::Delete && may_be_reassigned(self.view, vm) {
            let step = "its host was fenced: nothing of it executes, and what is left is killed when that host returns";
            return Some((OperationState::Done, step.to_owned()));
        }
        // A tombstone cannot be taken back.
        let can_be_cancelled = operation.value.state == OperationState::Pending && kind != OperationKind::Delete;
        if operation.value.cancel_requested && can_be_cancelled {
            return Some((OperationState::Cancelled, "cancelled before it began".to_owned()));
        }
        if starts(kind)
            && let Some(ending) = self.ending_of_start(kind, vm, record)
        {
            return Some(ending);
        }
        self.is_late(&operation.value, vm)
            .then(|| self.late(&operation.value, vm))
    }

    fn ending_of_start(&self, kind: OperationKind, vm: &VmView, record: &VmRecord) -> Option<(OperationState, String)> {
        if record.power() == PowerWanted::Off {
            return Some(match kind {
                OperationKind::Create => (OperationState::Done, "created; it is switched off".to_owned()),
                _ => (OperationState::Cancelled, "the VM was switched off again".to_owned()),
            });
        }
        let placement = vm.placement.as_ref()?;
        let status = &vm.current_status()?.value;
        match &status.state {
            ObservedState::Failed { reason } if is_about(status, record) => {
                let error = Code::FailedPrecondition.error("VM_FAILED", reason);
                Some((OperationState::Failed(error), "the VM could not be started".to_owned()))
            }
            ObservedState::Running | ObservedState::Paused { .. } => {
                let is_true = host(self.view, self.heard, placement.value.host).state == HostState::Alive;
                is_true.then(|| (OperationState::Done, "it runs".to_owned()))
            }
            _ => None,
        }
    }

    fn is_late(&self, operation: &Operation, vm: &VmView) -> bool {
        let owner = vm.placement.as_ref().map(|placement| placement.value.host);
        let is_there = owner.is_some_and(|owner| host(self.view, self.heard, owner).state == HostState::Alive);
        let grace_ms = if operation.kind.is_order() && is_there {
            GRACE_MS
        } else {
            0
        };
        self.now_ms >= operation.deadline_ms.saturating_add(grace_ms)
    }

    fn late(&self, operation: &Operation, vm: &VmView) -> (OperationState, String) {
        let took = seconds(operation.deadline_ms.saturating_sub(operation.created_at_ms));
        let mut message = format!(
            "the {} of VM {} was not done within {took}",
            operation.kind, operation.vm_name
        );
        if !operation.step.is_empty() {
            message = format!("{message}: {}", operation.step);
        }
        let (reason, what_follows) = match operation.kind {
            kind if starts(kind) && vm.placement.is_none() => (
                "NO_HOST_FITS",
                "the VM stays wanted on and is placed as soon as a host fits; stop or delete it if that is not wanted",
            ),
            kind if starts(kind) => (
                "NOT_STARTED",
                "the VM stays wanted on; `explain` tells what it waits for",
            ),
            OperationKind::Delete => (
                "NOT_CONFIRMED",
                "the VM stays deleted and is taken out as soon as its host confirms that nothing of it runs",
            ),
            _ => (
                "HOST_DID_NOT_ANSWER",
                "look at the VM and its host; what was begun may still come to its end",
            ),
        };
        let error = Code::DeadlineExceeded.error(reason, format!("{message}; {what_follows}"));
        (OperationState::Failed(error), "its time is up".to_owned())
    }
}

/// Whether the host tried what is wanted now, and not what was wanted before.
pub(super) fn is_about(status: &VmStatus, record: &VmRecord) -> bool {
    status.generation >= record.generation().get()
}
