//! All services of a member on one port: gRPC, health, reflection (v1 and v1alpha) and, for plain HTTP,
//! `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use super::seats::{Place, Seats};
use super::{ClusterService, KvService};
use crate::node::{Node, Phase};
use crate::proto::cluster_server::ClusterServer;
use crate::proto::kv_server::KvServer;
use crate::proto::raft_server::RaftServer;
use crate::proto::{self};
use crate::raft::network::MAX_MESSAGE_BYTES;
use crate::raft::service::RaftService;
use crate::transport::{self, BindError};

/// How long calls that are under way may take after a shutdown began.
const DRAIN_DEADLINE: Duration = Duration::from_millis(1000);
/// Concurrent calls of one connection.
const CALLS_PER_CONNECTION: u32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the address cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// A listening server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens on an address and serves a node until [`stop`](Self::stop).
    pub async fn start(node: Node, listen: &str) -> Result<Self, ServerError> {
        let listener = transport::bind(listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let clients = node.options().limits.clients;
        let near = Some(node.replication().clone());
        let app = router(node, &stop).await?;
        let serving = serve_connections(listener.into_inner(), app, clients, near, stop.clone());
        let accepting = tokio::spawn(serving);
        Ok(Self {
            address,
            stop,
            accepting,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends watches, lets calls finish that are under way, and closes every connection.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic in there has been reported by its own message.
        let _ = self.accepting.await;
    }
}

async fn router(node: Node, stop: &CancellationToken) -> Result<axum::Router, ServerError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(node.clone(), health, stop.clone()));
    let reflection = |descriptors: &'static [u8]| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let kv = KvService::new(Arc::new(node.kv()), stop.clone()).into_server();
    let routes = member_routes(node.clone())
        .add_service(kv)
        .add_service(health_service)
        .add_service(reflection(proto::DESCRIPTORS).build_v1()?)
        .add_service(reflection(proto::DESCRIPTORS).build_v1alpha()?);
    Ok(routes
        .into_axum_router()
        .route("/metrics", get(move || async move { node.metrics().render() })))
}

/// What the other members of the cluster call, for a program that serves it beside its own services.
pub fn member_routes(node: Node) -> Routes {
    let raft = RaftServer::new(RaftService::new(node.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Routes::new(ClusterServer::new(ClusterService::new(node))).add_service(raft)
}

/// Healthy is a member that serves; whether there is a quorum is for the status to say.
async fn report_health(node: Node, health: tonic_health::server::HealthReporter, stop: CancellationToken) {
    let mut phase = node.phase();
    loop {
        let serving = matches!(*phase.borrow_and_update(), Phase::Serving(_));
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in ["", KV_NAME, CLUSTER_NAME] {
            health.set_service_status(name, status).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}

const KV_NAME: &str = <KvServer<KvService> as tonic::server::NamedService>::NAME;
const CLUSTER_NAME: &str = <ClusterServer<ClusterService> as tonic::server::NamedService>::NAME;

/// Serves the connections of a listener until `stop`, at most `clients` at once; then lets calls finish that are
/// under way, for a second at most. A few connections are served on `near`, the threads of replication.
pub async fn serve_connections(
    listener: TcpListener,
    app: axum::Router,
    clients: usize,
    near: Option<Handle>,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(clients));
    let seats = Seats::new(near);
    let refusal = over_limit(clients);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: let some connection end first.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = Arc::clone(&room).try_acquire_owned();
        let service = if permit.is_ok() { app.clone() } else { refusal.clone() };
        let (place, watcher) = (seats.place(), graceful.watcher());
        place.threads.clone().spawn(async move {
            if let Err(error) = serve_connection(stream, service, &place, watcher).await {
                tracing::debug!(error, "a connection ended");
            }
            drop(permit);
        });
    }
    if tokio::time::timeout(DRAIN_DEADLINE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

/// Serves one connection to its end, on the threads of its place.
async fn serve_connection(
    stream: TcpStream,
    service: axum::Router,
    place: &Place,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // It is to wake these threads, not those that accepted it.
    let stream = TcpStream::from_std(stream.into_std()?)?;
    // A connection that is slower without it still works.
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(place.calls.clone());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .keep_alive_timeout(Duration::from_secs(10));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    watcher.watch(connection.into_owned()).await
}

/// What a client meets who is one too many: an answer that says so to every call.
fn over_limit(limit: usize) -> axum::Router {
    axum::Router::new().fallback(move || async move {
        let error = crate::kv::KvError::TooMany { what: "clients", limit };
        crate::wire::status_from_error(&error).into_http::<axum::body::Body>()
    })
}
