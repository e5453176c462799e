//! What changed between two revisions, from the store's own history: for streams that resume.
//!
//! Must never: skip a change. What the store no longer keeps is an error, not a gap.

use std::collections::BTreeMap;
use std::time::Duration;

use chainfire::kv::{EventKind, Key, KvError, RangeQuery, Value};
use futures::StreamExt;

use super::backend::Backend;
use super::error::ApiError;
use crate::store::{Change, StoredValue, codec, keys};

/// How long the store may take to tell it.
const WITHIN: Duration = Duration::from_secs(10);

/// Every change after revision `from`, up to and with `upto`, in order.
pub async fn between(backend: &Backend, from: u64, upto: u64) -> Result<Vec<Change>, ApiError> {
    if from > upto {
        return Err(ApiError::RevisionAhead {
            asked: from,
            current: upto,
        });
    }
    if from == upto {
        return Ok(Vec::new());
    }
    let told = tokio::time::timeout(WITHIN, told(backend, from, upto));
    told.await.map_err(|_| ApiError::Behind(WITHIN))?
}

async fn told(backend: &Backend, from: u64, upto: u64) -> Result<Vec<Change>, ApiError> {
    let gone = |error: KvError| match error {
        KvError::Compacted { .. } | KvError::SlowWatcher { .. } => ApiError::RevisionGone { asked: from },
        error => error.into(),
    };
    // The watch first: what it can begin with stays.
    let mut batches = backend.kv.watch(Key::new(), from + 1).await.map_err(gone)?;
    let mut known = listed(backend, from).await.map_err(gone)?;
    let mut changes = Vec::new();
    let mut next = from + 1;
    while next <= upto {
        let Some(batch) = batches.next().await else {
            return Err(ApiError::Stopping);
        };
        let batch = batch.map_err(gone)?;
        for event in batch.events.into_iter().filter(|event| event.kv.mod_revision <= upto) {
            changes.extend(change(&mut known, event));
        }
        next = batch.next_revision;
    }
    Ok(changes)
}

/// All keys at a revision.
async fn listed(backend: &Backend, revision: u64) -> Result<BTreeMap<Key, Value>, KvError> {
    let mut known = BTreeMap::new();
    if revision == 0 {
        return Ok(known);
    }
    let mut query = Some(RangeQuery {
        revision,
        ..RangeQuery::prefix(keys::ALL)
    });
    while let Some(page_query) = query {
        let page = backend.kv.range(page_query.clone()).await?;
        query = page_query.next_page(&page);
        known.extend(page.kvs.into_iter().map(|kv| (kv.key, kv.value)));
    }
    Ok(known)
}

/// The change of a key of ours.
fn change(known: &mut BTreeMap<Key, Value>, event: chainfire::kv::Event) -> Option<Change> {
    let key = keys::parse(&event.kv.key)?;
    let revision = event.kv.mod_revision;
    let decode = |value: &Value| -> Option<StoredValue> { codec::decode(&key, value).ok() };
    let (before, after) = match event.kind {
        EventKind::Put => {
            let after = event.kv.value.clone();
            (known.insert(event.kv.key, event.kv.value), Some(after))
        }
        EventKind::Delete => (known.remove(&event.kv.key), None),
    };
    let is_there = after.is_some();
    let (before, after) = (before.as_ref().and_then(decode), after.as_ref().and_then(decode));
    let is_unreadable = is_there && after.is_none();
    Some(Change {
        revision,
        key,
        before,
        after,
        is_unreadable,
    })
}
