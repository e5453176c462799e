//! Taking a host in: what a member does for one that joins.
//!
//! A host may ask again with the token it has used, as long as it is the same host in the same place: the
//! answer to its first call may have been lost.

use chainfire::service::ClusterService as MemberService;
use chainfire::wire::CallKind;
use plasmavmc_core::visible::is_unconfirmed;
use plasmavmc_proto::api::{AdmitRequest, AdmitResponse};
use plasmavmc_types::{Address, Checks, HostId, HostName, HostRecord};

use super::{records, tokens};
use crate::api::{ApiError, ClusterError, Place};
use crate::store::{Write, WriteError, keys};

/// As many voters as a cluster has at most; more would only slow each write down.
const VOTERS: usize = 5;
const TRIES: u32 = 4;

pub async fn admit(place: &Place, request: &AdmitRequest) -> Result<AdmitResponse, ApiError> {
    let record = record_of(request)?;
    let backend = &place.backend;
    for _ in 0..TRIES {
        let token = tokens::present(backend, &request.token).await?;
        backend.catch_up().await?;
        // Before the look at the names: whoever takes one in between changes it.
        let settings = backend.mirror.config();
        let (known, namesake) = backend.mirror.read(|view| {
            let known = view.hosts.get(&record.id()).and_then(|host| host.record.clone());
            (known, records::namesake(view, &record).map(HostRecord::id))
        });
        if let Some(host) = namesake {
            let name = record.name().to_string();
            return Err(ClusterError::HostNameTaken { name, host }.into());
        }
        if backend.mirror.read(|view| is_unconfirmed(view, record.id())) {
            let host = record.name().to_string();
            return Err(ClusterError::HostUnconfirmed { host }.into());
        }
        let is_repeated = known
            .as_ref()
            .is_some_and(|known| known.value.with_mode(record.mode()) == record);
        if is_repeated {
            return members(place).await;
        }
        if record.is_witness() && members(place).await?.as_learner {
            return Err(ClusterError::WitnessWithoutVote { voters: VOTERS }.into());
        }
        let write = records::one_at_a_time(token.spend(Write::new())?, settings.as_ref())
            .expect_seen(keys::host_record(record.id()), known.as_ref())
            .put_host(&record);
        match write.commit(&*backend.kv).await {
            Ok(committed) => {
                backend.reached(committed.revision).await?;
                tracing::info!(host = %record.name(), id = %record.id(), version = %request.version, "admitted");
                return members(place).await;
            }
            Err(WriteError::Raced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

fn record_of(request: &AdmitRequest) -> Result<HostRecord, ApiError> {
    let mut checks = Checks::of("host that joins");
    let id = checks.take("host_id", request.host_id.parse::<HostId>());
    let name = checks.take("name", request.name.parse::<HostName>());
    let api = checks.take("api_address", request.api_address.parse::<Address>());
    let cluster = checks.take("cluster_address", request.cluster_address.parse::<Address>());
    let (Some(id), Some(name), Some(api), Some(cluster)) = (id, name, api, cluster) else {
        checks.finish(())?;
        return Err(ApiError::Internal("a field is missing without a problem".to_owned()));
    };
    let record = HostRecord::new(id, name, vec![api])?.with_cluster_address(Some(cluster));
    Ok(record.with_witness(request.witness))
}

async fn members(place: &Place) -> Result<AdmitResponse, ApiError> {
    use chainfire::proto::cluster_server::Cluster as _;
    let request = tonic::Request::new(chainfire::proto::StatusRequest {});
    let status = MemberService::new(place.node.clone())
        .status(request)
        .await
        .map_err(|status| chainfire::wire::error_from_status(&status, CallKind::Read))?
        .into_inner();
    let voters = status.members.iter().filter(|member| member.voter).count();
    Ok(AdmitResponse {
        cluster_id: status.cluster_id,
        members: status.members.into_iter().map(|member| member.address).collect(),
        as_learner: voters >= VOTERS,
    })
}
