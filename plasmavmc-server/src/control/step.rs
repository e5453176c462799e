//! Carrying out what was planned: the same function in the daemon and in the simulator.

use chainfire::kv::Kv;
use futures::{StreamExt, stream};
use plasmavmc_core::plan::ControlAction;

use crate::failpoint;
use crate::store::{Write, WriteError};

/// Transactions on their way at once: enough that many creations share the store's syncs.
const AT_ONCE: usize = 32;

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepReport {
    pub done: usize,
    /// Decided on something that has changed since: to be decided anew.
    pub raced: usize,
    /// Not carried out, or perhaps carried out: the store could not say.
    pub failed: usize,
    /// Decisions that were written.
    pub decisions: usize,
    /// The highest revision that was committed; 0: none.
    pub revision: u64,
}

/// Carries out each action as one transaction, some at a time. They do not touch each other. `salt` draws what
/// keeps apart decisions of one millisecond.
pub async fn step(kv: &dyn Kv, planned: Vec<ControlAction>, salt: &mut (dyn FnMut() -> u16 + Send)) -> StepReport {
    let writes: Vec<(ControlAction, Write)> = planned
        .into_iter()
        .map(|action| {
            let write = Write::of(&action.change, salt());
            (action, write)
        })
        .collect();
    let commits = writes.into_iter().map(|(action, write)| async move {
        let committed = write.commit(kv);
        let outcome = match failpoint::of_control(action.kind) {
            Some(step) => step.around(committed).await,
            None => committed.await,
        };
        (action, outcome)
    });
    let mut commits = stream::iter(commits).buffer_unordered(AT_ONCE);
    let mut report = StepReport::default();
    while let Some((action, outcome)) = commits.next().await {
        match outcome {
            Ok(committed) => {
                report.done += 1;
                report.decisions += usize::from(action.change.decision.is_some());
                report.revision = report.revision.max(committed.revision);
                note(&action);
            }
            Err(WriteError::Raced) => report.raced += 1,
            Err(error) => {
                report.failed += 1;
                tracing::warn!(%error, kind = action.kind.word(), vm = ?action.vm, "an action was not carried out");
            }
        }
    }
    report
}

fn note(action: &ControlAction) {
    if let Some(decision) = &action.change.decision {
        tracing::info!(kind = decision.kind, vm = ?decision.vm, host = ?decision.host, "{}", decision.text);
    }
}
