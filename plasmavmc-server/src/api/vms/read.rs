//! GetVm, ListVms, ExplainVm.

use std::ops::Bound;

use plasmavmc_core::{explain, placement};
use plasmavmc_proto::api;
use plasmavmc_types::VmNumber;
use prost::Message;

use crate::api::backend::Backend;
use crate::api::error::ApiError;
use crate::api::show::{self, Showing};
use crate::api::{find_host, find_vm};
use crate::clock::wall_ms;

/// VMs of one page.
const PAGE: u32 = 1000;
/// Bytes of one page: clients take 4 MiB by default.
const PAGE_BYTES: usize = 3 << 20;
/// Decisions and operations that an explanation shows.
const EXPLAINED: usize = 20;

pub async fn get(backend: &Backend, request: api::GetVmRequest) -> Result<api::Vm, ApiError> {
    if !request.stale {
        backend.catch_up().await?;
    }
    backend.look(|view, heard| {
        let id = find_vm(view, &request.id)?;
        let vm = Showing::new(view, heard).vm(id);
        vm.ok_or(ApiError::VmNotFound(request.id))
    })
}

pub async fn list(backend: &Backend, request: api::ListVmsRequest) -> Result<api::ListVmsResponse, ApiError> {
    let after = match request.page_token.as_str() {
        "" => Bound::Unbounded,
        token => Bound::Excluded(number_of(token)?),
    };
    for (index, state) in request.states.iter().enumerate() {
        if api::vm::State::try_from(*state).is_err() {
            return Err(ApiError::Field {
                field: format!("states[{index}]"),
                problem: format!("is {state}, which is no state of a VM"),
            });
        }
    }
    if !request.stale {
        backend.catch_up().await?;
    }
    let size = match request.page_size {
        0 => PAGE,
        size => size.min(PAGE),
    };
    backend.look(|view, heard| {
        let host = match request.host.as_str() {
            "" => None,
            host => Some(find_host(view, host)?),
        };
        let showing = Showing::new(view, heard);
        let mut answer = api::ListVmsResponse {
            revision: view.revision,
            ..Default::default()
        };
        let mut bytes = 0;
        let mut last = None;
        for (number, id) in view.numbers.range((after, Bound::Unbounded)) {
            let placed = view.vms.get(id).and_then(|vm| vm.placement.as_ref());
            if host.is_some() && placed.map(|placement| placement.value.host) != host {
                continue;
            }
            let Some(vm) = showing.vm(*id) else {
                continue;
            };
            if !request.states.is_empty() && !request.states.contains(&vm.state) {
                continue;
            }
            bytes += vm.encoded_len();
            let is_full = answer.vms.len() >= usize::try_from(size).unwrap_or(usize::MAX);
            if let Some(last) = last
                && (is_full || bytes > PAGE_BYTES)
            {
                answer.next_page_token = token_of(last);
                break;
            }
            answer.vms.push(vm);
            last = Some(*number);
        }
        Ok(answer)
    })
}

fn token_of(number: VmNumber) -> String {
    format!("vmid-{}", number.get())
}

fn number_of(token: &str) -> Result<VmNumber, ApiError> {
    let number = token.strip_prefix("vmid-").and_then(|number| number.parse().ok());
    let number = number.and_then(|number| VmNumber::new(number).ok());
    number.ok_or_else(|| ApiError::Field {
        field: "page_token".to_owned(),
        problem: "is not one this server gave out: begin without one".to_owned(),
    })
}

pub async fn explain(backend: &Backend, request: api::ExplainVmRequest) -> Result<api::ExplainVmResponse, ApiError> {
    backend.catch_up().await?;
    let voters = *backend.voters.borrow();
    backend.look(|view, heard| {
        let id = find_vm(view, &request.id)?;
        let decisions = view.decisions.values().rev();
        let decisions = decisions.filter(|decision| decision.value.vm == Some(id));
        let verdicts = placement::verdicts(view, heard, id);
        let mut operations: Vec<_> = view
            .operations
            .values()
            .map(|operation| &operation.value)
            .filter(|operation| operation.vm == id)
            .collect();
        operations.sort_by_key(|operation| std::cmp::Reverse((operation.created_at_ms, operation.id)));
        Ok(api::ExplainVmResponse {
            vm: Showing::new(view, heard).vm(id),
            summary: explain::summary(view, heard, id, voters, wall_ms()),
            decisions: decisions.take(EXPLAINED).map(show::decision).collect(),
            hosts: verdicts
                .into_iter()
                .map(|verdict| api::HostVerdict {
                    fits: verdict.fits(),
                    host: verdict.host_name,
                    reasons: verdict.reasons,
                    score: verdict.score,
                })
                .collect(),
            operations: operations
                .into_iter()
                .take(EXPLAINED)
                .map(|operation| show::operation(view, operation))
                .collect(),
        })
    })
}
