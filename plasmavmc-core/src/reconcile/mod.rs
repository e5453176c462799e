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
mod here;

pub use action::{AgentAction, Gate, HereWrite, KillWhy, Order, Ordered, Why};
pub use here::{
    Doing, Ended, Here, HereVm, LaunchFailure, LaunchFailureKind, Local, Machine, Observed, Outcome, OwnSession,
};

/// The next step of every VM.
pub fn reconcile(here: &Here) -> Vec<AgentAction> {
    let _ = here;
    Vec::new()
}
