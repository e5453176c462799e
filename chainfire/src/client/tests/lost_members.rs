//! Members that die, are not there, or say nothing.

use std::sync::Arc;

use futures::StreamExt;
use tokio::time::Instant;

use super::{Member, client, client_of, options};
use crate::client::MAX_REQUEST_BYTES;
use crate::kv::memory::MemoryKv;
use crate::kv::{Consistency, Kv, KvError};
use crate::transport;

#[tokio::test]
async fn the_next_member_answers_when_one_is_gone() {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
    let mut members = [Member::start(Arc::clone(&kv)), Member::start(Arc::clone(&kv))];
    let client = client(&[&members[0], &members[1]]);
    client.put("a".into(), "1".into()).await.expect("a put");
    members[0].kill();
    // A connection that was already open may swallow one write: its outcome is unknown, never retried.
    let second = client.put("a".into(), "2".into()).await;
    assert!(
        matches!(second, Ok(2) | Err(KvError::OutcomeUnknown { .. })),
        "{second:?}"
    );
    client.put("a".into(), "3".into()).await.expect("a put");
    let answer = client.get("a".into(), Consistency::Linearizable).await.expect("a get");
    assert_eq!(answer.kv.expect("the row").value, "3");
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_changed_and_the_address_is_named() {
    let mut member = Member::start(Arc::new(MemoryKv::default()));
    let address = member.address.clone();
    member.kill();
    let client = client_of([address.as_str()]);
    let error = client.put("a".into(), "1".into()).await.expect_err("nobody listens");
    assert!(matches!(error, KvError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

/// Accepts connections and never says a word.
async fn silent_member() -> (String, tokio::task::JoinHandle<()>) {
    let listener = transport::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let mut incoming = listener.into_incoming();
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(Ok(connection)) = incoming.next().await {
            open.push(connection);
        }
    });
    (address, accepting)
}

#[tokio::test]
async fn a_silent_member_delays_a_read_and_leaves_a_write_unknown() {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
    kv.put("a".into(), "1".into()).await.expect("a put");
    let member = Member::start(Arc::clone(&kv));
    let (silent, _accepting) = silent_member().await;
    let started = Instant::now();
    let reading = client_of([silent.as_str(), member.address.as_str()]);
    let answer = reading
        .get("a".into(), Consistency::Linearizable)
        .await
        .expect("the other answers");
    assert_eq!(answer.kv.expect("the row").value, "1");
    assert!(
        started.elapsed() < options().timeout,
        "before the deadline of the whole call"
    );
    let writing = client_of([silent.as_str(), member.address.as_str()]);
    let error = writing.put("a".into(), "2".into()).await.expect_err("no answer");
    assert!(matches!(error, KvError::OutcomeUnknown { .. }), "{error:?}");
    let answer = kv.get("a".into(), Consistency::Linearizable).await.expect("a get");
    assert_eq!(answer.kv.expect("the row").value, "1", "it was not sent a second time");
}

#[tokio::test]
async fn a_request_that_no_member_would_read_is_not_sent() {
    let member = Member::start(Arc::new(MemoryKv::default()));
    let client = client(&[&member]);
    let huge = vec![0; MAX_REQUEST_BYTES];
    let error = client.put("a".into(), huge.into()).await.expect_err("too large");
    assert!(matches!(error, KvError::TxnTooLarge { .. }), "{error:?}");
}
