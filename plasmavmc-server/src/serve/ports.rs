//! The client port: every public service, gRPC-web, health, reflection and `/metrics`.

use std::sync::Arc;

use async_trait::async_trait;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use chainfire::kv::{Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Txn, TxnAnswer, WatchStream};
use chainfire::service::KvService;
use plasmavmc_proto::api::cluster_service_server::ClusterServiceServer;
use plasmavmc_proto::api::event_service_server::EventServiceServer;
use plasmavmc_proto::api::host_service_server::HostServiceServer;
use plasmavmc_proto::api::operation_service_server::OperationServiceServer;
use plasmavmc_proto::api::vm_service_server::VmServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::ServiceExt as _;

use super::calls::{self, Calls};
use crate::api::{Api, Seat, place_of};
use crate::cluster::ClusterService;

/// What a client may send at once.
const LARGEST_REQUEST: usize = 4 << 20;

/// What the port is made of.
pub struct ClientPort {
    pub cluster: ClusterService,
    pub calls: Calls,
    pub store_metrics: Arc<chainfire::metrics::Metrics>,
    pub stop: CancellationToken,
}

const NAMES: [&str; 6] = [
    <VmServiceServer<Api> as NamedService>::NAME,
    <HostServiceServer<Api> as NamedService>::NAME,
    <OperationServiceServer<Api> as NamedService>::NAME,
    <EventServiceServer<Api> as NamedService>::NAME,
    <ClusterServiceServer<ClusterService> as NamedService>::NAME,
    "chainfire.Kv",
];

impl ClientPort {
    pub fn router(self) -> Result<axum::Router, tonic_reflection::server::Error> {
        let Self {
            cluster,
            calls,
            store_metrics,
            stop,
        } = self;
        let api = Api::new(calls.seat.clone());
        let (health, health_service) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(health, calls.seat.clone(), stop.clone()));
        let kv = Arc::new(SeatKv {
            seat: calls.seat.clone(),
        });
        let routes = Routes::new(VmServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
            .add_service(HostServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
            .add_service(OperationServiceServer::new(api.clone()).max_decoding_message_size(LARGEST_REQUEST))
            .add_service(EventServiceServer::new(api).max_decoding_message_size(LARGEST_REQUEST))
            .add_service(ClusterServiceServer::new(cluster).max_decoding_message_size(LARGEST_REQUEST))
            .add_service(KvService::new(kv, stop).into_server())
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        // Over everything, the layer would answer plain HTTP with an error.
        let grpc = tower::ServiceBuilder::new()
            .map_response(|response: http::Response<_>| response.map(axum::body::Body::new))
            .layer(GrpcWebLayer::new())
            .service(routes.map_request(|request: http::Request<tonic::body::Body>| request));
        let grpc = axum::Router::new()
            .fallback_service(grpc)
            .layer(from_fn_with_state(calls.clone(), calls::around));
        Ok(axum::Router::new()
            .route("/metrics", get(calls::metrics).with_state((calls, store_metrics)))
            .fallback_service(grpc))
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(plasmavmc_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(chainfire::proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // What errors carry: with it grpcurl shows reasons instead of bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    // Only what is served on this port: servers call each other on another.
    NAMES
        .into_iter()
        .fold(builder, tonic_reflection::server::Builder::with_service_name)
}

/// A server without a cluster is healthy: it waits to be told. Only the other services are not there yet.
async fn report_health(health: HealthReporter, mut seat: Seat, stop: CancellationToken) {
    loop {
        let is_inside = seat.borrow_and_update().place().is_ok();
        for name in NAMES {
            let serves = is_inside || name == NAMES[4];
            let status = match serves {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            health.set_service_status(name, status).await;
        }
        health.set_service_status("", ServingStatus::Serving).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = seat.changed() => if changed.is_err() { return },
        }
    }
}

/// The store through this server's place, once it has one.
#[derive(Debug)]
struct SeatKv {
    seat: Seat,
}

impl SeatKv {
    fn kv(&self) -> Result<Arc<dyn Kv>, KvError> {
        let place = place_of(&self.seat);
        place
            .map(|place| Arc::clone(&place.backend.kv))
            .map_err(|error| KvError::Unavailable {
                reason: error.to_string(),
            })
    }
}

#[async_trait]
impl Kv for SeatKv {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.kv()?.get(key, consistency).await
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.kv()?.range(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        self.kv()?.txn(txn).await
    }

    async fn watch(&self, prefix: Key, from: u64) -> Result<WatchStream, KvError> {
        self.kv()?.watch(prefix, from).await
    }
}
