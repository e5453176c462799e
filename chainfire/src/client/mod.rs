//! A store that is elsewhere: [`Kv`] over gRPC, on any member of a cluster.
//!
//! Every call has a deadline. A call goes to the member that answered last and moves on when that one does
//! not serve. Reads are repeated until the deadline; a write is repeated only when the error says that
//! nothing was changed, and is otherwise answered with [`KvError::OutcomeUnknown`]. It must never be
//! repeated on a guess: the caller would write twice.

mod attempts;
mod cluster;
mod endpoints;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;

use crate::kv::{
    Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Revision, Txn, TxnAnswer, Value, WatchStream,
};
use crate::proto;
use crate::proto::kv_client::KvClient;
use crate::transport::{AddressError, ConnectOptions};
use crate::wire::{CallKind, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, get_request};

use endpoints::Endpoints;

pub use cluster::{BackupStream, ClusterError};

/// How patient a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// For a whole call, with all its attempts.
    pub timeout: Duration,
    /// For one attempt of a read, before another member is asked.
    pub read_attempt_timeout: Duration,
    /// How long a watch tries to resume before it ends with the error it met.
    pub resume_timeout: Duration,
    pub connect: ConnectOptions,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            read_attempt_timeout: Duration::from_secs(2),
            resume_timeout: Duration::from_secs(60),
            connect: ConnectOptions::default(),
        }
    }
}

/// A client of one cluster. Clones share its connections, one to each member.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoints: Endpoints,
    options: ClientOptions,
}

impl Client {
    /// A client of the members at these addresses; connects when it is used. Must be called inside a
    /// runtime.
    pub fn new<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: ClientOptions,
    ) -> Result<Self, AddressError> {
        let endpoints = Endpoints::new(addresses, &options.connect)?;
        Ok(Self {
            inner: Arc::new(Inner { endpoints, options }),
        })
    }

    /// The addresses it was made with, in their order.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.inner.endpoints.addresses()
    }
}

fn kv_client(channel: tonic::transport::Channel) -> KvClient<tonic::transport::Channel> {
    KvClient::new(channel)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
}

/// A member would not even read it, and could not say why.
fn check_request_size(request: &impl Message) -> Result<(), KvError> {
    let bytes = request.encoded_len();
    if bytes > MAX_REQUEST_BYTES {
        return Err(KvError::TxnTooLarge {
            bytes,
            limit: MAX_REQUEST_BYTES,
        });
    }
    Ok(())
}

#[async_trait]
impl Kv for Client {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        let request = get_request(key, consistency);
        check_request_size(&request)?;
        let response = self
            .call(CallKind::Read, |channel| {
                let request = request.clone();
                async move { kv_client(channel).get(request).await }
            })
            .await?;
        Ok(response.into())
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        let request = proto::RangeRequest::from(query);
        check_request_size(&request)?;
        let response = self
            .call(CallKind::Read, |channel| {
                let request = request.clone();
                async move { kv_client(channel).range(request).await }
            })
            .await?;
        Ok(response.into())
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        let request = proto::TxnRequest::from(txn);
        check_request_size(&request)?;
        let response = self
            .call(CallKind::Write, |channel| {
                let request = request.clone();
                async move { kv_client(channel).txn(request).await }
            })
            .await?;
        // It was carried out, whatever the answer was meant to say.
        TxnAnswer::try_from(response).map_err(|error| KvError::OutcomeUnknown {
            reason: format!("the answer is not understood: {error}"),
        })
    }

    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        watch::open(self.clone(), prefix, from).await
    }

    async fn put(&self, key: Key, value: Value) -> Result<Revision, KvError> {
        let request = proto::PutRequest { key, value };
        check_request_size(&request)?;
        let response = self
            .call(CallKind::Write, |channel| {
                let request = request.clone();
                async move { kv_client(channel).put(request).await }
            })
            .await?;
        Ok(response.revision)
    }
}

#[cfg(test)]
mod tests;
