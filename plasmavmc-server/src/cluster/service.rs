//! `plasmavmc.ClusterService`: the only calls a server answers that belongs to no cluster.

use std::sync::Arc;

use plasmavmc_proto::api::cluster_service_server::ClusterService as Calls;
use plasmavmc_proto::api::{
    AdmitRequest, AdmitResponse, ClusterStatus, ClusterStatusRequest, CreateTokenRequest, CreateTokenResponse,
    InitRequest, JoinRequest, RemoveHostRequest, SetTimingsRequest, SetTimingsResponse,
};
use plasmavmc_types::{Address, Invalid};
use tonic::{Request, Response, Status};

use super::enrolment::Enrolment;
use super::{admit, remove, status, timings, tokens};
use crate::api::{ApiError, Place, Seat, place_of};

/// The service. Clones share everything.
#[derive(Debug, Clone)]
pub struct ClusterService {
    enrolment: Arc<Enrolment>,
    seat: Seat,
}

impl ClusterService {
    pub fn new(enrolment: Arc<Enrolment>) -> Self {
        let seat = enrolment.seat();
        Self { enrolment, seat }
    }

    fn place(&self) -> Result<Arc<Place>, ApiError> {
        place_of(&self.seat)
    }
}

#[tonic::async_trait]
impl Calls for ClusterService {
    async fn status(&self, _: Request<ClusterStatusRequest>) -> Result<Response<ClusterStatus>, Status> {
        Ok(Response::new(status::status(&*self.place()?).await?))
    }

    async fn init(&self, _: Request<InitRequest>) -> Result<Response<ClusterStatus>, Status> {
        let place = self.enrolment.found().await?;
        Ok(Response::new(status::status(&place).await?))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<ClusterStatus>, Status> {
        let JoinRequest { via, token } = request.into_inner();
        let via = addresses(&via)?;
        let place = self.enrolment.join(via, token).await?;
        Ok(Response::new(status::status(&place).await?))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { valid_s, uses } = request.into_inner();
        let token = tokens::create(&self.place()?.backend, valid_s, uses).await?;
        Ok(Response::new(CreateTokenResponse {
            token: token.text,
            expires_at_ms: token.expires_at_ms,
        }))
    }

    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitResponse>, Status> {
        Ok(Response::new(admit::admit(&*self.place()?, request.get_ref()).await?))
    }

    async fn remove_host(&self, request: Request<RemoveHostRequest>) -> Result<Response<ClusterStatus>, Status> {
        let RemoveHostRequest { id, dead } = request.into_inner();
        let place = self.place()?;
        remove::remove(&place, &id, dead).await?;
        Ok(Response::new(status::status(&place).await?))
    }

    async fn set_timings(&self, request: Request<SetTimingsRequest>) -> Result<Response<SetTimingsResponse>, Status> {
        let place = self.place()?;
        Ok(Response::new(timings::set(&place.backend, request.get_ref()).await?))
    }
}

fn addresses(texts: &[String]) -> Result<Vec<Address>, ApiError> {
    if texts.is_empty() {
        return Err(ApiError::Field {
            field: "via".to_owned(),
            problem: "is empty: name a server of the cluster as HOST:PORT".to_owned(),
        });
    }
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        text.parse().map_err(|invalid: Invalid| ApiError::Field {
            field: format!("via[{index}]"),
            problem: invalid.to_string(),
        })
    });
    parsed.collect()
}
