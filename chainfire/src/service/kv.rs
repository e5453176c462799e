//! `chainfire.Kv` over any [`Kv`].
//!
//! It translates and nothing else: limits, consistency and deadlines are the store's. A watch has no queue
//! here: the transport pulls from the store's stream as fast as the client reads, so a slow client is the
//! store's to notice. When the member shuts down, watches end with UNAVAILABLE, so that their clients
//! resume elsewhere; without that an open watch would hold up the shutdown for ever.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::kv::{Consistency, Key, Kv, KvError, Op, RangeQuery, Txn};
use crate::proto;
use crate::proto::kv_server::KvServer;
use crate::wire::{MAX_REQUEST_BYTES, status_from_error};

/// The service. Clones share the store.
#[derive(Debug, Clone)]
pub struct KvService {
    kv: Arc<dyn Kv>,
    shutdown: CancellationToken,
}

impl KvService {
    /// Serves `kv`; watches end when `shutdown` is cancelled.
    pub fn new(kv: Arc<dyn Kv>, shutdown: CancellationToken) -> Self {
        Self { kv, shutdown }
    }

    /// The service with its message sizes set, to add to a server.
    pub fn into_server(self) -> KvServer<Self> {
        KvServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            // What the store answers is bounded by the store, in keys and bytes of a page.
            .max_encoding_message_size(usize::MAX)
    }
}

fn refuse(error: KvError) -> Status {
    status_from_error(&error)
}

#[tonic::async_trait]
impl proto::kv_server::Kv for KvService {
    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::GetResponse>, Status> {
        let (key, consistency): (Key, Consistency) = request.into_inner().into();
        let answer = self.kv.get(key, consistency).await.map_err(refuse)?;
        Ok(Response::new(answer.into()))
    }

    async fn range(&self, request: Request<proto::RangeRequest>) -> Result<Response<proto::RangeResponse>, Status> {
        let query = RangeQuery::from(request.into_inner());
        let answer = self.kv.range(query).await.map_err(refuse)?;
        Ok(Response::new(answer.into()))
    }

    async fn put(&self, request: Request<proto::PutRequest>) -> Result<Response<proto::PutResponse>, Status> {
        let request = request.into_inner();
        let revision = self.kv.put(request.key, request.value).await.map_err(refuse)?;
        Ok(Response::new(proto::PutResponse { revision }))
    }

    async fn delete(&self, request: Request<proto::DeleteRequest>) -> Result<Response<proto::DeleteResponse>, Status> {
        let txn = Txn::default().then(Op::from(request.into_inner()));
        let answer = self.kv.txn(txn).await.map_err(refuse)?;
        Ok(Response::new(proto::DeleteResponse {
            revision: answer.revision,
            deleted: answer.touched(),
        }))
    }

    async fn txn(&self, request: Request<proto::TxnRequest>) -> Result<Response<proto::TxnResponse>, Status> {
        let txn = Txn::try_from(request.into_inner()).map_err(refuse)?;
        let answer = self.kv.txn(txn).await.map_err(refuse)?;
        Ok(Response::new(answer.into()))
    }

    type WatchStream = BoxStream<'static, Result<proto::WatchResponse, Status>>;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let proto::WatchRequest { prefix, from_revision } = request.into_inner();
        let batches = self.kv.watch(prefix, from_revision).await.map_err(refuse)?;
        let goodbye = stream::once(async {
            Err(refuse(KvError::Unavailable {
                reason: "it is shutting down".to_owned(),
            }))
        });
        let responses = batches
            .map(|batch| batch.map(Into::into).map_err(refuse))
            .take_until(self.shutdown.clone().cancelled_owned())
            .chain(goodbye);
        Ok(Response::new(responses.boxed()))
    }
}
