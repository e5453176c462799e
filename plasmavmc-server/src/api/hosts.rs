//! `plasmavmc.HostService`.

use plasmavmc_proto::api::host_service_server::HostService;
use plasmavmc_proto::api::{
    self, ActivateHostRequest, DrainHostRequest, GetHostRequest, ListHostsRequest, ListHostsResponse,
};
use plasmavmc_types::HostMode;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::error::{ApiError, ClusterError};
use super::{Api, find_host, show};
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

pub(super) async fn set_mode(backend: &Backend, host: &str, mode: HostMode) -> Result<api::Host, ApiError> {
    for _ in 0..TRIES {
        backend.catch_up().await?;
        let seen = backend.mirror.read(|view| {
            let id = find_host(view, host)?;
            let record = view.hosts.get(&id).and_then(|host| host.record.clone());
            record.ok_or_else(|| ApiError::HostNotFound(host.to_owned()))
        })?;
        let id = seen.value.id();
        if seen.value.is_witness() && mode != HostMode::Active {
            let host = seen.value.name().to_string();
            return Err(ClusterError::HostIsWitness { host }.into());
        }
        let shown = || backend.look(|view, heard| show::host(view, heard, id));
        if seen.value.mode() == mode {
            return shown().ok_or_else(|| ApiError::HostNotFound(host.to_owned()));
        }
        let write = Write::new()
            .expect(keys::host_record(id), seen.revision)
            .put_host(&seen.value.with_mode(mode));
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

    async fn activate_host(&self, request: Request<ActivateHostRequest>) -> Result<Response<api::Host>, Status> {
        let id = request.into_inner().id;
        Ok(Response::new(set_mode(&self.backend()?, &id, HostMode::Active).await?))
    }
}
