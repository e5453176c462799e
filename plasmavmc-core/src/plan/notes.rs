//! Saying why something waits: in the operation that waits with it, and among the decisions.
//!
//! The reasons have numbers in them, which change with everything that happens on the hosts. A note is therefore
//! renewed only now and then.

use plasmavmc_types::{Operation, VmId};

use super::{ControlKind, Planning, WAIT};
use crate::change::{Change, Part};
use crate::view::{Stored, VmView};

/// Between two notes in one operation.
const STEP_EVERY_MS: u64 = 1000;
/// Between two decisions with different numbers.
const DECISION_EVERY_MS: u64 = 60_000;

impl Planning<'_> {
    pub(super) fn note_waiting(&mut self, id: VmId, vm: &VmView, text: String, facts: Vec<String>) {
        let newest = self.newest.get(&id).filter(|decision| decision.kind == WAIT);
        let decides = newest.is_none_or(|decision| {
            decision.text != text && self.now_ms.saturating_sub(decision.at_ms) >= DECISION_EVERY_MS
        });
        let is_first = newest.is_none();
        let is_due = |operation: &&Stored<Operation>| {
            let operation = &operation.value;
            let rests = self.now_ms.saturating_sub(operation.updated_at_ms) < STEP_EVERY_MS;
            operation.step != text && (is_first || operation.step.is_empty() || !rests)
        };
        let due: Vec<_> = self.starts_of(id).into_iter().filter(is_due).collect();
        if due.is_empty() && !decides {
            return;
        }
        let mut change = Change::new()
            .expect_seen(Part::VmRecord(id), vm.record.as_ref())
            .expect_seen(Part::Placement(id), vm.placement.as_ref());
        for operation in due {
            let state = operation.value.state.clone();
            let noted = operation.value.moved(state, text.as_str(), self.now_ms);
            change = change.replace_operation(operation, noted);
            self.touched.insert(operation.value.id);
        }
        if decides {
            let mut decision = self.decision(ControlKind::NoteWaiting, id, None, text);
            decision.evidence = self.facts_of_vm(vm);
            decision.evidence.extend(facts);
            change = change.because(decision);
        }
        self.act(ControlKind::NoteWaiting, Some(id), change);
    }
}
