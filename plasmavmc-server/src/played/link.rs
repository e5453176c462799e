//! The way to a store, on which calls get lost.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use chainfire::kv::memory::MemoryKv;
use chainfire::kv::{Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Txn, TxnAnswer, WatchStream};
use futures::StreamExt;
use parking_lot::Mutex;

/// What becomes of a transaction.
#[derive(Debug, Clone)]
pub enum Fault {
    Refused(KvError),
    /// It is carried out, and the answer gets lost.
    AnswerLost,
    /// It gets lost, and nobody knows.
    Lost,
    /// Somebody else's transaction comes first.
    After(Txn),
}

#[derive(Debug)]
pub struct Link {
    store: Arc<MemoryKv>,
    faults: Mutex<VecDeque<Fault>>,
    /// Everything is answered with this.
    down: Mutex<Option<KvError>>,
    /// Goes up when it breaks: watches end.
    breaks: tokio::sync::watch::Sender<u64>,
}

impl Link {
    pub fn to(store: Arc<MemoryKv>) -> Self {
        Self {
            store,
            faults: Mutex::default(),
            down: Mutex::default(),
            breaks: tokio::sync::watch::Sender::new(0),
        }
    }

    /// Ends what is being watched.
    pub fn breaks(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// For the next transaction that has none yet.
    pub fn next(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }

    pub fn set_down(&self, error: Option<KvError>) {
        *self.down.lock() = error;
    }

    fn reach(&self) -> Result<(), KvError> {
        self.down.lock().clone().map_or(Ok(()), Err)
    }
}

fn unknown() -> KvError {
    let reason = "the link broke".to_owned();
    KvError::OutcomeUnknown { reason }
}

#[async_trait]
impl Kv for Link {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.reach()?;
        self.store.get(key, consistency).await
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.reach()?;
        self.store.range(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        self.reach()?;
        let fault = self.faults.lock().pop_front();
        match fault {
            None => self.store.txn(txn).await,
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::AnswerLost) => {
                self.store.txn(txn).await?;
                Err(unknown())
            }
            Some(Fault::Lost) => Err(unknown()),
            Some(Fault::After(other)) => {
                self.store.txn(other).await?;
                self.store.txn(txn).await
            }
        }
    }

    async fn watch(&self, prefix: Key, from: u64) -> Result<WatchStream, KvError> {
        self.reach()?;
        let mut breaks = self.breaks.subscribe();
        let batches = self.store.watch(prefix, from).await?;
        let broken = async move { drop(breaks.changed().await) };
        Ok(batches.take_until(broken).boxed())
    }
}
