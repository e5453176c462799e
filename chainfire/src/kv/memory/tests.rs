use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;

use super::MemoryKv;
use crate::kv::conformance::{Compactable, Subject, differential};
use crate::kv::{Kv, KvError, Limits, Revision};

#[async_trait]
impl Compactable for MemoryKv {
    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        MemoryKv::compact(self, revision)
    }
}

async fn start(limits: Limits) -> Subject {
    let kv = Arc::new(MemoryKv::new(limits));
    Subject::new(Arc::clone(&kv) as _, limits).with_compaction(kv)
}

crate::kv_conformance!(start);
crate::kv_compaction_conformance!(start);

#[test]
fn two_of_a_kind_do_not_differ() {
    differential(64, start, start);
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_dropped_and_delivers_what_came_before() {
    let kv = MemoryKv::default();
    let mut watch = kv.watch("".into(), 0).await.expect("a watch");
    let revision = kv.put("a".into(), "1".into()).await.expect("a put");
    drop(kv);
    assert_eq!(watch.next().await.expect("the bookmark").expect("no error").events, []);
    let batch = watch.next().await.expect("the change").expect("no error");
    assert_eq!(batch.events[0].kv.mod_revision, revision);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_needs_what_was_forgotten_is_told_so() {
    let kv = MemoryKv::default();
    let mut watch = kv.watch("".into(), 0).await.expect("a watch");
    for value in ["1", "2", "3"] {
        kv.put("a".into(), value.into()).await.expect("a put");
    }
    kv.compact(2).expect("a compaction");
    watch.next().await.expect("the bookmark").expect("no error");
    let expected = KvError::SlowWatcher {
        needed: 1,
        compacted: 2,
    };
    assert_eq!(watch.next().await, Some(Err(expected)));
    assert!(watch.next().await.is_none());
}

#[test]
fn the_future_cannot_be_forgotten() {
    let expected = KvError::FutureRevision { asked: 1, current: 0 };
    assert_eq!(MemoryKv::default().compact(1), Err(expected));
}
