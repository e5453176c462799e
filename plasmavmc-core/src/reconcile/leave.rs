//! Emptying a host that is about to be switched off or rebooted.
//!
//! ```text
//!   runs --its agent answers--> powers off --> gone --> stopped, and still wanted on
//!     |  silent: asked again                     ^
//!     +-- paused, or the time is over -- killed -+
//! ```
//! Where it starts next is the controller's business: elsewhere, or here when the host is back. An order that a client
//! gave, and that this host has taken, is carried out first.
//!
//! Must never: switch off what is wanted, as far as it is stored; leave anything running when the time is over.

use super::AgentAction;
use super::case::Placed;
use super::here::{Machine, Observed};

/// A guest that executes is asked to power off.
pub(super) fn act(placed: &Placed<'_>) -> Option<AgentAction> {
    let departure = placed.case.here.departs?;
    let machine = placed.living()?;
    let executes = matches!(
        machine.observed,
        Observed::Running | Observed::Stopping | Observed::Rebooting
    );
    (executes && !is_ordered(placed)).then_some(AgentAction::Leave {
        vm: placed.case.id,
        attempt: machine.attempt,
        until_ms: departure.until_ms,
    })
}

/// Whether nothing is left but to pull its plug.
pub(super) fn is_over(placed: &Placed<'_>, machine: &Machine) -> bool {
    let Some(departure) = placed.case.here.departs else {
        return false;
    };
    let cannot_power_off = matches!(machine.observed, Observed::Paused(_)) && !is_ordered(placed);
    cannot_power_off || placed.now_ms() >= departure.until_ms
}

fn is_ordered(placed: &Placed<'_>) -> bool {
    placed
        .operations()
        .any(|operation| operation.value.kind.is_order() && placed.is_taken_here(operation))
}
