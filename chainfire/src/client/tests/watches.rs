//! Watches that resume, and those that cannot.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{Member, client};
use crate::kv::memory::MemoryKv;
use crate::kv::{Kv, KvError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_the_death_of_every_member_in_turn() {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
    let mut members: Vec<Member> = (0..3).map(|_| Member::start(Arc::clone(&kv))).collect();
    let client = client(&members.iter().collect::<Vec<_>>());
    let mut watch = client.watch("a".into(), 0).await.expect("a watch");
    let (rounds, writes) = (6, 50);
    let mut seen = Vec::new();
    for round in 0..rounds {
        for _ in 0..writes {
            kv.put("a".into(), "x".into()).await.expect("a put");
        }
        // Some of it is on its way when the member dies.
        while seen.len() < round * writes + writes / 2 {
            let batch = watch.next().await.expect("the watch goes on").expect("a batch");
            seen.extend(batch.events.iter().map(|event| event.kv.mod_revision));
        }
        let victim = &mut members[round % 3];
        victim.kill();
        *victim = Member::start_at(&victim.address.clone(), Arc::clone(&kv));
    }
    while seen.len() < rounds * writes {
        let batch = watch.next().await.expect("the watch goes on").expect("a batch");
        seen.extend(batch.events.iter().map(|event| event.kv.mod_revision));
    }
    assert!(
        seen.into_iter().eq(1..=(rounds * writes) as u64),
        "every change once, in order"
    );
}

#[tokio::test]
async fn a_watch_that_fell_behind_ends_with_the_reason() {
    let kv = Arc::new(MemoryKv::default());
    let member = Member::start(Arc::clone(&kv) as _);
    let client = client(&[&member]);
    let mut watch = client.watch("".into(), 0).await.expect("a watch");
    // More than the buffers on the way hold.
    for _ in 0..400 {
        let value = vec![b'x'; 256 * 1024];
        kv.put("a".into(), value.into()).await.expect("a put");
    }
    kv.compact(400).expect("a compaction");
    let mut next = 1;
    let error = loop {
        match watch.next().await.expect("an end with a reason") {
            Ok(batch) => {
                for event in batch.events {
                    assert_eq!(event.kv.mod_revision, next);
                    next += 1;
                }
            }
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, KvError::SlowWatcher { compacted: 400, .. }),
        "{error:?}"
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_cannot_resume_says_why() {
    let kv = Arc::new(MemoryKv::default());
    let mut member = Member::start(Arc::clone(&kv) as _);
    let client = client(&[&member]);
    let mut watch = client.watch("a".into(), 0).await.expect("a watch");
    watch.next().await.expect("the bookmark").expect("no error");
    member.kill();
    for _ in 0..3 {
        kv.put("a".into(), "x".into()).await.expect("a put");
    }
    kv.compact(3).expect("a compaction");
    let _again = Member::start_at(&member.address.clone(), Arc::clone(&kv) as _);
    let expected = KvError::Compacted { asked: 1, compacted: 3 };
    assert_eq!(watch.next().await, Some(Err(expected)));
}

#[tokio::test]
async fn a_member_with_open_watches_shuts_down_in_time() {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
    let mut member = Member::start(Arc::clone(&kv));
    let client = client(&[&member]);
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = client.watch("a".into(), 0).await.expect("a watch");
        watch.next().await.expect("the bookmark").expect("no error");
        watches.push(watch);
    }
    member.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(2), &mut member.finished).await;
    ended.expect("in time").expect("well");
}
