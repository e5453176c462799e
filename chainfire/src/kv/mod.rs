//! The key-value interface: what a store promises, whoever implements it.
//!
//! Three things implement [`Kv`]: `MemoryKv` (tests and simulation), the Raft store
//! inside a member, and [`Client` over gRPC. One [`conformance`] suite runs
//! against all of them, so that code written against the trait cannot tell them apart.
//!
//! Promises:
//! - Every transaction that changes something makes exactly one revision; revisions go up by one.
//! - A transaction is atomic and sees the effects of its own earlier operations.
//! - A linearizable read sees every write acknowledged before it was sent.
//! - Pages of one range show one revision.
//! - A watch delivers every change under its prefix in order, once; what it cannot deliver ends it with
//!   an error that names the reason. It never skips.

pub mod conformance;
mod error;
mod limits;
pub mod memory;
mod model;

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use error::KvError;
pub use limits::Limits;
pub use model::{
    Compare, CompareTarget, Consistency, Event, EventKind, GetAnswer, Key, KeyValue, Op, OpResult, RangeAnswer,
    RangeQuery, Relation, Revision, Txn, TxnAnswer, Value, WatchBatch, prefix_end,
};

/// The changes of one watch, in order. Ends with an error, or with `None` when the store shuts down.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, KvError>>;

/// A revisioned key-value store.
#[async_trait]
pub trait Kv: Send + Sync + fmt::Debug + 'static {
    /// Reads one key.
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError>;

    /// Reads the keys under a prefix, a page at a time.
    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError>;

    /// Runs a transaction. An [`KvError::OutcomeUnknown`] may or may not have been carried out; every
    /// other error means that nothing was changed.
    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError>;

    /// Streams the changes under `prefix`, from revision `from` on (0: from the next change on). The
    /// first item is a bookmark without events that says where the watch begins.
    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError>;

    /// Writes one key and answers the revision.
    async fn put(&self, key: Key, value: Value) -> Result<Revision, KvError> {
        Ok(self.txn(Txn::put(key, value)).await?.revision)
    }

    /// Deletes one key and answers the revision and whether it was there.
    async fn delete(&self, key: Key) -> Result<(Revision, bool), KvError> {
        let answer = self.txn(Txn::delete(key)).await?;
        Ok((answer.revision, answer.touched() > 0))
    }
}
