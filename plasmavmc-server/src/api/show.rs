//! What clients see of VMs, hosts, operations and decisions.

use std::collections::BTreeMap;

use plasmavmc_core::liveness::FENCE;
use plasmavmc_core::view::{ClusterView, Heard, HostView, Stored, VmView};
use plasmavmc_core::visible::{self, HostState};
use plasmavmc_proto::api;
use plasmavmc_types::{
    AgentHealth, Decision, Exit, HostId, HostMode, Operation, OperationId, OperationState, PowerWanted, VmId, VmRecord,
    VmState, VmStatus,
};

/// A view prepared for showing many VMs of it.
pub struct Showing<'a> {
    view: &'a ClusterView,
    heard: &'a Heard,
    /// The latest operation of each VM: what is under way, else what was done last.
    operations: BTreeMap<VmId, &'a Operation>,
}

impl<'a> Showing<'a> {
    pub fn new(view: &'a ClusterView, heard: &'a Heard) -> Self {
        let mut operations: BTreeMap<VmId, &Operation> = BTreeMap::new();
        for operation in view.operations.values().map(|stored| &stored.value) {
            let rank = |operation: &Operation| (!operation.is_ended(), operation.created_at_ms, operation.id);
            let latest = operations.entry(operation.vm).or_insert(operation);
            if rank(operation) > rank(latest) {
                *latest = operation;
            }
        }
        Self {
            view,
            heard,
            operations,
        }
    }

    /// The VM, if there is one.
    pub fn vm(&self, id: VmId) -> Option<api::Vm> {
        let record = self.view.vms.get(&id)?.record.as_ref()?;
        Some(self.vm_as(&record.value))
    }

    /// The VM with this record, whatever became of it since: what a caller wrote is what he is shown.
    pub fn vm_as(&self, record: &VmRecord) -> api::Vm {
        let id = record.id();
        let vm = self.view.vms.get(&id);
        let shown = visible::vm(self.view, self.heard, id);
        let placement = vm.and_then(|vm| vm.placement.as_ref()).map(|placement| placement.value);
        let status = vm.and_then(VmView::current_status).map(|status| &status.value);
        let operation = self.operations.get(&id).map(|operation| operation.id.to_string());
        api::Vm {
            state: vm_state(shown.state).into(),
            host: shown.host_name,
            reason: shown.reason,
            incarnation: placement.map_or(0, |placement| placement.incarnation.get()),
            agent: agent_word(shown.agent).to_owned(),
            last_heard_ms: shown.last_heard_ms.unwrap_or(0),
            operation: operation.unwrap_or_default(),
            ..with_status(with_record(record), status)
        }
    }
}

fn with_record(record: &VmRecord) -> api::Vm {
    api::Vm {
        id: record.id().to_string(),
        name: record.spec().name.to_string(),
        vmid: record.number().get(),
        power_on: record.power() == PowerWanted::On,
        spec: Some(record.spec().into()),
        generation: record.generation().get(),
        deleting: record.is_deleted(),
        created_at_ms: record.created_at_ms(),
        ..api::Vm::default()
    }
}

fn with_status(vm: api::Vm, status: Option<&VmStatus>) -> api::Vm {
    let Some(status) = status else {
        return vm;
    };
    let conditions = status.conditions.iter().map(|condition| api::Condition {
        name: condition.name.to_string(),
        text: condition.text.clone(),
    });
    api::Vm {
        leased: status.leased,
        pid: status.process.map_or(0, |process| process.pid),
        qemu_state: status
            .qemu
            .as_ref()
            .map(|qemu| qemu.as_str().to_owned())
            .unwrap_or_default(),
        last_exit: status.last_exit.map(exit_words).unwrap_or_default(),
        conditions: conditions.collect(),
        ..vm
    }
}

fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
        Exit::Unseen => "ended unseen".to_owned(),
    }
}

const fn agent_word(agent: AgentHealth) -> &'static str {
    match agent {
        AgentHealth::NotAsked => "not_asked",
        AgentHealth::Responding => "responding",
        AgentHealth::NotResponding => "not_responding",
        AgentHealth::NotInstalled => "not_installed",
    }
}

pub const fn vm_state(state: VmState) -> api::vm::State {
    match state {
        VmState::Pending => api::vm::State::Pending,
        VmState::Starting => api::vm::State::Starting,
        VmState::Running => api::vm::State::Running,
        VmState::Paused => api::vm::State::Paused,
        VmState::Frozen => api::vm::State::Frozen,
        VmState::Stopping => api::vm::State::Stopping,
        VmState::Stopped => api::vm::State::Stopped,
        VmState::Migrating => api::vm::State::Migrating,
        VmState::Failed => api::vm::State::Failed,
        VmState::Unknown => api::vm::State::Unknown,
    }
}

pub fn operation(view: &ClusterView, operation: &Operation) -> api::Operation {
    let (state, error) = match &operation.state {
        OperationState::Pending => (api::operation::State::Pending, None),
        OperationState::Running => (api::operation::State::Running, None),
        OperationState::Done => (api::operation::State::Done, None),
        OperationState::Failed(error) => (api::operation::State::Failed, Some(error)),
        OperationState::Cancelled => (api::operation::State::Cancelled, None),
    };
    api::Operation {
        id: operation.id.to_string(),
        kind: operation.kind.word().to_owned(),
        vm_id: operation.vm.to_string(),
        vm_name: operation.vm_name.to_string(),
        state: state.into(),
        step: operation.step.clone(),
        error: error.map(|error| api::OperationError {
            code: error.code,
            reason: error.reason.clone(),
            message: error.message.clone(),
        }),
        created_at_ms: operation.created_at_ms,
        updated_at_ms: operation.updated_at_ms,
        deadline_ms: operation.deadline_ms,
        host: operation
            .runner
            .map(|(host, _)| view.host_name(host))
            .unwrap_or_default(),
        cancel_requested: operation.cancel_requested,
    }
}

/// The operation by its id, if it is still kept.
pub fn operation_by_id(view: &ClusterView, id: OperationId) -> Option<api::Operation> {
    view.operations.get(&id).map(|stored| operation(view, &stored.value))
}

pub fn decision(decision: &Stored<Decision>) -> api::Decision {
    let revision = decision.revision;
    let Decision {
        at_ms,
        kind,
        text,
        evidence,
        ..
    } = decision.value.clone();
    api::Decision {
        revision,
        at_ms,
        kind,
        text,
        evidence,
    }
}

/// The host, if it belongs to the cluster.
pub fn host(view: &ClusterView, heard: &Heard, id: HostId) -> Option<api::Host> {
    let HostView { record, session, beat } = view.hosts.get(&id)?;
    let record = &record.as_ref()?.value;
    let shown = visible::host(view, heard, id);
    let state = match shown.state {
        HostState::Alive => api::host::State::Alive,
        HostState::Silent => api::host::State::Silent,
        HostState::New => api::host::State::New,
        HostState::Fenced => api::host::State::Fenced,
        HostState::Witness => api::host::State::Witness,
    };
    let mode = match record.mode() {
        _ if shown.departs => api::host::Mode::ShuttingDown,
        HostMode::Active => api::host::Mode::Active,
        HostMode::Draining => api::host::Mode::Draining,
        HostMode::Maintenance => api::host::Mode::Maintenance,
    };
    let mut host = api::Host {
        id: id.to_string(),
        name: record.name().to_string(),
        state: state.into(),
        mode: mode.into(),
        addresses: record.addresses().iter().map(ToString::to_string).collect(),
        last_heard_ms: shown.last_heard_ms.unwrap_or(0),
        epoch: session.as_ref().map_or(0, |session| session.value.epoch.get()),
        ..api::Host::default()
    };
    if let Some(beat) = beat.as_ref().map(|beat| &beat.value) {
        host.vcpus = beat.capacity.vcpus;
        host.memory_mb = beat.capacity.memory_mb;
        host.vms = beat.usage.vms;
        host.vcpus_used = beat.usage.vcpus;
        host.memory_used_mb = beat.usage.memory_mb;
        host.pools = beat.facts.pools.iter().map(ToString::to_string).collect();
        host.shared_pools = beat.facts.shared_pools.iter().map(ToString::to_string).collect();
        host.bridges = beat.facts.bridges.iter().map(ToString::to_string).collect();
        host.accelerator = beat.facts.accelerator.clone();
        host.version = beat.facts.version.clone();
        host.warnings = beat.facts.warnings.clone();
    }
    let decisions = view.decisions.values().rev().map(|decision| &decision.value);
    let mut fences = decisions.filter(|decision| decision.kind == FENCE && decision.host == Some(id));
    if let Some(fence) = fences.next() {
        host.fenced_at_ms = fence.at_ms;
        host.fenced_because = fence.text.clone();
    }
    Some(host)
}
