//! Which errors of a member are worth another attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Member, client, options};
use crate::kv::memory::MemoryKv;
use crate::kv::{
    Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Revision, Txn, TxnAnswer, WatchStream,
};

/// A store that answers its first calls as it is told, and may do what was asked nonetheless.
#[derive(Debug)]
struct Faulty {
    kv: MemoryKv,
    error: KvError,
    faults_left: AtomicUsize,
    /// Carry the write out, then answer the error.
    carried_out: bool,
    calls: AtomicUsize,
}

impl Faulty {
    fn new(error: KvError, faults: usize) -> Arc<Self> {
        Arc::new(Self {
            kv: MemoryKv::default(),
            error,
            faults_left: AtomicUsize::new(faults),
            carried_out: false,
            calls: AtomicUsize::new(0),
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn fault(&self) -> Result<(), KvError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let taken = self
            .faults_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if taken.is_ok() { Err(self.error.clone()) } else { Ok(()) }
    }
}

#[async_trait]
impl Kv for Faulty {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.fault()?;
        self.kv.get(key, consistency).await
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.fault()?;
        self.kv.range(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        if self.carried_out {
            let answer = self.kv.txn(txn).await;
            return self.fault().and(answer);
        }
        self.fault()?;
        self.kv.txn(txn).await
    }

    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        self.fault()?;
        self.kv.watch(prefix, from).await
    }
}

fn no_leader() -> KvError {
    KvError::NoLeader {
        reason: "an election is under way".into(),
    }
}

#[tokio::test]
async fn a_write_that_changed_nothing_is_repeated() {
    for error in [
        no_leader(),
        KvError::Unavailable { reason: "x".into() },
        KvError::Timeout {
            waited_ms: 1,
            reason: "x".into(),
        },
    ] {
        let faulty = Faulty::new(error.clone(), 3);
        let member = Member::start(Arc::clone(&faulty) as _);
        let client = client(&[&member]);
        assert_eq!(client.put("a".into(), "1".into()).await, Ok(1), "{error}");
        assert_eq!(faulty.calls(), 4, "{error}");
    }
}

#[tokio::test]
async fn a_write_that_may_have_changed_something_is_never_repeated() {
    let unknown = KvError::OutcomeUnknown {
        reason: "the leader was lost".into(),
    };
    for error in [
        unknown,
        KvError::Internal { reason: "x".into() },
        KvError::DiskFull { reason: "x".into() },
    ] {
        let faulty = Arc::new(Faulty {
            carried_out: true,
            ..Arc::into_inner(Faulty::new(error.clone(), 1)).expect("not shared yet")
        });
        let members = [
            Member::start(Arc::clone(&faulty) as _),
            Member::start(Arc::clone(&faulty) as _),
        ];
        let client = client(&[&members[0], &members[1]]);
        let answer = client
            .put("a".into(), "1".into())
            .await
            .expect_err("the error comes through");
        assert_eq!(
            std::mem::discriminant(&answer),
            std::mem::discriminant(&error),
            "{answer}"
        );
        assert_eq!(faulty.calls(), 1);
    }
}

#[tokio::test]
async fn an_overloaded_cluster_is_asked_once_per_member() {
    let faulty = Faulty::new(KvError::Overloaded { limit: 1 }, usize::MAX);
    let members = [
        Member::start(Arc::clone(&faulty) as _),
        Member::start(Arc::clone(&faulty) as _),
    ];
    let client = client(&[&members[0], &members[1]]);
    let error = client.put("a".into(), "1".into()).await.expect_err("overloaded");
    assert_eq!((error, faulty.calls()), (KvError::Overloaded { limit: 1 }, 2));
}

#[tokio::test]
async fn without_a_quorum_the_reason_comes_in_time() {
    let faulty = Faulty::new(no_leader(), usize::MAX);
    let member = Member::start(Arc::clone(&faulty) as _);
    let client = client(&[&member]);
    let started = Instant::now();
    assert_eq!(client.put("a".into(), "1".into()).await, Err(no_leader()));
    assert_eq!(
        client.get("a".into(), Consistency::Linearizable).await,
        Err(no_leader())
    );
    assert!(started.elapsed() < options().timeout * 3, "bounded");
    assert!(faulty.calls() > 4, "it was tried more than once");
}
