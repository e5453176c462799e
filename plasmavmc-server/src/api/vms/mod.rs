//! `plasmavmc.VmService`, call by call.
//!
//! ```text
//!   create    a new VM: record, name, number, request and operation in one transaction
//!   update    what is wanted of it, under a generation
//!   act       start, stop, delete and all other orders: admitted by core::lifecycle, one transaction
//!   read      get, list, explain
//!   watch     everything, then every change
//! ```

pub mod act;
pub mod create;
pub mod read;
mod service;
pub mod update;
pub mod watch;

use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::api;
use plasmavmc_types::{Affinity, MacAddress, Operation, OperationId, OperationState, VmId, VmSpec};
use tokio::time::timeout_at;

use super::backend::Backend;
use super::caller::Caller;
use super::error::ApiError;
use super::show::Showing;

/// How often a call looks again when others come between.
const TRIES: u32 = 12;

/// The VM as it is now.
fn shown(backend: &Backend, vm: VmId) -> Option<api::Vm> {
    backend.look(|view, heard| Showing::new(view, heard).vm(vm))
}

/// A VM bound to a host that is not there would wait for ever, and one that would rather be there was meant to be
/// elsewhere. What named it before stays as it is.
fn unknown_hosts(view: &ClusterView, wanted: &VmSpec, before: Option<&VmSpec>) -> Vec<(String, String)> {
    let none = Affinity::default();
    let (before, wanted) = (before.map_or(&none, |before| &before.affinity), &wanted.affinity);
    let lists = [
        ("hosts", &before.hosts, &wanted.hosts),
        ("prefer_hosts", &before.prefer_hosts, &wanted.prefer_hosts),
    ];
    let mut problems = Vec::new();
    for (field, known, hosts) in lists {
        for (index, host) in hosts.iter().enumerate() {
            if !known.contains(host) && view.host_named(host.as_str()).is_none() {
                let problem =
                    format!("is {host}, and there is no such host: 'plasmavmc host list' shows those there are");
                problems.push((format!("affinity.{field}[{index}]"), problem));
            }
        }
    }
    problems
}

/// An address of the range that is QEMU's, for a NIC without one.
fn new_mac() -> MacAddress {
    let [a, b, c] = rand::random::<[u8; 3]>();
    loop {
        // Neither all zero nor that of a group, so this is an address.
        if let Ok(address) = MacAddress::new([0x52, 0x54, 0x00, a, b, c]) {
            return address;
        }
    }
}

/// Waits for the end of an operation, as long as the caller does.
async fn wait_for_end(backend: &Backend, id: OperationId, caller: Caller) -> Result<Operation, ApiError> {
    let ended = backend.wait_for(|view| match view.operations.get(&id) {
        None => Some(Err(ApiError::OperationNotFound(id.to_string()))),
        Some(stored) if stored.value.is_ended() => Some(Ok(stored.value.clone())),
        Some(_) => None,
    });
    match timeout_at(caller.deadline, ended).await {
        Ok(ended) => ended?,
        Err(_) => {
            let step = backend
                .mirror
                .read(|view| view.operations.get(&id).map(|stored| stored.value.step.clone()));
            let step = step.filter(|step| !step.is_empty());
            Err(ApiError::StillUnderWay {
                operation: id,
                step: step.unwrap_or_else(|| "not begun yet".to_owned()),
            })
        }
    }
}

/// Waits until an operation is done. One that does not end well is the error of the call that waits for it.
pub(super) async fn wait_for_done(backend: &Backend, id: OperationId, caller: Caller) -> Result<Operation, ApiError> {
    let operation = wait_for_end(backend, id, caller).await?;
    match operation.state {
        OperationState::Failed(_) | OperationState::Cancelled => Err(ApiError::OperationEnded(Box::new(operation))),
        _ => Ok(operation),
    }
}
