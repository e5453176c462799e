//! When a machine is killed: on proof that its VM is no longer its own, on a tombstone, on order, or because its host is
//! about to be switched off and it could not power off in time.

use plasmavmc_types::{OperationKind, PowerWanted};

use super::case::{Case, Placed};
use super::here::{Machine, Observed};
use super::{AgentAction, KillWhy, leave, mark};

pub(super) fn needed(case: &Case<'_>) -> Option<AgentAction> {
    let machine = case.living()?;
    let kill = |why| AgentAction::Kill {
        vm: case.id,
        attempt: machine.attempt,
        why,
    };
    if let Some(proof) = superseded(case, machine) {
        return Some(kill(KillWhy::Superseded { proof }));
    }
    let is_deleted = |case: &Case<'_>| {
        case.vm
            .stored
            .record
            .as_ref()
            .is_some_and(|record| record.value.is_deleted())
    };
    if is_deleted(case) {
        return Some(kill(KillWhy::Deleted));
    }
    let placed = case.placed_here()?;
    ordered(&placed, machine).map(kill)
}

/// Whether a newer claim or placement stands against this machine. Attempts are claimed before they are launched, so
/// a status that names another one is newer; and a VM is placed elsewhere only after it was here. What is missing
/// proves nothing.
fn superseded(case: &Case<'_>, machine: &Machine) -> Option<String> {
    case.vm.stored.record.as_ref()?;
    let placement = case.vm.stored.placement.as_ref()?;
    let status = case.vm.stored.status.as_ref()?;
    let (incarnation, revision) = (placement.value.incarnation, placement.revision);
    if placement.value.host != case.here.host {
        let host = placement.value.host;
        return Some(format!(
            "placed on host {host} as incarnation {incarnation} (revision {revision})"
        ));
    }
    if status.value.incarnation < incarnation {
        return Some(format!(
            "placed anew as incarnation {incarnation} (revision {revision})"
        ));
    }
    let claimed = status.value.attempt;
    (claimed != machine.attempt).then(|| format!("claimed for attempt {claimed} (revision {})", status.revision))
}

fn ordered(placed: &Placed<'_>, machine: &Machine) -> Option<KillWhy> {
    let status = placed.status()?;
    let pulls_plug = |kind| match kind {
        OperationKind::Stop { force: true } => placed.record.value.power() == PowerWanted::Off,
        OperationKind::Restart { force: true } => mark::has(&status.value, mark::RESTARTING),
        _ => false,
    };
    let mut taken = placed.operations().filter(|operation| placed.is_taken_here(operation));
    if let Some(order) = taken.find(|operation| pulls_plug(operation.value.kind)) {
        return Some(KillWhy::Ordered(order.value.id));
    }
    let is_fresh = machine.observed == Observed::Prepared && placed.case.local.doing.is_none();
    if is_fresh && !placed.is_wanted_here() {
        return Some(KillWhy::NotWanted);
    }
    leave::is_over(placed, machine).then_some(KillWhy::HostDeparts)
}
