//! What a host does about its VMs, one step at a time.
//!
//! ```text
//!                          +---------------- crash: count it, pause ----------------+
//!                          v                                                        |
//!  placed here -> Claim -> Launch -> Cont -> Report running -> orders -> gone -> Report -> Clear
//!                                                                 |
//!  placed elsewhere, tombstone, higher claim -------------------> Kill (with the proof)
//! ```
//! Level-triggered: the whole situation goes in, the next step of each VM comes out, and the same situation
//! always gives the same step. What a step did is seen in the next situation.
//!
//! Must never: start a VM that is placed elsewhere, deleted, not claimed by this process or already here; have two
//! attempts under way; kill without proof or order; call a VM stopped while a process of it is left.

mod action;
mod case;
mod ends;
mod here;
mod kill;
mod mark;
mod orders;
mod report;
mod start;

pub use action::{AgentAction, Gate, HereWrite, KillWhy, Order, Ordered, Why};
pub use here::{
    Doing, Ended, Here, HereVm, LaunchFailure, LaunchFailureKind, Local, Machine, Observed, Outcome, OwnSession,
};
pub use mark::{CRASHED, LEFT_ALONE, MONITOR_SILENT, WAITING};

use case::Case;

/// The next step of every VM.
pub fn reconcile(here: &Here) -> Vec<AgentAction> {
    here.vms
        .iter()
        .filter_map(|(id, vm)| next_step(&Case::of(here, *id, vm)))
        .collect()
}

/// The next step of one VM: a kill before anything else, then what is to be written, then what is to be done.
fn next_step(case: &Case<'_>) -> Option<AgentAction> {
    if case.here.revision < case.local.seen_revision {
        return None;
    }
    if let Some(kill) = kill::needed(case) {
        return (case.local.doing != Some(Doing::Kill)).then_some(kill);
    }
    if case.local.is_writing {
        return None;
    }
    if let Some(claimed) = case.placed_here() {
        let write = report::write(&claimed)
            .or_else(|| orders::write(&claimed))
            .or_else(|| start::write(&claimed));
        if write.is_some() {
            return write;
        }
    }
    if case.local.doing.is_some() {
        return None;
    }
    if let Some(clear) = case.clear() {
        return Some(clear);
    }
    let placed = case.placed_here()?;
    start::act(&placed).or_else(|| orders::act(&placed))
}

#[cfg(test)]
mod tests;
