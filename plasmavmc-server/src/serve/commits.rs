//! The store with a stop-watch: how long commits take, as whoever waits for them sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chainfire::kv::{Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Txn, TxnAnswer, WatchStream};
use tokio::time::Instant;

/// How much one commit counts in the average: one of so many.
const WEIGHT: u64 = 16;

/// How long commits took lately.
#[derive(Debug, Default)]
pub struct CommitLatency {
    average_us: AtomicU64,
}

impl CommitLatency {
    fn note(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let next = |average: u64| match average {
            0 => took_us,
            average => average - average / WEIGHT + took_us / WEIGHT,
        };
        // The closure always answers, so this cannot fail.
        let _ = self
            .average_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |average| Some(next(average)));
    }

    /// 0 until there was one.
    pub fn average_ms(&self) -> f64 {
        self.average_us.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

/// A store whose commits are timed.
#[derive(Debug)]
pub struct TimedKv {
    inner: Arc<dyn Kv>,
    latency: Arc<CommitLatency>,
}

impl TimedKv {
    pub fn new(inner: Arc<dyn Kv>, latency: Arc<CommitLatency>) -> Self {
        Self { inner, latency }
    }
}

#[async_trait]
impl Kv for TimedKv {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.inner.get(key, consistency).await
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.inner.range(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        let sent = Instant::now();
        let answer = self.inner.txn(txn).await?;
        self.latency.note(sent.elapsed());
        Ok(answer)
    }

    async fn watch(&self, prefix: Key, from: u64) -> Result<WatchStream, KvError> {
        self.inner.watch(prefix, from).await
    }
}
