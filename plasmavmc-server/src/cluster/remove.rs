//! Taking a host out of the cluster: its vote first, then all that is stored of it.
//!
//! Must never: take out a host that may run a VM, or one that goes on as if it belonged here. Of a host that is silent
//! only its operator can say that it runs nothing: that it was removed is the durable form of that word.

use chainfire::service::ClusterService as MemberService;
use plasmavmc_core::view::{ClusterView, Heard, Stored};
use plasmavmc_core::visible::{self, HostState};
use plasmavmc_types::{Decision, HostId, HostRecord, Session};

use super::reach;
use crate::api::{ApiError, ClusterError, Place, find_host};
use crate::clock::wall_ms;
use crate::store::{Write, keys};

/// VMs that a refusal names.
const NAMED: usize = 5;

pub async fn remove(place: &Place, host: &str, is_dead: bool) -> Result<(), ApiError> {
    let backend = &place.backend;
    backend.catch_up().await?;
    let seen = backend.look(|view, heard| removable(view, heard, backend.host, host, is_dead))?;
    let (id, record) = (seen.record.value.id(), &seen.record.value);
    let address = record.cluster_address().map(ToString::to_string).unwrap_or_default();
    if record.is_witness()
        && !reach::answering(&place.node, std::slice::from_ref(&address))
            .await
            .is_empty()
    {
        let host = record.name().to_string();
        return Err(ClusterError::HostAlive { host }.into());
    }
    remove_member(place, &address).await?;
    let decision = Decision {
        at_ms: wall_ms(),
        kind: "remove".to_owned(),
        vm: None,
        host: Some(id),
        text: match is_dead {
            true => format!(
                "host {} was taken out: its operator says that it is off for good",
                record.name()
            ),
            false => format!("host {} was taken out", record.name()),
        },
        evidence: Vec::new(),
    };
    let decision_id = keys::decision_id(decision.at_ms, rand::random());
    // As it was when it was found dead, and not as it may be by now.
    let write = Write::new()
        .put_decision(&decision_id, &decision)
        .expect(keys::host_record(id), seen.record.revision)
        .expect_seen(keys::session(id), seen.session.as_ref())
        .delete(keys::host_record(id))
        .delete(keys::session(id))
        .delete(keys::beat(id));
    let committed = write.commit(&*backend.kv).await?;
    backend.reached(committed.revision).await?;
    tracing::info!(host = %record.name(), %id, "removed from the cluster");
    Ok(())
}

/// A host that may be taken out, as it was seen.
struct Seen {
    record: Stored<HostRecord>,
    session: Option<Stored<Session>>,
}

fn removable(view: &ClusterView, heard: &Heard, own: HostId, host: &str, is_dead: bool) -> Result<Seen, ApiError> {
    let id = find_host(view, host)?;
    let known = view.hosts.get(&id).cloned().unwrap_or_default();
    let record = known.record.ok_or_else(|| ApiError::HostNotFound(host.to_owned()))?;
    let host = record.value.name().to_string();
    if id == own {
        return Err(ClusterError::HostIsMe { host }.into());
    }
    let placed: Vec<String> = view
        .vms
        .iter()
        .filter(|(_, vm)| {
            vm.placement
                .as_ref()
                .is_some_and(|placement| placement.value.host == id)
        })
        .map(|(vm, _)| view.vm_name(*vm))
        .collect();
    let state = visible::host(view, heard, id).state;
    // Its operator's word that it is off for good is also that nothing of its VMs runs: they may go on elsewhere.
    let is_dead = is_dead && state != HostState::Alive;
    if !placed.is_empty() && !is_dead {
        let more = placed.len().saturating_sub(NAMED);
        let mut vms = placed[..placed.len().min(NAMED)].join(", ");
        if more > 0 {
            vms = format!("{vms} and {more} more");
        }
        let remedy = match state {
            HostState::Alive => "stop them and drain the host, or delete them, first",
            _ => {
                "bring the host back, so that it can say what became of them; or, if it is off and will never come \
                 back, say so (`dead`): they then start elsewhere, where their disks can be reached"
            }
        };
        return Err(ClusterError::HostHasVms { host, vms, remedy }.into());
    }
    match (state, is_dead) {
        (HostState::Alive, _) => Err(ClusterError::HostAlive { host }.into()),
        (HostState::Silent, false) => Err(ClusterError::HostSilent { host }.into()),
        _ => Ok(Seen {
            record,
            session: known.session,
        }),
    }
}

/// The member of the store at this address, if there is one.
async fn remove_member(place: &Place, address: &str) -> Result<(), ApiError> {
    use chainfire::proto::cluster_server::Cluster as _;
    let service = MemberService::new(place.node.clone());
    let refused = |status: tonic::Status| {
        let reason = status.message().to_owned();
        ApiError::from(ClusterError::Membership { reason })
    };
    let list = tonic::Request::new(chainfire::proto::MemberListRequest {});
    let members = service.member_list(list).await.map_err(refused)?.into_inner().members;
    let Some(member) = members.into_iter().find(|member| member.address == address) else {
        return Ok(());
    };
    let request = chainfire::proto::MemberRemoveRequest { member_id: member.id };
    service
        .member_remove(tonic::Request::new(request))
        .await
        .map_err(refused)?;
    Ok(())
}
