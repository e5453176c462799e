//! CreateVm.

use plasmavmc_core::ha;
use plasmavmc_core::lifecycle::patience_ms;
use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::api;
use plasmavmc_proto::convert::spec::spec_from_api;
use plasmavmc_types::{
    Generation, Operation, OperationId, OperationKind, OperationState, PowerWanted, VmId, VmNumber, VmRecord,
    VmRecordParts, VmSpec,
};
use prost::Message;
use uuid::Uuid;

use super::{TRIES, new_mac, shown, unknown_hosts, wait_for_done};
use crate::api::backend::Backend;
use crate::api::caller::Caller;
use crate::api::error::ApiError;
use crate::api::numbers::HeldNumber;
use crate::api::requests::Asked;
use crate::clock::wall_ms;
use crate::failpoint;
use crate::store::{Request, Write, WriteError};

/// A new VM, checked, before it has a number.
struct Wanted {
    spec: VmSpec,
    number: Option<VmNumber>,
    power: PowerWanted,
    vm: VmId,
    operation: OperationId,
}

pub async fn create(backend: &Backend, request: api::CreateVmRequest, caller: Caller) -> Result<api::Vm, ApiError> {
    let waits = request.wait;
    let (vm, operation) = created(backend, request).await?;
    if waits {
        wait_for_done(backend, operation, caller).await?;
    }
    shown(backend, vm).ok_or_else(|| ApiError::VmNotFound(vm.to_string()))
}

/// The VM and the operation that starts it, made now or by an earlier call with the same request id.
async fn created(backend: &Backend, request: api::CreateVmRequest) -> Result<(VmId, OperationId), ApiError> {
    let asked = asked(&request)?;
    if names_others(&request) {
        backend.catch_up().await?;
    }
    // Before anything is checked: what it named may be gone by now.
    if let Some(first) = asked.answered(&backend.mirror)? {
        return of_first(backend, &asked, &first);
    }
    let wanted = checked(backend, &request)?;
    for tries in 0..TRIES {
        let held = match wanted.number {
            Some(_) => None,
            None => Some(allot(backend, tries)?),
        };
        let number = wanted.number.or(held.as_ref().map(HeldNumber::get));
        let number = number.ok_or_else(|| ApiError::Internal("a new VM has no number".to_owned()))?;
        let write = wanted.write(number, &asked)?;
        match failpoint::CREATE.around(write.commit(&*backend.kv)).await {
            Ok(committed) => {
                backend.reached(committed.revision).await?;
                return Ok((wanted.vm, wanted.operation));
            }
            Err(WriteError::Raced) => {
                backend.catch_up().await?;
                if let Some(first) = asked.answered(&backend.mirror)? {
                    return of_first(backend, &asked, &first);
                }
                refuse_taken(backend, &wanted)?;
            }
            Err(WriteError::Kv(error @ chainfire::kv::KvError::OutcomeUnknown { .. })) => {
                return settle_unknown(backend, &wanted, error).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

fn asked(request: &api::CreateVmRequest) -> Result<Asked, ApiError> {
    let content = api::CreateVmRequest {
        wait: false,
        request_id: String::new(),
        ..request.clone()
    };
    Asked::new("CreateVm", &request.request_id, &content)
}

fn names_others(request: &api::CreateVmRequest) -> bool {
    !request.depends_on.is_empty() || request.affinity.is_some()
}

/// Everything that is wrong with a request is told at once.
fn checked(backend: &Backend, request: &api::CreateVmRequest) -> Result<Wanted, ApiError> {
    // The fields of a specification have the same numbers in both messages; a test compares them.
    let spec = api::VmSpec::decode(request.encode_to_vec().as_slice())
        .map_err(|error| ApiError::Internal(format!("a request does not read as a specification: {error}")))?;
    let spec = backend
        .mirror
        .read(|view| spec_from_api(spec, |reference| view.find(reference), new_mac));
    let mut checks = plasmavmc_types::Checks::of("VM");
    let number = match request.vmid {
        0 => None,
        vmid => checks.take("vmid", VmNumber::new(vmid)),
    };
    let spec = match spec {
        Ok(spec) => {
            for (field, problem) in backend.mirror.read(|view| unknown_hosts(view, &spec, None)) {
                checks.refuse(field, problem);
            }
            let voters = *backend.voters.borrow();
            if let Some(problem) = backend.mirror.read(|view| no_ha(view, voters, &spec)) {
                checks.refuse("ha", problem);
            }
            Some(spec)
        }
        Err(invalid) => {
            for problem in invalid.problems() {
                checks.refuse(problem.field.clone(), problem.problem.clone());
            }
            None
        }
    };
    checks.finish(())?;
    Ok(Wanted {
        spec: spec.ok_or_else(|| ApiError::Internal("a specification was refused without a reason".to_owned()))?,
        number,
        power: match request.powered_off {
            true => PowerWanted::Off,
            false => PowerWanted::On,
        },
        vm: VmId::from_uuid(Uuid::new_v4()),
        operation: OperationId::from_uuid(Uuid::new_v4()),
    })
}

/// Why `ha = on` cannot be promised.
pub(super) fn no_ha(view: &ClusterView, voters: usize, spec: &VmSpec) -> Option<String> {
    ha::refusal(view, spec, voters).map(|obstacle| format!("is on, but it could not be started elsewhere: {obstacle}"))
}

fn allot(backend: &Backend, tries: u32) -> Result<HeldNumber, ApiError> {
    let chance = rand::random::<u32>();
    let held = backend
        .mirror
        .read(|view| backend.numbers.hold(&view.numbers, tries, chance));
    held.ok_or_else(|| ApiError::Internal("every vmid is taken".to_owned()))
}

impl Wanted {
    fn write(&self, number: VmNumber, asked: &Asked) -> Result<Write, ApiError> {
        let now_ms = wall_ms();
        let record = VmRecord::from_parts(VmRecordParts {
            id: self.vm,
            number,
            spec: self.spec.clone(),
            power: self.power,
            generation: Generation::FIRST,
            deleted: false,
            created_at_ms: now_ms,
        })?;
        let (state, step) = match self.power {
            PowerWanted::On => (OperationState::Pending, ""),
            PowerWanted::Off => (OperationState::Done, "created, and left switched off"),
        };
        let kind = OperationKind::Create;
        let operation = Operation {
            id: self.operation,
            kind,
            vm: self.vm,
            vm_name: self.spec.name.clone(),
            state,
            step: step.to_owned(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            deadline_ms: now_ms.saturating_add(patience_ms(kind)),
            cancel_requested: false,
            runner: None,
        };
        let write = Write::new().create_vm(&record).create_operation(&operation);
        Ok(asked.note(write, self.vm, Some(self.operation)))
    }
}

/// What stood in the way, if it was something that stays.
fn refuse_taken(backend: &Backend, wanted: &Wanted) -> Result<(), ApiError> {
    let name = &wanted.spec.name;
    let (has_name, has_number) = backend.mirror.read(|view| {
        let number = wanted.number.filter(|number| view.numbers.contains_key(number));
        (view.names.contains_key(name), number)
    });
    match (has_name, has_number) {
        (true, _) => Err(ApiError::NameTaken(name.to_string())),
        (false, Some(number)) => Err(ApiError::VmidTaken(number.get())),
        (false, None) => Ok(()),
    }
}

fn of_first(backend: &Backend, asked: &Asked, first: &Request) -> Result<(VmId, OperationId), ApiError> {
    let outlived = || ApiError::RequestOutlived(asked.id());
    let (Some(vm), Some(operation)) = (first.vm, first.operation) else {
        return Err(outlived());
    };
    let is_there = |view: &plasmavmc_core::view::ClusterView| view.vms.get(&vm).is_some_and(|vm| vm.record.is_some());
    match backend.mirror.read(is_there) {
        true => Ok((vm, operation)),
        false => Err(outlived()),
    }
}

/// The ids of a new VM are nobody else's: if it is there, it is this call's.
async fn settle_unknown(
    backend: &Backend,
    wanted: &Wanted,
    error: chainfire::kv::KvError,
) -> Result<(VmId, OperationId), ApiError> {
    backend.catch_up().await?;
    match backend.mirror.read(|view| view.vms.contains_key(&wanted.vm)) {
        true => Ok((wanted.vm, wanted.operation)),
        false => Err(error.into()),
    }
}
