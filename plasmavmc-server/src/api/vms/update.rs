//! UpdateVm: what is wanted of a VM changes. What runs goes on as it was started; the next start is as wanted.

use plasmavmc_core::code::Code;
use plasmavmc_core::lifecycle::Rejection;
use plasmavmc_core::view::Stored;
use plasmavmc_proto::api;
use plasmavmc_proto::convert::spec::spec_from_api;
use plasmavmc_types::{VmId, VmRecord, VmSpec};

use super::create::no_ha;
use super::{TRIES, new_mac, shown, unknown_hosts};
use crate::api::backend::Backend;
use crate::api::error::ApiError;
use crate::api::find_vm;
use crate::api::requests::Asked;
use crate::api::show::Showing;
use crate::failpoint;
use crate::store::{Write, WriteError, keys};

macro_rules! fields {
    ($($field:ident),* $(,)?) => {
        /// The fields that a mask may name.
        pub const FIELDS: &[&str] = &[$(stringify!($field)),*];

        /// Takes one field over; `false`: there is none of that name.
        fn take_over(field: &str, from: &api::VmSpec, into: &mut api::VmSpec) -> bool {
            match field {
                $(stringify!($field) => into.$field = from.$field.clone(),)*
                _ => return false,
            }
            true
        }
    };
}

fields!(
    name,
    vcpus,
    memory_mb,
    cpu,
    machine,
    firmware,
    direct_boot,
    disks,
    cdroms,
    nics,
    boot_order,
    display,
    rng,
    balloon,
    pvpanic,
    watchdog,
    agent,
    ha,
    priority,
    restart,
    depends_on,
    start_delay_s,
    start_paused,
    affinity,
);

pub async fn update(backend: &Backend, request: api::UpdateVmRequest) -> Result<api::Vm, ApiError> {
    let content = api::UpdateVmRequest {
        request_id: String::new(),
        ..request.clone()
    };
    let asked = Asked::new("UpdateVm", &request.request_id, &content)?;
    match updated(backend, &request, &asked).await? {
        // Not what others made of it since: a caller who goes on from there would undo that unseen.
        Updated::Now(record) => Ok(backend.look(|view, heard| Showing::new(view, heard).vm_as(&record))),
        Updated::Before(vm) => shown(backend, vm).ok_or(ApiError::VmNotFound(request.id)),
    }
}

enum Updated {
    Now(Box<VmRecord>),
    /// By an earlier call with the same request id.
    Before(VmId),
}

async fn updated(backend: &Backend, request: &api::UpdateVmRequest, asked: &Asked) -> Result<Updated, ApiError> {
    for _ in 0..TRIES {
        backend.catch_up().await?;
        if let Some(first) = asked.answered(&backend.mirror)? {
            let outlived = || ApiError::RequestOutlived(asked.id());
            return first.vm.map(Updated::Before).ok_or_else(outlived);
        }
        let (seen, spec) = next_spec(backend, request)?;
        let (vm, old) = (seen.value.id(), seen.value.spec());
        let mut record = seen.value.clone();
        let mut write = Write::new().expect(keys::vm_record(vm), seen.revision);
        if *old == spec {
            if !asked.has_id() {
                return Ok(Updated::Now(Box::new(record)));
            }
            // Noted all the same: repeated later, when others have changed the VM, it changes nothing back.
        } else {
            record = record.with_spec(spec.clone())?;
            write = write.put_record(&record);
        }
        if old.name != spec.name {
            write = write.rename_vm(vm, &old.name, &spec.name);
        }
        let write = asked.note(write, vm, None);
        match failpoint::UPDATE.around(write.commit(&*backend.kv)).await {
            Ok(committed) => {
                backend.reached(committed.revision).await?;
                return Ok(Updated::Now(Box::new(record)));
            }
            Err(WriteError::Raced) => {
                backend.catch_up().await?;
                refuse_name(backend, vm, &spec)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

fn refuse_name(backend: &Backend, vm: VmId, spec: &VmSpec) -> Result<(), ApiError> {
    let owner = backend.mirror.read(|view| view.names.get(&spec.name).copied());
    match owner {
        Some(owner) if owner != vm => Err(ApiError::NameTaken(spec.name.to_string())),
        _ => Ok(()),
    }
}

/// The record as it is, and the specification as it is to be.
fn next_spec(backend: &Backend, request: &api::UpdateVmRequest) -> Result<(Stored<VmRecord>, VmSpec), ApiError> {
    let voters = *backend.voters.borrow();
    backend.mirror.read(|view| {
        let id = find_vm(view, &request.id)?;
        let record = view.vms.get(&id).and_then(|vm| vm.record.clone());
        let record = record.ok_or_else(|| ApiError::VmNotFound(request.id.clone()))?;
        refuse_stale(&record.value, request.generation)?;
        let merged = merge(record.value.spec(), request)?;
        let spec = spec_from_api(merged, |reference| view.find(reference), new_mac)?;
        let asks_for_ha = record.value.spec().ha != spec.ha || record.value.spec().disks != spec.disks;
        let no_ha = asks_for_ha.then(|| no_ha(view, voters, &spec)).flatten();
        let no_ha = no_ha.map(|problem| ("ha".to_owned(), problem));
        let problems = unknown_hosts(view, &spec, Some(record.value.spec())).into_iter();
        match problems.chain(no_ha).next() {
            Some((field, problem)) => Err(ApiError::Field { field, problem }),
            None => Ok((record, spec)),
        }
    })
}

fn refuse_stale(record: &VmRecord, asked: u64) -> Result<(), ApiError> {
    if record.is_deleted() {
        return Err(ApiError::Rejected(Rejection {
            code: Code::FailedPrecondition,
            reason: "VM_DELETED",
            message: format!("VM {} is being deleted, which cannot be undone", record.spec().name),
            operation: None,
        }));
    }
    let now = record.generation().get();
    if asked != 0 && asked != now {
        return Err(ApiError::StaleGeneration { asked, now });
    }
    Ok(())
}

fn merge(current: &VmSpec, request: &api::UpdateVmRequest) -> Result<api::VmSpec, ApiError> {
    let current = api::VmSpec::from(current);
    let field = |field: &str, problem: String| ApiError::Field {
        field: field.to_owned(),
        problem,
    };
    let wanted = request
        .spec
        .clone()
        .ok_or_else(|| field("spec", "is missing: say what the VM is to be".to_owned()))?;
    let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice());
    let mut merged = match paths.unwrap_or_default() {
        [] => wanted,
        paths => {
            let mut merged = current.clone();
            for (index, path) in paths.iter().enumerate() {
                let path = path.strip_prefix("spec.").unwrap_or(path);
                if !take_over(path, &wanted, &mut merged) {
                    let problem = format!("is {path:?}, which is none of {}", FIELDS.join(", "));
                    return Err(field(&format!("update_mask.paths[{index}]"), problem));
                }
            }
            merged
        }
    };
    // A NIC keeps its address unless it is given another one.
    for nic in merged.nics.iter_mut().filter(|nic| nic.mac.is_empty()) {
        let known = current.nics.iter().find(|known| known.name == nic.name);
        nic.mac = known.map(|known| known.mac.clone()).unwrap_or_default();
    }
    Ok(merged)
}
