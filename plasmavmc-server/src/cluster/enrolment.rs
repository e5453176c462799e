//! From a server that belongs to no cluster to one that does, in the same process.
//!
//! ```text
//!            Init                     Join (token)
//!   outside ------> founding         ------> asking a member ---> taking a place
//!                      |                                               |
//!                      +--> settings and own record written            +--> own record seen
//!                      |                                               |
//!                      +-----------------> inside <--------------------+
//! ```
//! Must never: do two of these at once, or leave one half done because its caller went away.

use std::sync::Arc;
use std::time::Duration;

use chainfire::node::Start;
use plasmavmc_proto::api::cluster_service_client::ClusterServiceClient;
use plasmavmc_proto::api::{AdmitRequest, AdmitResponse};
use plasmavmc_types::{Address, HostRecord};
use tokio::sync::{Mutex, watch};
use tonic::Code;

use super::records::{self, Refreshed};
use crate::api::{ApiError, ClusterError, Place, Seat, Standing};
use crate::chain::chain;
use crate::config::Beginning;
use crate::serve::{PlaceError, Running, Starter};

/// How long a member may take to admit this host.
const ADMIT_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take until this server knows what the cluster knows.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a cluster without a quorum.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The way in, and what runs once it was taken.
#[derive(Debug)]
pub struct Enrolment {
    starter: Starter,
    /// Where clients reach this server.
    api: Address,
    seat: watch::Sender<Standing>,
    running: Mutex<Option<Running>>,
}

impl Enrolment {
    pub fn new(starter: Starter, api: Address) -> Self {
        let is_told = starter.config.beginning != Beginning::Wait;
        let standing = match is_told || takes_part(&starter) {
            true => Standing::Starting,
            false => Standing::Outside,
        };
        Self {
            starter,
            api,
            seat: watch::Sender::new(standing),
            running: Mutex::new(None),
        }
    }

    /// This server's place, now and later.
    pub fn seat(&self) -> Seat {
        self.seat.subscribe()
    }

    /// Whether this host took a place in a cluster, now or before.
    pub fn is_member(&self) -> bool {
        takes_part(&self.starter)
    }

    fn own_record(&self) -> Result<HostRecord, ApiError> {
        let Starter { identity, config, .. } = &self.starter;
        Ok(records::own_record(identity, config, &self.api)?)
    }

    /// Goes on as the member that this host is.
    pub async fn resume(self: &Arc<Self>) -> Result<(), PlaceError> {
        let mut running = self.running.lock().await;
        let joined = self.starter.join(Start::Resume).await?;
        let leadership = joined.leadership.clone();
        let started = self.starter.run(joined).await?;
        let place = Arc::clone(&started.place);
        self.seat.send_replace(Standing::Inside(Arc::clone(&place)));
        *running = Some(started);
        let this = Arc::clone(self);
        let stop = place.backend.stop.clone();
        // Without a quorum nothing can be written yet, and this server is of use all the same.
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = this.refresh_record(&place, leadership) => {}
            }
        });
        Ok(())
    }

    /// Founds a cluster of this host.
    pub async fn found(self: &Arc<Self>) -> Result<Arc<Place>, ApiError> {
        let this = Arc::clone(self);
        // A task of its own: it goes on when the caller does not wait.
        let founding = tokio::spawn(async move { this.found_now().await });
        founding.await.map_err(|error| ApiError::Internal(error.to_string()))?
    }

    /// Whoever calls meanwhile is told to call again.
    async fn on_the_way<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        self.seat.send_replace(Standing::Starting);
        let done = work.await;
        if done.is_err() {
            self.seat.send_if_modified(|seat| {
                let is_nowhere = matches!(seat, Standing::Starting);
                if is_nowhere {
                    *seat = Standing::Outside;
                }
                is_nowhere
            });
        }
        done
    }

    async fn found_now(&self) -> Result<Arc<Place>, ApiError> {
        let mut running = self.running.try_lock().map_err(|_| ClusterError::UnderWay)?;
        self.refuse_member(running.as_ref())?;
        if self.starter.identity.witness {
            return Err(ClusterError::WitnessFounds.into());
        }
        self.on_the_way(self.found_as(&mut running)).await
    }

    async fn found_as(&self, running: &mut Option<Running>) -> Result<Arc<Place>, ApiError> {
        let record = self.own_record()?;
        let joined = self.starter.join(Start::Found).await.map_err(cannot_found)?;
        if let Err(error) = records::found(&*joined.kv, joined.leadership.clone(), &record).await {
            joined.abandon().await;
            return Err(error);
        }
        let started = self.starter.run(joined).await.map_err(cannot_found)?;
        let place = self.settle(started, running).await?;
        tracing::info!(host = %record.name(), "founded a cluster");
        Ok(place)
    }

    /// Joins the cluster of these servers.
    pub async fn join(self: &Arc<Self>, via: Vec<Address>, token: String) -> Result<Arc<Place>, ApiError> {
        let this = Arc::clone(self);
        let joining = tokio::spawn(async move { this.join_now(&via, &token).await });
        joining.await.map_err(|error| ApiError::Internal(error.to_string()))?
    }

    async fn join_now(&self, via: &[Address], token: &str) -> Result<Arc<Place>, ApiError> {
        let mut running = self.running.try_lock().map_err(|_| ClusterError::UnderWay)?;
        self.refuse_member(running.as_ref())?;
        self.on_the_way(self.join_as(&mut running, via, token)).await
    }

    async fn join_as(
        &self,
        running: &mut Option<Running>,
        via: &[Address],
        token: &str,
    ) -> Result<Arc<Place>, ApiError> {
        let admitted = self.ask(via, token).await?;
        let start = Start::Join {
            via: admitted.members,
            as_learner: admitted.as_learner,
        };
        let cannot_join = |error: PlaceError| ClusterError::CannotJoin { reason: chain(&error) };
        let joined = self.starter.join(start).await.map_err(cannot_join)?;
        let started = self.starter.run(joined).await.map_err(cannot_join)?;
        let place = self.settle(started, running).await?;
        tracing::info!(cluster = %admitted.cluster_id, "joined a cluster");
        Ok(place)
    }

    fn refuse_member(&self, running: Option<&Running>) -> Result<(), ApiError> {
        if running.is_none() && !self.is_member() {
            return Ok(());
        }
        let node = running.map(|running| &running.place.node);
        let cluster = node.and_then(|node| Some(node.member().ok()?.cluster_id().to_owned()));
        let cluster = cluster.unwrap_or_else(|| "it does not run yet".to_owned());
        Err(ClusterError::AlreadyMember(cluster).into())
    }

    /// Asks one member after the other to admit this host.
    async fn ask(&self, via: &[Address], token: &str) -> Result<AdmitResponse, ApiError> {
        let identity = &self.starter.identity;
        let request = AdmitRequest {
            token: token.to_owned(),
            host_id: identity.host_id.to_string(),
            name: identity.name.to_string(),
            api_address: self.api.to_string(),
            cluster_address: self.starter.config.cluster_advertise.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            witness: identity.witness,
        };
        let mut reasons = Vec::new();
        for address in via {
            match ask_one(address, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    reasons.push(format!("{address}: {}", status.message()));
                    // No other member would answer differently.
                    if is_refusal(status.code()) {
                        break;
                    }
                }
            }
        }
        let reason = reasons.join("; ");
        Err(ClusterError::CannotJoin { reason }.into())
    }

    /// Waits until this server knows of itself what the cluster knows, and takes its seat.
    async fn settle(&self, started: Running, running: &mut Option<Running>) -> Result<Arc<Place>, ApiError> {
        let place = Arc::clone(&started.place);
        let host = place.backend.host;
        let known = place
            .backend
            .wait_for(|view| view.hosts.get(&host)?.record.as_ref().map(drop));
        let settled = matches!(tokio::time::timeout(SETTLE_WITHIN, known).await, Ok(Ok(())));
        self.seat.send_replace(Standing::Inside(Arc::clone(&place)));
        *running = Some(started);
        if settled {
            return Ok(place);
        }
        Err(ApiError::Behind(SETTLE_WITHIN))
    }

    /// Repairs what a start left undone, as soon as the cluster can write.
    async fn refresh_record(&self, place: &Place, leadership: watch::Receiver<bool>) {
        loop {
            match self.try_refresh(place, &leadership).await {
                Ok(Refreshed::AsItWas) => return,
                Ok(Refreshed::Changed) => {
                    tracing::info!("the cluster knows this host's addresses and name anew");
                    return;
                }
                Ok(Refreshed::Removed) => {
                    tracing::error!(
                        "this host was removed from its cluster: to let it join again, start it with an empty folder"
                    );
                    return;
                }
                Err(error) => tracing::debug!(%error, "this host's record is not refreshed yet"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn try_refresh(&self, place: &Place, leadership: &watch::Receiver<bool>) -> Result<Refreshed, ApiError> {
        let (kv, record) = (&*place.backend.kv, self.own_record()?);
        place.backend.catch_up().await?;
        if place.backend.mirror.config().is_none() {
            // Killed in the middle of founding it.
            records::found(kv, leadership.clone(), &record).await?;
        }
        let settings = place.backend.mirror.config();
        let namesake = place
            .backend
            .mirror
            .read(|view| records::namesake(view, &record).map(HostRecord::id));
        if let Some(host) = namesake {
            tracing::error!(%host, name = %record.name(), "another host has this name already: give this one another");
            return Ok(Refreshed::AsItWas);
        }
        records::refresh(kv, &record, settings.as_ref()).await
    }

    /// Ends what runs.
    pub async fn stop(&self) {
        let running = self.running.lock().await.take();
        self.seat.send_replace(Standing::Leaving);
        if let Some(running) = running {
            running.stop().await;
        }
    }
}

fn takes_part(starter: &Starter) -> bool {
    starter.config.folders.is_member()
}

async fn ask_one(address: &Address, request: AdmitRequest) -> Result<AdmitResponse, tonic::Status> {
    let channel = chainfire::transport::connect(address.as_str(), &Default::default())
        .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
    let mut request = tonic::Request::new(request);
    request.set_timeout(ADMIT_WITHIN);
    let mut member = ClusterServiceClient::new(channel);
    match tokio::time::timeout(ADMIT_WITHIN, member.admit(request)).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!(
            "no answer within {} s",
            ADMIT_WITHIN.as_secs()
        ))),
    }
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied | Code::InvalidArgument | Code::AlreadyExists
    )
}

fn cannot_found(error: PlaceError) -> ApiError {
    let reason = chain(&error);
    ClusterError::CannotFound { reason }.into()
}
