//! `plasmavmc.HostService`.

use plasmavmc_core::view::{Stored, revision_of};
use plasmavmc_proto::api::host_service_server::HostService;
use plasmavmc_proto::api::prepare_host_shutdown_request::Vms;
use plasmavmc_proto::api::{
    self, ActivateHostRequest, DrainHostRequest, GetHostRequest, ListHostsRequest, ListHostsResponse,
    PrepareHostShutdownRequest,
};
use plasmavmc_types::{Checks, Departure, HostMode, HostRecord, Leaving, Session};
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::error::{ApiError, ClusterError};
use super::{Api, find_host, show};
use crate::clock::wall_ms;
use crate::store::{Write, WriteError, keys};

const TRIES: u32 = 8;

pub(super) async fn list(backend: &Backend, stale: bool) -> Result<ListHostsResponse, ApiError> {
    if !stale {
        backend.catch_up().await?;
    }
    let mut hosts: Vec<api::Host> = backend.look(|view, heard| {
        let ids = view.hosts.keys();
        ids.filter_map(|id| show::host(view, heard, *id)).collect()
    });
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ListHostsResponse { hosts })
}

pub(super) async fn get(backend: &Backend, host: &str) -> Result<api::Host, ApiError> {
    backend.catch_up().await?;
    backend.look(|view, heard| {
        let id = find_host(view, host)?;
        show::host(view, heard, id).ok_or_else(|| ApiError::HostNotFound(host.to_owned()))
    })
}

/// Takes back a shutdown that was prepared, too: whoever says how a host is to be used says it of the whole host.
pub(super) async fn set_mode(backend: &Backend, host: &str, mode: HostMode) -> Result<api::Host, ApiError> {
    change(backend, host, |known| {
        let next = known.record.value.with_mode(mode);
        match known.record.value.is_witness() && mode != HostMode::Active {
            true => Err(known.is_witness()),
            false => Ok(if mode == HostMode::Active {
                next.with_departure(None)
            } else {
                next
            }),
        }
    })
    .await
}

/// For guests to power off, where nobody says how long.
const DEPARTS_WITHIN_MS: u64 = 90_000;
/// A guest needs its moment.
const LEAST_MS: u64 = 1000;
const MOST_MS: u64 = 24 * 3600 * 1000;

/// Has the VMs of a host power off, and leave it or wait for it, until it boots again.
pub(super) async fn prepare_shutdown(
    backend: &Backend,
    asked: PrepareHostShutdownRequest,
) -> Result<api::Host, ApiError> {
    let leaving = match asked.vms() {
        Vms::Unspecified | Vms::Move => Leaving::Move,
        Vms::Stay => Leaving::Stay,
    };
    let within_ms = if asked.timeout_ms == 0 {
        DEPARTS_WITHIN_MS
    } else {
        asked.timeout_ms
    };
    let mut checks = Checks::of("preparation of a shutdown");
    checks.require_range("timeout_ms", within_ms, LEAST_MS..=MOST_MS);
    checks.finish(())?;
    let host = match asked.id.as_str() {
        "" => backend.host.to_string(),
        named => named.to_owned(),
    };
    let until_ms = wall_ms().saturating_add(within_ms);
    change(backend, &host, |known| {
        let session = known.session.as_ref().filter(|session| session.value.is_open());
        // It runs no VMs, and may go at any time.
        if known.record.value.is_witness() {
            return Ok(known.record.value.clone());
        }
        let session = session.ok_or_else(|| known.is_not_here())?;
        let departure = Departure {
            instance: session.value.instance,
            leaving,
            until_ms,
        };
        Ok(known.record.value.clone().with_departure(Some(departure)))
    })
    .await
}

/// What is stored of a host that belongs to the cluster.
struct Known {
    record: Stored<HostRecord>,
    session: Option<Stored<Session>>,
}

impl Known {
    fn is_witness(&self) -> ApiError {
        let host = self.record.value.name().to_string();
        ClusterError::HostIsWitness { host }.into()
    }

    fn is_not_here(&self) -> ApiError {
        let host = self.record.value.name().to_string();
        ClusterError::HostIsNotHere { host }.into()
    }
}

/// Writes another record of a host, decided on what is stored of it.
async fn change(
    backend: &Backend,
    host: &str,
    next: impl Fn(&Known) -> Result<HostRecord, ApiError>,
) -> Result<api::Host, ApiError> {
    for _ in 0..TRIES {
        backend.catch_up().await?;
        let known = backend.mirror.read(|view| {
            let id = find_host(view, host)?;
            let known = view.hosts.get(&id);
            let record = known.and_then(|host| host.record.clone());
            Ok::<_, ApiError>(Known {
                record: record.ok_or_else(|| ApiError::HostNotFound(host.to_owned()))?,
                session: known.and_then(|host| host.session.clone()),
            })
        })?;
        let id = known.record.value.id();
        let next = next(&known)?;
        let shown = || backend.look(|view, heard| show::host(view, heard, id));
        if known.record.value == next {
            return shown().ok_or_else(|| ApiError::HostNotFound(host.to_owned()));
        }
        let write = Write::new()
            .expect(keys::host_record(id), known.record.revision)
            .expect(keys::session(id), revision_of(known.session.as_ref()))
            .put_host(&next);
        match write.commit(&*backend.kv).await {
            Ok(committed) => {
                backend.reached(committed.revision).await?;
                return shown().ok_or_else(|| ApiError::HostNotFound(host.to_owned()));
            }
            Err(WriteError::Raced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

#[tonic::async_trait]
impl HostService for Api {
    async fn list_hosts(&self, request: Request<ListHostsRequest>) -> Result<Response<ListHostsResponse>, Status> {
        Ok(Response::new(list(&self.backend()?, request.get_ref().stale).await?))
    }

    async fn get_host(&self, request: Request<GetHostRequest>) -> Result<Response<api::Host>, Status> {
        Ok(Response::new(get(&self.backend()?, &request.get_ref().id).await?))
    }

    async fn drain_host(&self, request: Request<DrainHostRequest>) -> Result<Response<api::Host>, Status> {
        let DrainHostRequest { id, maintenance } = request.into_inner();
        let mode = match maintenance {
            true => HostMode::Maintenance,
            false => HostMode::Draining,
        };
        Ok(Response::new(set_mode(&self.backend()?, &id, mode).await?))
    }

    async fn prepare_host_shutdown(
        &self,
        request: Request<PrepareHostShutdownRequest>,
    ) -> Result<Response<api::Host>, Status> {
        Ok(Response::new(
            prepare_shutdown(&self.backend()?, request.into_inner()).await?,
        ))
    }

    async fn activate_host(&self, request: Request<ActivateHostRequest>) -> Result<Response<api::Host>, Status> {
        let id = request.into_inner().id;
        Ok(Response::new(set_mode(&self.backend()?, &id, HostMode::Active).await?))
    }
}
