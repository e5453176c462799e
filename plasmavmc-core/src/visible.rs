//! What a client is shown: the word of the host that has the VM, and how old that word is.
//!
//! A host that cannot write cannot say so. Its VMs are shown as unknown once it has not been heard of for
//! `failover_after_ms`, with the age of the last word and, where it was leased, that it is probably frozen.
//!
//! Must never: show as running what nobody has vouched for lately.

use plasmavmc_types::{
    AgentHealth, HostId, HostMode, ObservedState, Operation, OperationKind, SessionState, VmId, VmState,
};

use crate::terms;
use crate::view::{ClusterView, Heard, HostView, Stored, VmView};

/// A VM as a client is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleVm {
    pub state: VmState,
    /// Why it is in this state, where there is something to say; else empty.
    pub reason: String,
    /// Where it is placed.
    pub host: Option<HostId>,
    /// The name of that host; its id if it is no longer known by name.
    pub host_name: String,
    /// How long ago that host was last heard of.
    pub last_heard_ms: Option<u64>,
    /// The host's own word, however old, if it belongs to the current placement.
    pub reported: Option<VmState>,
    pub agent: AgentHealth,
}

impl VisibleVm {
    fn nowhere(state: VmState, reason: String) -> Self {
        Self {
            state,
            reason,
            host: None,
            host_name: String::new(),
            last_heard_ms: None,
            reported: None,
            agent: AgentHealth::NotAsked,
        }
    }
}

/// Whether a host is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostState {
    /// Its beats come.
    Alive,
    /// They do not.
    Silent,
    /// It has never opened a session.
    New,
    Fenced,
    /// It votes and runs no VMs: it has no session and sends no beats, and none are waited for.
    Witness,
}

/// What there is to say of a witness.
const WITNESS: &str = "it is a witness: it votes, and runs no VMs";

/// A host as a client is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleHost {
    pub state: HostState,
    pub mode: HostMode,
    /// It is about to be switched off, or was, as its operator said.
    pub departs: bool,
    /// Why it is in this state, where there is something to say; else empty.
    pub reason: String,
    pub last_heard_ms: Option<u64>,
}

pub fn vm(view: &ClusterView, heard: &Heard, id: VmId) -> VisibleVm {
    let Some(vm) = view.vms.get(&id) else {
        return VisibleVm::nowhere(VmState::Unknown, format!("there is no VM {id}"));
    };
    let Some(placement) = &vm.placement else {
        return VisibleVm::nowhere(unplaced_state(vm), waiting_reason(view, id, vm));
    };
    let host = placement.value.host;
    let current = vm.current_status().map(|status| &status.value);
    let host_name = view.host_name(host);
    let shown_host = self::host(view, heard, host);
    let (state, reason) = match current {
        Some(status) => (status.state.vm_state(), reported_reason(status)),
        None => (
            unclaimed_state(vm),
            format!("placed on {host_name}, which has not taken it yet"),
        ),
    };
    let (state, reason) = match shown_host.state {
        HostState::Alive => (state, reason),
        _ if has_lost_host(view, vm) => (unplaced_state(vm), waiting_reason(view, id, vm)),
        // Nothing of it can run anywhere, whatever became of the host.
        _ if runs_nowhere(vm) => (state, reason),
        _ => (VmState::Unknown, unknown_reason(view, vm, &host_name, &shown_host)),
    };
    VisibleVm {
        state,
        reason,
        host: Some(host),
        host_name,
        last_heard_ms: shown_host.last_heard_ms,
        reported: current.map(|status| status.state.vm_state()),
        agent: current.map_or(AgentHealth::NotAsked, |status| status.agent),
    }
}

pub fn host(view: &ClusterView, heard: &Heard, id: HostId) -> VisibleHost {
    let known = view.hosts.get(&id);
    let mode = known
        .and_then(|host| host.record.as_ref())
        .map_or(HostMode::Maintenance, |record| record.value.mode());
    let last_heard_ms = heard.ago_ms.get(&id).copied();
    let (state, reason) = match known {
        None => (HostState::Silent, "it does not belong to the cluster".to_owned()),
        Some(host) if host.is_witness() => (HostState::Witness, WITNESS.to_owned()),
        Some(host) => liveness(view, host, last_heard_ms),
    };
    VisibleHost {
        state,
        mode,
        departs: known.is_some_and(|host| host.departure().is_some()),
        reason,
        last_heard_ms,
    }
}

impl VisibleHost {
    /// Whether it is away on purpose: nobody is alarmed.
    pub fn is_away(&self) -> bool {
        let is_absent = matches!(self.state, HostState::Silent | HostState::Fenced);
        is_absent && (self.departs || self.mode == HostMode::Maintenance)
    }
}

fn liveness(view: &ClusterView, host: &HostView, last_heard_ms: Option<u64>) -> (HostState, String) {
    let Some(session) = &host.session else {
        return (HostState::New, "it has not reported for duty yet".to_owned());
    };
    if session.value.state == SessionState::Unconfirmed {
        let text =
            "it was lost when the cluster was recovered, and may run its VMs: once it is off, take it out as dead";
        return (HostState::Fenced, text.to_owned());
    }
    if !session.value.is_open() {
        let text = format!("its session {} is over; it has not come back", session.value.epoch);
        return (HostState::Fenced, text);
    }
    match last_heard_ms {
        Some(ago_ms) if ago_ms < terms::patience_ms(view, host) => (HostState::Alive, String::new()),
        Some(ago_ms) => (HostState::Silent, format!("last heard of {} ago", seconds(ago_ms))),
        None => (
            HostState::Silent,
            "not heard of since this server began to listen".to_owned(),
        ),
    }
}

impl ClusterView {
    /// What a host is called; its id where its record is gone.
    pub fn host_name(&self, id: HostId) -> String {
        let record = self.hosts.get(&id).and_then(|host| host.record.as_ref());
        record.map_or_else(|| id.to_string(), |record| record.value.name().to_string())
    }

    /// What a VM is called; its id where its record is gone.
    pub fn vm_name(&self, id: VmId) -> String {
        let name = self.vms.get(&id).and_then(VmView::name);
        name.map_or_else(|| id.to_string(), ToString::to_string)
    }
}

/// The one place in which ages are put into words.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..600_000 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}

fn is_wanted_on(vm: &VmView) -> bool {
    let record = vm.record.as_ref();
    record.is_some_and(|record| record.value.power() == plasmavmc_types::PowerWanted::On)
}

fn unplaced_state(vm: &VmView) -> VmState {
    if is_wanted_on(vm) {
        VmState::Pending
    } else {
        VmState::Stopped
    }
}

/// Whether the host it is placed on has said that no process of it is left, and has not claimed it since.
pub fn runs_nowhere(vm: &VmView) -> bool {
    let Some(status) = vm.current_status() else {
        return false;
    };
    let is_over = matches!(
        status.value.state,
        ObservedState::Stopped | ObservedState::Failed { .. }
    );
    is_over && status.value.process.is_none()
}

/// Whether the host it is placed on was taken out of the cluster. Only a host without VMs is, or one of which its
/// operator says that it is off for good: whichever it was, nothing of this VM runs there.
pub fn has_lost_host(view: &ClusterView, vm: &VmView) -> bool {
    let Some(placement) = &vm.placement else {
        return false;
    };
    let host = view.hosts.get(&placement.value.host);
    host.is_none_or(|host| host.record.is_none())
}

/// Whether the session of a host is over and it has not opened the next one. A host that was taken out is not fenced:
/// it is gone.
pub fn is_fenced(view: &ClusterView, host: HostId) -> bool {
    let session = view.hosts.get(&host).and_then(|host| host.session.as_ref());
    session.is_some_and(|session| session.value.state == SessionState::Fenced)
}

/// Whether a host was lost when the cluster was recovered, and nobody has said since that it is off.
pub fn is_unconfirmed(view: &ClusterView, host: HostId) -> bool {
    let session = view.hosts.get(&host).and_then(|host| host.session.as_ref());
    session.is_some_and(|session| session.value.state == SessionState::Unconfirmed)
}

/// A VM that was placed and not claimed runs nowhere.
fn unclaimed_state(vm: &VmView) -> VmState {
    unplaced_state(vm)
}

/// Why a VM that is wanted on is nowhere: as the controller noted it.
fn waiting_reason(view: &ClusterView, id: VmId, vm: &VmView) -> String {
    if !is_wanted_on(vm) {
        return "it has not been started yet".to_owned();
    }
    if let Some(step) = starting_step(view, id) {
        return step;
    }
    let noted = view
        .decisions
        .values()
        .rev()
        .find(|decision| decision.value.vm == Some(id));
    match noted {
        Some(decision) if decision.value.kind == crate::plan::WAIT => decision.value.text.clone(),
        _ => "not placed yet".to_owned(),
    }
}

fn starting_step(view: &ClusterView, id: VmId) -> Option<String> {
    let starts = |operation: &&Stored<Operation>| {
        let operation = &operation.value;
        operation.vm == id
            && !operation.is_ended()
            && matches!(operation.kind, OperationKind::Create | OperationKind::Start)
    };
    let found = view.operations.values().find(starts)?;
    Some(found.value.step.clone()).filter(|step| !step.is_empty())
}

fn reported_reason(status: &plasmavmc_types::VmStatus) -> String {
    match &status.state {
        ObservedState::Failed { reason } => reason.clone(),
        ObservedState::Paused { cause } => pause_reason(*cause).to_owned(),
        _ => {
            let texts = status.conditions.iter().map(|condition| condition.text.as_str());
            texts.collect::<Vec<_>>().join("; ")
        }
    }
}

fn pause_reason(cause: plasmavmc_types::PauseCause) -> &'static str {
    use plasmavmc_types::PauseCause as Cause;
    match cause {
        Cause::Asked => "paused on request",
        Cause::Suspended => "the guest went to sleep",
        Cause::IoError => "a disk answered with an error: repair it, then resume the VM",
        Cause::GuestPanicked => "the guest's kernel has panicked: reset the VM",
        Cause::Watchdog => "the guest's watchdog fired",
        Cause::InternalError => "QEMU met an internal error and cannot go on: reset the VM",
        Cause::Snapshot => "its state is being written or read",
        Cause::Debugger => "a debugger holds it",
    }
}

fn unknown_reason(view: &ClusterView, vm: &VmView, host_name: &str, host: &VisibleHost) -> String {
    let mut text = format!("host {host_name}: {}", host.reason);
    if host.state == HostState::Silent
        && let Some(ago_ms) = host.last_heard_ms
    {
        text = format!("host {host_name} last heard of {} ago", seconds(ago_ms));
    }
    let Some(status) = vm.current_status() else {
        return text;
    };
    let placed_on = vm.placement.as_ref().and_then(|at| view.hosts.get(&at.value.host));
    let lease_ms = placed_on.map_or(view.timings.freeze_after_ms, |known| terms::lease_ms(view, known));
    let freezes = status.value.leased && host.last_heard_ms.is_none_or(|ago| ago >= lease_ms);
    let runs = matches!(status.value.state, ObservedState::Running | ObservedState::Starting);
    let then = status.value.state.vm_state();
    if freezes && runs {
        format!("{text}; it was {then} then, and is probably frozen")
    } else {
        format!("{text}; it was {then} then")
    }
}

#[cfg(test)]
mod tests;
