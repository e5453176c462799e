//! Why a VM is as it is, in a sentence or two.

use plasmavmc_types::{OperationKind, PowerWanted, VmId, VmState};

use crate::boot;
use crate::protection::why_not;
use crate::view::{ClusterView, Heard};
use crate::visible;

/// Why the VM is as it is, and what it waits for.
pub fn summary(view: &ClusterView, heard: &Heard, vm: VmId, voters: usize, now_ms: u64) -> String {
    let shown = visible::vm(view, heard, vm);
    let Some(record) = view.vms.get(&vm).and_then(|vm| vm.record.as_ref()) else {
        return shown.reason;
    };
    let record = &record.value;
    let wanted = match (record.is_deleted(), record.power()) {
        (true, _) => "is to be deleted",
        (false, PowerWanted::On) => "is wanted on",
        (false, PowerWanted::Off) => "is wanted off",
    };
    let mut text = format!("VM {} {wanted} and is {}", record.spec().name, shown.state);
    if !shown.host_name.is_empty() {
        text.push_str(&format!(" on {}", shown.host_name));
    }
    if !shown.reason.is_empty() {
        text.push_str(&format!(": {}", shown.reason));
    }
    text.push('.');
    let waits = matches!(shown.state, VmState::Pending | VmState::Stopped | VmState::Starting);
    if waits
        && record.power() == PowerWanted::On
        && let Some(waits_for) = boot::waits_for(view, vm, now_ms)
        && !shown.reason.contains(&waits_for)
    {
        text.push_str(&format!(" It {waits_for}."));
    }
    if let Some(why) = why_not(view, vm, voters) {
        text.push_str(&format!(
            " It would wait for its host if that died, for it is not leased: {why}."
        ));
    }
    for operation in view.open_operations(vm) {
        let operation = &operation.value;
        let says = if operation.step.is_empty() || text.contains(&operation.step) {
            String::new()
        } else {
            format!(": {}", operation.step)
        };
        let word = match operation.kind {
            OperationKind::Stop { force: true } => "forced stop",
            kind => kind.word(),
        };
        text.push_str(&format!(" A {word} is under way{says}."));
    }
    text
}

#[cfg(test)]
mod tests;
