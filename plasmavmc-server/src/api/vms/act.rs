//! Everything that is done to a VM that exists: admitted by the rules of the life cycle on what is stored now,
//! and begun in one transaction that compares it.

use plasmavmc_core::lifecycle::{Admission, admit, admit_delete};
use plasmavmc_core::visible;
use plasmavmc_proto::api;
use plasmavmc_types::{OperationId, OperationKind, OperationState, VmId, VmName};
use uuid::Uuid;

use super::{TRIES, wait_for_done};
use crate::api::backend::Backend;
use crate::api::caller::Caller;
use crate::api::error::ApiError;
use crate::api::requests::Asked;
use crate::api::{find_vm, show};
use crate::clock::wall_ms;
use crate::failpoint;
use crate::store::{ParsedKey, Write, WriteError};

/// The longest a caller may give an operation.
const LONGEST_S: u32 = 24 * 3600;

/// What is to be done, and to whom.
#[derive(Debug, Clone)]
pub struct Order {
    pub vm: String,
    pub kind: OperationKind,
    /// Delete what runs.
    pub force_delete: bool,
    /// The generation that is meant; 0: any.
    pub generation: u64,
    /// 0: as long as is usual.
    pub timeout_s: u32,
    pub waits: bool,
}

impl Order {
    pub fn new(vm: String, kind: OperationKind, waits: bool, timeout_s: u32) -> Self {
        Self {
            vm,
            kind,
            force_delete: false,
            generation: 0,
            timeout_s,
            waits,
        }
    }
}

pub async fn act(backend: &Backend, order: Order, asked: Asked, caller: Caller) -> Result<api::Operation, ApiError> {
    if order.timeout_s > LONGEST_S {
        return Err(ApiError::Field {
            field: "timeout_s".to_owned(),
            problem: format!("is {}, at most {LONGEST_S} is allowed", order.timeout_s),
        });
    }
    let id = begun(backend, &order, &asked).await?;
    let operation = match order.waits {
        true => Some(wait_for_done(backend, id, caller).await?),
        false => None,
    };
    backend.mirror.read(|view| match operation {
        Some(operation) => Ok(show::operation(view, &operation)),
        None => show::operation_by_id(view, id).ok_or_else(|| ApiError::OperationNotFound(id.to_string())),
    })
}

/// The operation, begun now or by an earlier call with the same request id.
async fn begun(backend: &Backend, order: &Order, asked: &Asked) -> Result<OperationId, ApiError> {
    for _ in 0..TRIES {
        backend.catch_up().await?;
        if let Some(first) = asked.answered(&backend.mirror)? {
            return first.operation.ok_or_else(|| ApiError::RequestOutlived(asked.id()));
        }
        let decided = decide(backend, order)?;
        let id = OperationId::from_uuid(Uuid::new_v4());
        match failpoint::ORDER
            .around(decided.write(order, id, asked).commit(&*backend.kv))
            .await
        {
            Ok(committed) => {
                backend.reached(committed.revision).await?;
                return Ok(id);
            }
            Err(WriteError::Raced) => {}
            Err(WriteError::Kv(error @ chainfire::kv::KvError::OutcomeUnknown { .. })) => {
                backend.catch_up().await?;
                // The id is nobody else's: if the operation is there, it is this call's.
                let is_there = backend.mirror.read(|view| view.operations.contains_key(&id));
                return if is_there { Ok(id) } else { Err(error.into()) };
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

struct Decided {
    vm: VmId,
    name: VmName,
    admission: Admission,
}

fn decide(backend: &Backend, order: &Order) -> Result<Decided, ApiError> {
    backend.look(|view, heard| {
        let id = find_vm(view, &order.vm)?;
        let not_found = || ApiError::VmNotFound(order.vm.clone());
        let vm = view.vms.get(&id).ok_or_else(not_found)?;
        let record = &vm.record.as_ref().ok_or_else(not_found)?.value;
        let now = record.generation().get();
        if order.generation != 0 && order.generation != now {
            let asked = order.generation;
            return Err(ApiError::StaleGeneration { asked, now });
        }
        let (open, shown) = (view.open_operations(id), visible::vm(view, heard, id));
        let admission = match order.kind {
            OperationKind::Delete => admit_delete(order.force_delete, vm, &open, &shown)?,
            kind => admit(kind, vm, &open, &shown)?,
        };
        Ok(Decided {
            vm: id,
            name: record.spec().name.clone(),
            admission,
        })
    })
}

impl Decided {
    fn write(self, order: &Order, id: OperationId, asked: &Asked) -> Write {
        let Self { vm, name, admission } = self;
        let now_ms = wall_ms();
        let mut operation = admission.operation(id, order.kind, vm, name, now_ms);
        if order.timeout_s > 0 {
            operation.deadline_ms = now_ms.saturating_add(u64::from(order.timeout_s) * 1000);
        }
        debug_assert!(!matches!(operation.state, OperationState::Running));
        let mut write = Write::new().create_operation(&operation);
        for (part, revision) in admission.expects {
            write = write.expect(ParsedKey::from(&part), revision);
        }
        if let Some(record) = &admission.record {
            write = write.put_record(record);
        }
        asked.note(write, vm, Some(id))
    }
}
