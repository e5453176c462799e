//! What changed, in words: one event for a change that a person or a program wants to hear of.

use plasmavmc_types::{
    Decision, HostId, HostRecord, Leaving, ObservedState, Operation, OperationId, OperationState, Placement,
    PowerWanted, Session, VmId, VmRecord, VmStatus,
};

use crate::view::ClusterView;

/// A change of one key; `None`: it was not there, or is no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed<'a> {
    VmRecord(VmId, Option<&'a VmRecord>, Option<&'a VmRecord>),
    Placement(VmId, Option<&'a Placement>, Option<&'a Placement>),
    Status(VmId, Option<&'a VmStatus>, Option<&'a VmStatus>),
    HostRecord(HostId, Option<&'a HostRecord>, Option<&'a HostRecord>),
    Session(HostId, Option<&'a Session>, Option<&'a Session>),
    Operation(OperationId, Option<&'a Operation>, Option<&'a Operation>),
    Decision(Option<&'a Decision>),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// For programs: `vm.state`.
    pub kind: &'static str,
    /// For people.
    pub text: String,
    pub vm: Option<VmId>,
    pub host: Option<HostId>,
    pub operation: Option<OperationId>,
}

impl Event {
    fn new(kind: &'static str, text: String) -> Self {
        Self {
            kind,
            text,
            vm: None,
            host: None,
            operation: None,
        }
    }

    fn of_vm(self, vm: VmId) -> Self {
        Self { vm: Some(vm), ..self }
    }

    fn at(self, host: HostId) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }
}

/// The event of a change, if it is worth one. The view is for names.
pub fn of(view: &ClusterView, changed: Changed<'_>) -> Option<Event> {
    match changed {
        Changed::VmRecord(vm, before, after) => of_record(vm, before, after),
        Changed::Placement(vm, before, after) => of_placement(view, vm, before, after),
        Changed::Status(vm, before, after) => of_status(view, vm, before, after?),
        Changed::HostRecord(host, before, after) => of_host(host, before, after),
        Changed::Session(host, before, after) => of_session(view, host, before, after?),
        Changed::Operation(id, before, after) => of_operation(id, before, after?),
        // What is decided shows in what it writes; only waiting does not.
        Changed::Decision(after) => of_decision(view, after?),
    }
}

fn of_record(vm: VmId, before: Option<&VmRecord>, after: Option<&VmRecord>) -> Option<Event> {
    let name = &after.or(before)?.spec().name;
    let event = match (before, after) {
        (None, Some(record)) => {
            let spec = record.spec();
            let text = format!("VM {name} was created: {} vcpus, {} MB", spec.vcpus, spec.memory_mb);
            Event::new("vm.created", text)
        }
        (_, None) => Event::new("vm.removed", format!("VM {name} is no more")),
        (Some(before), Some(after)) if after.is_deleted() != before.is_deleted() => {
            Event::new("vm.deleted", format!("VM {name} is to be deleted"))
        }
        (Some(before), Some(after)) if after.power() != before.power() => {
            let power = match after.power() {
                PowerWanted::On => "on",
                PowerWanted::Off => "off",
            };
            Event::new("vm.power", format!("VM {name} is wanted {power}"))
        }
        (Some(before), Some(after)) if after.spec() != before.spec() => {
            let text = format!("VM {name} was changed: generation {}", after.generation());
            Event::new("vm.updated", text)
        }
        _ => return None,
    };
    Some(event.of_vm(vm))
}

fn of_placement(view: &ClusterView, vm: VmId, before: Option<&Placement>, after: Option<&Placement>) -> Option<Event> {
    let placement = after?;
    let (name, host) = (view.vm_name(vm), view.host_name(placement.host));
    let event = match before {
        None => Event::new("vm.placed", format!("VM {name} was placed on {host}")),
        Some(before) => {
            let text = format!("VM {name} was moved from {} to {host}", view.host_name(before.host));
            Event::new("vm.moved", text)
        }
    };
    Some(event.of_vm(vm).at(placement.host))
}

fn of_status(view: &ClusterView, vm: VmId, before: Option<&VmStatus>, after: &VmStatus) -> Option<Event> {
    let name = view.vm_name(vm);
    let crashes = |status: Option<&VmStatus>| status.and_then(|status| status.crashes_at_ms.last().copied());
    let has_crashed = before.is_some() && crashes(before) < crashes(Some(after));
    let is_same = before.is_some_and(|before| before.state == after.state);
    let event = if has_crashed {
        let texts: Vec<&str> = after
            .conditions
            .iter()
            .map(|condition| condition.text.as_str())
            .collect();
        Event::new("vm.crashed", format!("VM {name} died by itself: {}", texts.join("; ")))
    } else if is_same {
        return agent_event(&name, before, after).map(|event| event.of_vm(vm));
    } else {
        let state = after.state.vm_state();
        let text = match &after.state {
            ObservedState::Failed { reason } => format!("VM {name} is {state}: {reason}"),
            ObservedState::Paused { cause } => format!("VM {name} is {state}: {}", cause.as_str()),
            _ => format!("VM {name} is {state}"),
        };
        Event::new("vm.state", text)
    };
    let event = event.of_vm(vm);
    let placement = view.vms.get(&vm).and_then(|vm| vm.placement.as_ref());
    let is_current = placement.filter(|placement| placement.value.incarnation == after.incarnation);
    Some(match is_current {
        Some(placement) => event.at(placement.value.host),
        None => event,
    })
}

fn agent_event(name: &str, before: Option<&VmStatus>, after: &VmStatus) -> Option<Event> {
    use plasmavmc_types::AgentHealth as Health;
    let text = match (before?.agent, after.agent) {
        (before, after) if before == after => return None,
        (_, Health::Responding) => format!("the agent of VM {name} answers"),
        (_, Health::NotResponding) => format!("the agent of VM {name} does not answer"),
        _ => return None,
    };
    Some(Event::new("vm.agent", text))
}

fn of_host(host: HostId, before: Option<&HostRecord>, after: Option<&HostRecord>) -> Option<Event> {
    let name = after.or(before)?.name();
    let event = match (before, after) {
        (None, Some(_)) => Event::new("host.joined", format!("host {name} joined the cluster")),
        (_, None) => Event::new("host.removed", format!("host {name} was removed from the cluster")),
        (Some(before), Some(after)) if before.mode() != after.mode() => {
            let mode = format!("{:?}", after.mode()).to_lowercase();
            Event::new("host.mode", format!("host {name} is {mode} from now on"))
        }
        (Some(before), Some(after)) if before.departure() != after.departure() => {
            let text = match after.departure().map(|departure| departure.leaving) {
                Some(Leaving::Move) => format!("host {name} is being shut down; its VMs go elsewhere where they can"),
                Some(Leaving::Stay) => format!("host {name} is being shut down; its VMs wait for it"),
                None => format!("host {name} is not shut down after all"),
            };
            Event::new("host.shutdown", text)
        }
        _ => return None,
    };
    Some(event.at(host))
}

fn of_session(view: &ClusterView, host: HostId, before: Option<&Session>, after: &Session) -> Option<Event> {
    let name = view.host_name(host);
    let text = if !after.is_open() {
        format!("host {name} was fenced: session {} is over", after.epoch)
    } else if before.is_some_and(|before| before.epoch == after.epoch && before.is_open()) {
        return None;
    } else {
        format!("host {name} reported for duty: session {}", after.epoch)
    };
    Some(Event::new("host.session", text).at(host))
}

fn of_operation(id: OperationId, before: Option<&Operation>, after: &Operation) -> Option<Event> {
    let what = format!("{} of VM {}", after.kind, after.vm_name);
    let (kind, text) = match (&after.state, before.map(|before| &before.state)) {
        (state, Some(before)) if state == before => return None,
        (OperationState::Pending, _) => ("operation.begun", format!("{what} was asked for")),
        (OperationState::Running, _) => ("operation.running", format!("{what}: {}", after.step)),
        (OperationState::Done, _) => ("operation.ended", format!("{what} is done")),
        (OperationState::Failed(error), _) => ("operation.ended", format!("{what} failed: {error}")),
        (OperationState::Cancelled, _) => ("operation.ended", format!("{what} was cancelled")),
    };
    let mut event = Event::new(kind, text).of_vm(after.vm);
    event.operation = Some(id);
    event.host = after.runner.map(|(host, _)| host);
    Some(event)
}

fn of_decision(view: &ClusterView, decision: &Decision) -> Option<Event> {
    if decision.kind != crate::plan::WAIT {
        return None;
    }
    let vm = decision.vm?;
    let text = format!("VM {} waits: {}", view.vm_name(vm), decision.text);
    Some(Event::new("vm.waits", text).of_vm(vm))
}

#[cfg(test)]
mod tests;
