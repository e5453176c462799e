//! What a host does about its VMs, one step at a time.
//!
//! ```text
//!                          +---------------- crash: count it, pause ----------------+
//!                          v                                                        |
//!  placed here -> Claim -> Launch -> Cont -> Report running -> orders -> gone -> Report -> Clear
//!                                                                 |
//!  placed elsewhere, tombstone, higher claim -------------------> Kill (with the proof)
//!
//!  host about to be switched off: Leave -> gone -> Report stopped, still wanted on; what stays too long -> Kill
//!
//!  leased: lease nearly over -> Freeze ... contact again, and nobody else has it -> Thaw
//! ```
//! Level-triggered: the whole situation goes in, the next step of each VM comes out, and the same situation
//! always gives the same step. What a step did is seen in the next situation.
//!
//! Must never: start a VM that is placed elsewhere, deleted, not claimed by this process or already here; have two
//! attempts under way; kill without proof or order; call a VM stopped while a process of it is left; let a leased VM
//! execute without a lease.

mod action;
mod case;
mod ends;
mod freeze;
mod here;
mod kill;
mod leave;
mod mark;
mod orders;
mod report;
mod start;

pub use action::{AgentAction, Gate, HereWrite, KillWhy, Order, Ordered, Why};
pub use freeze::FREEZE_EARLY_MS;
pub use here::{
    Doing, Ended, Here, HereVm, Holding, LaunchFailure, LaunchFailureKind, Local, Machine, Observed, Outcome, OwnLease,
    OwnSession,
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

/// The next step of one VM: a freeze, whatever else there is; a kill; then what is to be written, then what is to be
/// done.
fn next_step(case: &Case<'_>) -> Option<AgentAction> {
    // However old the view is: the time passes all the same.
    if let Some(freeze) = freeze::freeze(case) {
        return Some(freeze);
    }
    if case.here.revision < case.local.seen_revision {
        return None;
    }
    if let Some(kill) = kill::needed(case) {
        return (case.local.doing != Some(Doing::Kill)).then_some(kill);
    }
    if let Some(thaw) = case.placed_here().and_then(|placed| freeze::thaw(&placed)) {
        return Some(thaw);
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
    start::act(&placed)
        .or_else(|| orders::act(&placed))
        .or_else(|| leave::act(&placed))
}

#[cfg(test)]
mod tests;
