//! The messages of `chainfire.Kv` that are needed to look (proto/chainfire/kv.proto).
//!
//! Written out here, because this command must not depend on the store: it has no business with what a store is.

use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::reach::{Ask, LARGEST_ANSWER};

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub create_revision: u64,
    #[prost(uint64, tag = "4")]
    pub mod_revision: u64,
    #[prost(uint64, tag = "5")]
    pub version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub stale: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetResponse {
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub prefix: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub after: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub limit: u32,
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    #[prost(bool, tag = "5")]
    pub stale: bool,
    #[prost(bool, tag = "6")]
    pub keys_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

impl Ask for GetRequest {
    type Answer = GetResponse;

    fn request_id(&self) -> Option<&str> {
        None
    }

    async fn send(self, channel: Channel, within: Duration) -> Result<GetResponse, Status> {
        unary(channel, "/chainfire.Kv/Get", self, within).await
    }
}

impl Ask for RangeRequest {
    type Answer = RangeResponse;

    fn request_id(&self) -> Option<&str> {
        None
    }

    async fn send(self, channel: Channel, within: Duration) -> Result<RangeResponse, Status> {
        unary(channel, "/chainfire.Kv/Range", self, within).await
    }
}

async fn unary<Q, A>(channel: Channel, path: &'static str, message: Q, within: Duration) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(Box::new(error)))?;
    let mut request = Request::new(message);
    request.set_timeout(within);
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    Ok(client
        .unary(request, PathAndQuery::from_static(path), codec)
        .await?
        .into_inner())
}
