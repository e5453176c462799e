//! What takes longer than a call, and what was decided on the way.

use plasmavmc_types::{
    Checks, Decision, Epoch, HostId, Invalid, Operation, OperationError, OperationId, OperationKind, OperationState,
    VmId, VmName,
};

use super::super::{id_bytes, read_enum, read_id, read_optional_id, refuse_number};
use super::vm::unreadable;
use crate::store;

impl From<&Operation> for store::Operation {
    fn from(operation: &Operation) -> Self {
        use store::operation::State;
        let (state, error) = match &operation.state {
            OperationState::Pending => (State::Pending, None),
            OperationState::Running => (State::Running, None),
            OperationState::Done => (State::Done, None),
            OperationState::Failed(error) => (State::Failed, Some(error)),
            OperationState::Cancelled => (State::Cancelled, None),
        };
        let runner = operation.runner;
        Self {
            id: id_bytes(operation.id.as_uuid()),
            kind: write_kind(operation.kind).into(),
            vm: id_bytes(operation.vm.as_uuid()),
            state: state.into(),
            step: operation.step.clone(),
            error_code: error.map_or(0, |error| error.code),
            error_reason: error.map(|error| error.reason.clone()).unwrap_or_default(),
            error_message: error.map(|error| error.message.clone()).unwrap_or_default(),
            created_at_ms: operation.created_at_ms,
            updated_at_ms: operation.updated_at_ms,
            deadline_ms: operation.deadline_ms,
            force: operation.kind.is_forced(),
            cancel_requested: operation.cancel_requested,
            host: runner.map(|(host, _)| id_bytes(host.as_uuid())).unwrap_or_default(),
            epoch: runner.map_or(0, |(_, epoch)| epoch.get()),
            vm_name: operation.vm_name.to_string(),
        }
    }
}

impl TryFrom<store::Operation> for Operation {
    type Error = Invalid;

    fn try_from(message: store::Operation) -> Result<Self, Invalid> {
        let mut checks = Checks::of("operation");
        let id = read_id(&mut checks, "id", &message.id).map(OperationId::from_uuid);
        let kind = read_kind(&mut checks, message.kind, message.force);
        let vm = read_id(&mut checks, "vm", &message.vm).map(VmId::from_uuid);
        let vm_name = checks.take("vm_name", VmName::new(message.vm_name));
        let error = OperationError {
            code: message.error_code,
            reason: message.error_reason,
            message: message.error_message,
        };
        let state = read_state(&mut checks, message.state, error);
        let host = read_optional_id(&mut checks, "host", &message.host);
        let (Some(id), Some(kind), Some(vm), Some(vm_name), Some(state), Some(host)) =
            (id, kind, vm, vm_name, state, host)
        else {
            return unreadable(checks);
        };
        checks.finish(Self {
            id,
            kind,
            vm,
            vm_name,
            state,
            step: message.step,
            created_at_ms: message.created_at_ms,
            updated_at_ms: message.updated_at_ms,
            deadline_ms: message.deadline_ms,
            cancel_requested: message.cancel_requested,
            runner: host.map(|host| (HostId::from_uuid(host), Epoch::from_raw(message.epoch))),
        })
    }
}

fn write_kind(kind: OperationKind) -> store::operation::Kind {
    use store::operation::Kind;
    match kind {
        OperationKind::Create => Kind::Create,
        OperationKind::Start => Kind::Start,
        OperationKind::Stop { .. } => Kind::Stop,
        OperationKind::Reboot => Kind::Reboot,
        OperationKind::Restart { .. } => Kind::Restart,
        OperationKind::Reset => Kind::Reset,
        OperationKind::Pause => Kind::Pause,
        OperationKind::Resume => Kind::Resume,
        OperationKind::Delete => Kind::Delete,
    }
}

fn read_kind(checks: &mut Checks, number: i32, force: bool) -> Option<OperationKind> {
    use store::operation::Kind;
    let kind = match read_enum(checks, "kind", number)? {
        Kind::Unspecified => {
            refuse_number(checks, "kind", number);
            return None;
        }
        Kind::Create => OperationKind::Create,
        Kind::Start => OperationKind::Start,
        Kind::Stop => OperationKind::Stop { force },
        Kind::Reboot => OperationKind::Reboot,
        Kind::Restart => OperationKind::Restart { force },
        Kind::Reset => OperationKind::Reset,
        Kind::Pause => OperationKind::Pause,
        Kind::Resume => OperationKind::Resume,
        Kind::Delete => OperationKind::Delete,
    };
    Some(kind)
}

fn read_state(checks: &mut Checks, number: i32, error: OperationError) -> Option<OperationState> {
    use store::operation::State;
    let state = match read_enum(checks, "state", number)? {
        State::Unspecified => {
            refuse_number(checks, "state", number);
            return None;
        }
        State::Pending => OperationState::Pending,
        State::Running => OperationState::Running,
        State::Done => OperationState::Done,
        State::Failed => OperationState::Failed(error),
        State::Cancelled => OperationState::Cancelled,
    };
    Some(state)
}

impl From<&Decision> for store::Decision {
    fn from(decision: &Decision) -> Self {
        Self {
            at_ms: decision.at_ms,
            kind: decision.kind.clone(),
            vm: decision.vm.map(|vm| id_bytes(vm.as_uuid())).unwrap_or_default(),
            host: decision.host.map(|host| id_bytes(host.as_uuid())).unwrap_or_default(),
            text: decision.text.clone(),
            evidence: decision.evidence.clone(),
        }
    }
}

impl TryFrom<store::Decision> for Decision {
    type Error = Invalid;

    fn try_from(message: store::Decision) -> Result<Self, Invalid> {
        let mut checks = Checks::of("decision");
        let vm = read_optional_id(&mut checks, "vm", &message.vm);
        let host = read_optional_id(&mut checks, "host", &message.host);
        let (Some(vm), Some(host)) = (vm, host) else {
            return unreadable(checks);
        };
        checks.finish(Self {
            at_ms: message.at_ms,
            kind: message.kind,
            vm: vm.map(VmId::from_uuid),
            host: host.map(HostId::from_uuid),
            text: message.text,
            evidence: message.evidence,
        })
    }
}
