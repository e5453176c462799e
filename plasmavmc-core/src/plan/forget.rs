//! Taking out what was deleted, once nothing of it can run.

use plasmavmc_types::{Operation, OperationKind, OperationState, VmId};

use super::{ControlKind, Planning};
use crate::change::{Change, OPERATIONS_AT_ONCE, Part};
use crate::code::Code;
use crate::view::{Stored, VmView};
use crate::visible::{has_lost_host, runs_nowhere};

impl<'a> Planning<'a> {
    pub(super) fn forget_deleted(&mut self) {
        let is_over = |vm: &VmView| {
            let is_deleted = vm.record.as_ref().is_some_and(|record| record.value.is_deleted());
            is_deleted && (can_be_forgotten(vm) || has_lost_host(self.view, vm))
        };
        let over: Vec<_> = self.view.vms.iter().filter(|(_, vm)| is_over(vm)).collect();
        for (id, vm) in over {
            self.forget(*id, vm);
        }
    }

    fn forget(&mut self, id: VmId, vm: &'a VmView) {
        let Some(record) = &vm.record else { return };
        let name = &record.value.spec().name;
        let mut change = Change::new()
            .expect(Part::VmRecord(id), record.revision)
            .expect_seen(Part::Placement(id), vm.placement.as_ref())
            .expect_seen(Part::Status(id), vm.status.as_ref())
            .remove(Part::VmRecord(id));
        if let Some(placement) = &vm.placement {
            change = change.remove(Part::Placement(id));
            if has_lost_host(self.view, vm) {
                change = change.expect(Part::HostRecord(placement.value.host), 0);
            }
        }
        if vm.status.is_some() {
            change = change.remove(Part::Status(id));
        }
        if self.view.names.get(name) == Some(&id) {
            change = change.remove(Part::Name(name.clone()));
        }
        if self.view.numbers.get(&record.value.number()) == Some(&id) {
            change = change.remove(Part::Number(record.value.number()));
        }
        let open = self.open.get(&id).cloned().unwrap_or_default();
        for operation in open.into_iter().take(OPERATIONS_AT_ONCE) {
            let (state, step) = end_with_vm(operation);
            change = change.replace_operation(operation, operation.value.moved(state, step, self.now_ms));
            self.touched.insert(operation.value.id);
        }
        let text = format!("VM {name} was deleted, and nothing of it runs: it is taken out");
        let mut decision = self.decision(ControlKind::Forget, id, None, text);
        decision.evidence = self.facts_of_vm(vm);
        self.act(ControlKind::Forget, Some(id), change.because(decision));
    }
}

/// Whether nothing of it runs, nor can be started: a claim would find the placement gone.
fn can_be_forgotten(vm: &VmView) -> bool {
    vm.placement.is_none() || vm.current_status().is_none() || runs_nowhere(vm)
}

/// How an operation ends whose VM is no more.
pub(super) fn end_with_vm(operation: &Stored<Operation>) -> (OperationState, String) {
    match operation.value.kind {
        OperationKind::Delete => (OperationState::Done, "nothing is left of it".to_owned()),
        _ => {
            let error = Code::Aborted.error("VM_DELETED", "the VM was deleted meanwhile");
            (OperationState::Failed(error), "the VM was deleted".to_owned())
        }
    }
}
