//! Letting go of operations that ended long ago. Requests and decisions, which a view does not show all of, are let
//! go by whoever runs the plan.

use plasmavmc_types::OperationId;

use super::{ControlKind, Planning};
use crate::change::{Change, Part};

const KEEP_OPERATIONS_MS: u64 = 24 * 3600 * 1000;
const KEEP_OPERATIONS: usize = 1000;
/// So many more before anything is done, so that not every new one costs a transaction of its own.
const SLACK: usize = 50;
/// Keys of one transaction.
const BATCH: usize = 100;

impl Planning<'_> {
    pub(super) fn collect_garbage(&mut self) {
        let parts = self.old_operations();
        for batch in parts.chunks(BATCH) {
            let change = batch.iter().fold(Change::new(), |change, (part, revision)| {
                change.expect(part.clone(), *revision).remove(part.clone())
            });
            self.act(ControlKind::CollectGarbage, None, change);
        }
    }

    fn old_operations(&self) -> Vec<(Part, u64)> {
        let mut ended: Vec<(u64, OperationId, u64)> = self
            .view
            .operations
            .values()
            .filter(|operation| operation.value.is_ended())
            .map(|operation| (operation.value.updated_at_ms, operation.value.id, operation.revision))
            .collect();
        ended.sort_unstable();
        let beyond = beyond(ended.len(), KEEP_OPERATIONS);
        let is_old = |at_ms: u64| at_ms.saturating_add(KEEP_OPERATIONS_MS) < self.now_ms;
        let old = ended.into_iter().enumerate();
        old.filter(|(index, (at_ms, ..))| *index < beyond || is_old(*at_ms))
            .map(|(_, (_, id, revision))| (Part::Operation(id), revision))
            .collect()
    }
}

/// How many of the oldest go.
fn beyond(have: usize, keep: usize) -> usize {
    if have > keep + SLACK { have - keep } else { 0 }
}
