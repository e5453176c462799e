//! Holding leased guests still when the lease ends, and letting them go on (items 9 and 10 of the design).
//!
//! ```text
//!   executing --lease nearly over--> freezing --> frozen --lease, and still ours--> thawing --> executing
//!                                                    |
//!                                                    +-- proof that it is not ours --> killed
//! ```
//! The freeze is a courtesy to the guest, whose clocks stop with it; that nothing executes past the deadline is the
//! guard's doing, whatever happens here.
//!
//! Must never: thaw on what this host remembers; thaw what was deleted, or what it knows nothing of (a record that is
//! missing proves nothing: it stays frozen, and is reported).

use super::AgentAction;
use super::case::{Case, Placed};
use super::here::Observed;

/// So long before the deadline are guests asked to hold still: QEMU needs a moment.
pub const FREEZE_EARLY_MS: u64 = 300;
/// A thaw takes a read and a signal: with less of a lease left it would be over before it began.
const LEAST_LEASE_MS: u64 = 1000;

pub(super) fn freeze(case: &Case<'_>) -> Option<AgentAction> {
    let machine = case.living().filter(|machine| machine.leased)?;
    let executes = matches!(
        machine.observed,
        Observed::Running | Observed::Stopping | Observed::Rebooting
    );
    let is_due = case.here.lease.left_ms <= FREEZE_EARLY_MS;
    (executes && is_due && case.local.holding.is_none()).then_some(AgentAction::Freeze {
        vm: case.id,
        attempt: machine.attempt,
    })
}

pub(super) fn thaw(placed: &Placed<'_>) -> Option<AgentAction> {
    let machine = placed.machine()?;
    let is_due = machine.observed == Observed::Frozen
        && placed.case.here.lease.left_ms > LEAST_LEASE_MS
        && placed.case.local.holding.is_none()
        && !placed.record.value.is_deleted();
    is_due.then(|| AgentAction::Thaw {
        vm: placed.case.id,
        attempt: machine.attempt,
        incarnation: placed.placement.value.incarnation,
        epoch: placed.session().epoch,
    })
}
