//! One watch of either store, as a plain stream of the values that were put.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use chainfire::proto as ours;
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use super::etcd;
use super::programs::Product;
use chainfire::transport::Wire;

/// How long a watch may take to be set up.
const SET_UP_DEADLINE: Duration = Duration::from_secs(10);

/// The values put under the watched prefix, in order, as they came: several may come together.
pub type Values = Pin<Box<dyn Stream<Item = Result<Vec<Bytes>>> + Send>>;

/// Watches `prefix`. Once this returns, every later change is delivered.
pub async fn watch(product: Product, wire: Wire, prefix: &'static str) -> Result<Values> {
    timeout(SET_UP_DEADLINE, async {
        match product {
            Product::ChainFire => watch_chainfire(wire, prefix).await,
            Product::Etcd => watch_etcd(wire, prefix).await,
        }
    })
    .await
    .context("setting up a watch")?
}

async fn watch_chainfire(wire: Wire, prefix: &'static str) -> Result<Values> {
    let mut kv = ours::kv_client::KvClient::new(wire);
    let request = ours::WatchRequest {
        prefix: Bytes::from_static(prefix.as_bytes()),
        from_revision: 0,
    };
    let mut responses = kv.watch(request).await?.into_inner();
    let first = responses.message().await?;
    if first.is_none_or(|response| !response.events.is_empty()) {
        bail!("a watch did not begin with a bookmark");
    }
    Ok(responses
        .map(|response| {
            let events = response?.events.into_iter();
            Ok(events.filter_map(|event| event.kv).map(|kv| kv.value).collect())
        })
        .boxed())
}

async fn watch_etcd(wire: Wire, prefix: &'static str) -> Result<Values> {
    let mut range_end = prefix.as_bytes().to_vec();
    if let Some(last) = range_end.last_mut() {
        *last += 1;
    }
    let create = etcd::WatchRequest {
        request_union: Some(etcd::watch_request::RequestUnion::CreateRequest(
            etcd::WatchCreateRequest {
                key: Bytes::from_static(prefix.as_bytes()),
                range_end: range_end.into(),
                start_revision: 0,
            },
        )),
    };
    // The end of the requests would end the watch.
    let requests = futures::stream::once(async { create }).chain(futures::stream::pending());
    let mut watch = etcd::watch_client::WatchClient::new(wire);
    let mut responses = watch.watch(requests).await?.into_inner();
    let first = responses.message().await?;
    if !first.is_some_and(|response| response.created && !response.canceled) {
        bail!("a watch was not created");
    }
    Ok(responses
        .map(|response| {
            let response = response?;
            if response.canceled {
                bail!("a watch was cancelled: {}", response.cancel_reason);
            }
            let events = response.events.into_iter();
            Ok(events.filter_map(|event| event.kv).map(|kv| kv.value).collect())
        })
        .boxed())
}
