//! Claiming, launching and letting loose.
//!
//! A claim is a transaction that compares the session, the placement, the status and the record: it stands only if
//! nobody has moved, deleted or switched off the VM, and nobody else has claimed it. Only what this process has
//! claimed itself, and has then seen in the view, is launched.

use plasmavmc_types::{AgentHealth, AttemptId, Exit, ObservedState, VmStatus, VmStatusFields};

use super::case::{Placed, fit};
use super::here::Observed;
use super::{AgentAction, Why, ends, mark};
use crate::change::Part;

/// How soon to look again for what others bring about: their changes wake us, and time alone may do.
const LOOK_AGAIN_MS: u64 = 1000;
/// With less of a lease left nothing leased is started: the next beat comes soon, or the freeze does.
const LEAST_LEASE_MS: u64 = 1000;
/// A lease comes back with a beat.
const LEASE_COMES_MS: u64 = 250;

/// A claim, or the word that nothing runs of a VM that is not wanted.
pub(super) fn write(placed: &Placed<'_>) -> Option<AgentAction> {
    let local = placed.case.local;
    // A claim sent before may not show yet; what is gone is cleared away first.
    let is_occupied = local.doing.is_some() || placed.case.machine().is_some() || local.left_alone.is_some();
    if is_occupied {
        return None;
    }
    let status = placed.status().map(|status| &status.value);
    if !placed.is_wanted_on() {
        return match status {
            None => claim(
                placed,
                Life {
                    state: ObservedState::Stopped,
                    ..Life::default()
                },
            ),
            Some(_) => None,
        };
    }
    if !placed.is_wanted_here() {
        return None;
    }
    let Some(status) = status else {
        return placed_start(placed, Life::default());
    };
    let after_crash = Life {
        crashes_at_ms: status.crashes_at_ms.clone(),
        last_exit: status.last_exit,
        ..Life::default()
    };
    let fresh = Life {
        last_exit: status.last_exit,
        ..Life::default()
    };
    match &status.state {
        ObservedState::Starting => match ends::may_start_at(placed, status) {
            Some(at_ms) if at_ms > placed.now_ms() => Some(retry(placed, at_ms)),
            Some(_) => after_pause(placed, status, after_crash),
            // Claimed by this process: it is to be launched. By one before it: nothing came of it.
            None if local.claimed == Some(status.attempt) => None,
            None => claim(placed, after_crash),
        },
        ObservedState::Stopped if placed.case.here.takes_starts || placed.new_start().is_some() => {
            placed_start(placed, fresh)
        }
        ObservedState::Failed { .. } if status.generation < placed.generation().get() => {
            if placed.case.here.takes_starts {
                placed_start(placed, fresh)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// What is to be done with the machine of a claim.
pub(super) fn act(placed: &Placed<'_>) -> Option<AgentAction> {
    let status = &placed.status()?.value;
    let lacks_lease = status.leased && placed.case.here.lease.left_ms <= LEAST_LEASE_MS;
    if let Some(machine) = placed.living() {
        let cont = AgentAction::Cont {
            vm: placed.case.id,
            attempt: machine.attempt,
        };
        let is_due = machine.observed == Observed::Prepared && placed.is_wanted_here();
        return is_due.then(|| if lacks_lease { look_again(placed) } else { cont });
    }
    let local = placed.case.local;
    let is_ready = status.state == ObservedState::Starting
        && status.process.is_none()
        && local.claimed == Some(status.attempt)
        && placed.case.machine().is_none()
        && local.left_alone.is_none()
        && local.doing.is_none()
        && placed.is_wanted_here()
        && !mark::has(status, mark::CRASHED)
        && !mark::has(status, mark::WAITING);
    is_ready.then(|| match lacks_lease {
        true => look_again(placed),
        false => AgentAction::Launch {
            vm: placed.case.id,
            incarnation: placed.placement.value.incarnation,
            attempt: status.attempt,
            generation: placed.generation(),
            leased: status.leased,
        },
    })
}

/// After a crash that was seen everything it waits for was there; after a host's own end it may not be.
fn after_pause(placed: &Placed<'_>, status: &VmStatus, life: Life) -> Option<AgentAction> {
    if status.last_exit == Some(Exit::Unseen) {
        placed_start(placed, life)
    } else {
        claim(placed, life)
    }
}

/// A start that waits for what has to be there first.
fn placed_start(placed: &Placed<'_>, life: Life) -> Option<AgentAction> {
    if placed.case.vm.waits_for.is_some() {
        return Some(retry(placed, placed.now_ms() + LOOK_AGAIN_MS));
    }
    claim(placed, life)
}

/// What a new attempt keeps of the ones before.
#[derive(Debug, Clone)]
struct Life {
    state: ObservedState,
    crashes_at_ms: Vec<u64>,
    last_exit: Option<Exit>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            state: ObservedState::Starting,
            crashes_at_ms: Vec::new(),
            last_exit: None,
        }
    }
}

fn claim(placed: &Placed<'_>, life: Life) -> Option<AgentAction> {
    let attempt: AttemptId = placed.case.local.new_attempt;
    let mut fields = VmStatusFields {
        incarnation: placed.placement.value.incarnation,
        leased: placed.case.vm.leasing.is_leased(),
        attempt,
        state: life.state,
        process: None,
        qemu: None,
        agent: AgentHealth::NotAsked,
        last_exit: life.last_exit,
        conditions: Vec::new(),
        crashes_at_ms: life.crashes_at_ms,
        generation: placed.generation().get(),
        since_ms: placed.now_ms(),
    };
    fit(&mut fields);
    let status = VmStatus::new(fields).ok()?;
    let change = placed
        .guarded()
        .expect(Part::VmRecord(placed.case.id), placed.record.revision);
    Some(placed.write(Why::Claim(attempt), placed.put_status(change, status)))
}

fn look_again(placed: &Placed<'_>) -> AgentAction {
    retry(placed, placed.now_ms() + LEASE_COMES_MS)
}

fn retry(placed: &Placed<'_>, at_ms: u64) -> AgentAction {
    AgentAction::Retry {
        vm: placed.case.id,
        at_ms,
    }
}
