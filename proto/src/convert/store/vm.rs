//! A VM: its record, its placement, its status, and what points to it.

use plasmavmc_types::{
    AgentHealth, AttemptId, Checks, Condition, Exit, Generation, HostId, Incarnation, Invalid, Label, ObservedState,
    Placement, PowerWanted, QemuProcess, QemuRunState, VmId, VmNumber, VmRecord, VmRecordParts, VmSpec, VmStatus,
    VmStatusFields,
};

use super::super::{id_bytes, read_enum, read_id, refuse_number};
use crate::store;

impl From<&VmRecord> for store::VmRecord {
    fn from(record: &VmRecord) -> Self {
        Self {
            id: id_bytes(record.id().as_uuid()),
            number: record.number().get(),
            spec: Some(record.spec().into()),
            power_on: record.power() == PowerWanted::On,
            generation: record.generation().get(),
            deleted: record.is_deleted(),
            created_at_ms: record.created_at_ms(),
        }
    }
}

impl TryFrom<store::VmRecord> for VmRecord {
    type Error = Invalid;

    fn try_from(message: store::VmRecord) -> Result<Self, Invalid> {
        let mut checks = Checks::of("VM record");
        let id = read_id(&mut checks, "id", &message.id).map(VmId::from_uuid);
        let number = checks.take("number", VmNumber::new(message.number));
        let spec = match message.spec {
            Some(spec) => checks.take("spec", VmSpec::try_from(spec)),
            None => {
                checks.refuse("spec", "is missing");
                None
            }
        };
        let (Some(id), Some(number), Some(spec)) = (id, number, spec) else {
            return unreadable(checks);
        };
        VmRecord::from_parts(VmRecordParts {
            id,
            number,
            spec,
            power: if message.power_on {
                PowerWanted::On
            } else {
                PowerWanted::Off
            },
            generation: Generation::from_raw(message.generation),
            deleted: message.deleted,
            created_at_ms: message.created_at_ms,
        })
    }
}

/// The problems, of which there is at least one.
pub(super) fn unreadable<T>(checks: Checks) -> Result<T, Invalid> {
    checks
        .finish(())
        .and_then(|()| Err(Invalid::whole("stored value", "cannot be read")))
}

impl From<&Placement> for store::Placement {
    fn from(placement: &Placement) -> Self {
        Self {
            host: id_bytes(placement.host.as_uuid()),
            incarnation: placement.incarnation.get(),
        }
    }
}

impl TryFrom<store::Placement> for Placement {
    type Error = Invalid;

    fn try_from(message: store::Placement) -> Result<Self, Invalid> {
        let mut checks = Checks::of("placement");
        let host = read_id(&mut checks, "host", &message.host).map(HostId::from_uuid);
        let incarnation = Incarnation::from_raw(message.incarnation);
        checks.require(incarnation >= Incarnation::FIRST, "incarnation", || "is 0".to_owned());
        match host {
            Some(host) => checks.finish(Self { host, incarnation }),
            None => unreadable(checks),
        }
    }
}

impl From<&VmStatus> for store::VmStatus {
    fn from(status: &VmStatus) -> Self {
        let condition = |condition: &Condition| store::Condition {
            name: condition.name.to_string(),
            text: condition.text.clone(),
        };
        Self {
            incarnation: status.incarnation.get(),
            leased: status.leased,
            attempt: id_bytes(status.attempt.as_uuid()),
            state: Some((&status.state).into()),
            process: status.process.map(|process| store::Process {
                pid: process.pid,
                start_time_ticks: process.start_time_ticks,
            }),
            qemu: status
                .qemu
                .as_ref()
                .map(QemuRunState::as_str)
                .unwrap_or_default()
                .to_owned(),
            agent: write_agent(status.agent).into(),
            last_exit: status.last_exit.map(write_exit),
            conditions: status.conditions.iter().map(condition).collect(),
            crashes_at_ms: status.crashes_at_ms.clone(),
            generation: status.generation,
            since_ms: status.since_ms,
        }
    }
}

impl TryFrom<store::VmStatus> for VmStatus {
    type Error = Invalid;

    fn try_from(message: store::VmStatus) -> Result<Self, Invalid> {
        let mut checks = Checks::of("VM status");
        let attempt = read_id(&mut checks, "attempt", &message.attempt).map(AttemptId::from_uuid);
        let state = read_state(&mut checks, message.state.unwrap_or_default());
        let agent = read_agent(&mut checks, message.agent);
        let last_exit = message.last_exit.map(|exit| read_exit(&mut checks, &exit));
        let mut conditions = Vec::with_capacity(message.conditions.len());
        for (index, store::Condition { name, text }) in message.conditions.into_iter().enumerate() {
            let name = checks.take(&format!("conditions[{index}].name"), Label::new(name));
            conditions.extend(name.map(|name| Condition { name, text }));
        }
        let (Some(attempt), Some(state), Some(agent), []) = (attempt, state, agent, checks.problems()) else {
            return unreadable(checks);
        };
        VmStatus::new(VmStatusFields {
            incarnation: Incarnation::from_raw(message.incarnation),
            leased: message.leased,
            attempt,
            state,
            process: message.process.map(|process| QemuProcess {
                pid: process.pid,
                start_time_ticks: process.start_time_ticks,
            }),
            qemu: (!message.qemu.is_empty()).then(|| message.qemu.into()),
            agent,
            last_exit: last_exit.flatten(),
            conditions,
            crashes_at_ms: message.crashes_at_ms,
            generation: message.generation,
            since_ms: message.since_ms,
        })
    }
}

impl From<&ObservedState> for store::ObservedState {
    fn from(state: &ObservedState) -> Self {
        use store::observed_state::Kind;
        let kind = match state {
            ObservedState::Starting => Kind::Starting,
            ObservedState::Running => Kind::Running,
            ObservedState::Paused { .. } => Kind::Paused,
            ObservedState::Frozen => Kind::Frozen,
            ObservedState::Stopping => Kind::Stopping,
            ObservedState::Stopped => Kind::Stopped,
            ObservedState::Migrating => Kind::Migrating,
            ObservedState::Failed { .. } => Kind::Failed,
        };
        let (mut pause_cause, mut failure) = (String::new(), String::new());
        match state {
            ObservedState::Paused { cause } => pause_cause = cause.to_string(),
            ObservedState::Failed { reason } => failure.clone_from(reason),
            _ => {}
        }
        Self {
            kind: kind.into(),
            pause_cause,
            reason: failure,
        }
    }
}

fn read_state(checks: &mut Checks, message: store::ObservedState) -> Option<ObservedState> {
    use store::observed_state::Kind;
    let state = match read_enum(checks, "state.kind", message.kind)? {
        Kind::Unspecified => {
            refuse_number(checks, "state.kind", message.kind);
            return None;
        }
        Kind::Starting => ObservedState::Starting,
        Kind::Running => ObservedState::Running,
        Kind::Paused => ObservedState::Paused {
            cause: checks.take("state.pause_cause", message.pause_cause.parse())?,
        },
        Kind::Frozen => ObservedState::Frozen,
        Kind::Stopping => ObservedState::Stopping,
        Kind::Stopped => ObservedState::Stopped,
        Kind::Migrating => ObservedState::Migrating,
        Kind::Failed => ObservedState::Failed { reason: message.reason },
    };
    Some(state)
}

fn write_agent(agent: AgentHealth) -> store::AgentHealth {
    match agent {
        AgentHealth::NotAsked => store::AgentHealth::NotAsked,
        AgentHealth::Responding => store::AgentHealth::Responding,
        AgentHealth::NotResponding => store::AgentHealth::NotResponding,
        AgentHealth::NotInstalled => store::AgentHealth::NotInstalled,
    }
}

fn read_agent(checks: &mut Checks, number: i32) -> Option<AgentHealth> {
    let agent = match read_enum(checks, "agent", number)? {
        store::AgentHealth::NotAsked => AgentHealth::NotAsked,
        store::AgentHealth::Responding => AgentHealth::Responding,
        store::AgentHealth::NotResponding => AgentHealth::NotResponding,
        store::AgentHealth::NotInstalled => AgentHealth::NotInstalled,
    };
    Some(agent)
}

fn write_exit(exit: Exit) -> store::Exit {
    let exit = match exit {
        Exit::Code(code) => store::exit::Exit::Code(code),
        Exit::Signal(signal) => store::exit::Exit::Signal(signal),
        Exit::Unseen => store::exit::Exit::Unseen(true),
    };
    store::Exit { exit: Some(exit) }
}

fn read_exit(checks: &mut Checks, message: &store::Exit) -> Option<Exit> {
    match message.exit {
        Some(store::exit::Exit::Code(code)) => Some(Exit::Code(code)),
        Some(store::exit::Exit::Signal(signal)) => Some(Exit::Signal(signal)),
        Some(store::exit::Exit::Unseen(_)) => Some(Exit::Unseen),
        None => {
            checks.refuse("last_exit", "says nothing that this version knows");
            None
        }
    }
}

/// What a name or number in the store points to.
pub fn write_pointer(vm: VmId) -> store::VmPointer {
    store::VmPointer {
        vm: id_bytes(vm.as_uuid()),
    }
}

pub fn read_pointer(message: &store::VmPointer) -> Result<VmId, Invalid> {
    let mut checks = Checks::of("pointer to a VM");
    match read_id(&mut checks, "vm", &message.vm) {
        Some(id) => Ok(VmId::from_uuid(id)),
        None => unreadable(checks),
    }
}
