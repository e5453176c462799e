//! The order in which VMs start: what each waits for.
//!
//! Must never: hold up a VM that runs, or forget one because what it waits for is gone: that is said, and a person
//! decides.

use plasmavmc_types::{AgentHealth, AgentPolicy, Dependency, DependencyReached, ObservedState, VmId, VmRecord};

use crate::view::{ClusterView, VmView};
use crate::visible::seconds;

/// What VMs are sorted by when many have to start: higher priority first, then older first.
pub fn order(record: &VmRecord) -> (u8, u64, VmId) {
    (u8::MAX - record.spec().priority, record.created_at_ms(), record.id())
}

/// What has to be there before this VM starts and is not, for people; `None`: it may start.
pub fn waits_for(view: &ClusterView, vm: VmId, now_ms: u64) -> Option<String> {
    let record = &view.vms.get(&vm)?.record.as_ref()?.value;
    let missing: Vec<String> = record
        .spec()
        .depends_on
        .iter()
        .filter_map(|dependency| missing(view, record, *dependency, now_ms))
        .collect();
    (!missing.is_empty()).then(|| format!("waits for {}", missing.join(" and for ")))
}

/// What is not there yet of one dependency.
fn missing(view: &ClusterView, record: &VmRecord, dependency: Dependency, now_ms: u64) -> Option<String> {
    let name = view.vm_name(dependency.vm);
    let Some(needed) = view.vms.get(&dependency.vm).filter(|vm| vm.record.is_some()) else {
        return Some(format!("VM {name}, which does not exist"));
    };
    let Some(since_ms) = reached_since(needed, dependency.until) else {
        return Some(describe(&name, needed, dependency.until));
    };
    let delay_ms = u64::from(record.spec().start_delay_s) * 1000;
    let left_ms = since_ms.saturating_add(delay_ms).saturating_sub(now_ms);
    (left_ms > 0).then(|| {
        let delay = seconds(delay_ms);
        format!("{delay} to pass since VM {name} is there")
    })
}

/// Since when the dependency is there.
fn reached_since(needed: &VmView, until: DependencyReached) -> Option<u64> {
    let status = &needed.current_status()?.value;
    if status.state != ObservedState::Running {
        return None;
    }
    let has_agent = needed.record.as_ref()?.value.spec().agent != AgentPolicy::None;
    let is_ready = status.agent == AgentHealth::Responding;
    let is_there = until == DependencyReached::Running || !has_agent || is_ready;
    is_there.then_some(status.since_ms)
}

fn describe(name: &str, needed: &VmView, until: DependencyReached) -> String {
    let state = match needed.current_status() {
        Some(status) => status.value.state.vm_state().as_str(),
        None => "not placed",
    };
    match until {
        DependencyReached::Ready if state == "running" => format!("the agent of VM {name}, which has not answered"),
        _ => format!("VM {name}, which is {state}"),
    }
}

#[cfg(test)]
mod tests;
