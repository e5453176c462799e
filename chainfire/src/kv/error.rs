//! Everything that can go wrong with a call, in words for the person who made it.

use super::Revision;

/// Why a call was not answered. Except for [`KvError::OutcomeUnknown`], nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("a key must have at least one byte")]
    EmptyKey,
    #[error("the key has {bytes} bytes; at most {limit} are allowed")]
    KeyTooLong { bytes: usize, limit: usize },
    #[error(
        "the value of {bytes} bytes is too large; at most {limit} are allowed: keep big data outside and store where it is"
    )]
    ValueTooLarge { bytes: usize, limit: usize },
    #[error("the transaction has {ops} operations and compares; at most {limit} are allowed: split it")]
    TxnTooManyOps { ops: usize, limit: usize },
    #[error("the transaction has {bytes} bytes; at most {limit} are allowed: split it")]
    TxnTooLarge { bytes: usize, limit: usize },
    #[error("a page of {asked} keys is too large; at most {limit} are allowed: ask for pages")]
    PageTooLarge { asked: usize, limit: usize },
    #[error("the continuation key is not under the prefix")]
    AfterOutsidePrefix,
    #[error(
        "revision {asked} is compacted: this member keeps history after revision {compacted}; read again without a revision"
    )]
    Compacted { asked: Revision, compacted: Revision },
    #[error("revision {asked} does not exist yet; the store is at {current}")]
    FutureRevision { asked: Revision, current: Revision },
    #[error(
        "the watch fell behind: it needs revision {needed}, history begins after {compacted}; list again and watch from there"
    )]
    SlowWatcher { needed: Revision, compacted: Revision },
    #[error("too many {what}: the limit is {limit}; try another member or raise the limit")]
    TooMany { what: &'static str, limit: usize },
    #[error("the queue of writes is full ({limit} waiting); slow down and try again")]
    Overloaded { limit: usize },
    #[error("no quorum: {reason}")]
    NoLeader { reason: String },
    #[error("not answered within {waited_ms} ms: {reason}; nothing was changed")]
    Timeout { waited_ms: u64, reason: String },
    #[error("the outcome is unknown: {reason}; read before you try again")]
    OutcomeUnknown { reason: String },
    #[error("the disk of this member is full: {reason}; make room, service resumes by itself")]
    DiskFull { reason: String },
    #[error("this member does not serve: {reason}")]
    Unavailable { reason: String },
    #[error("the request is malformed: {reason}")]
    Malformed { reason: String },
    #[error("internal error: {reason}")]
    Internal { reason: String },
}

impl KvError {
    /// Whether the same call may succeed on another member or a little later, without having been
    /// carried out already.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            KvError::NoLeader { .. }
                | KvError::Timeout { .. }
                | KvError::Unavailable { .. }
                | KvError::Overloaded { .. }
                | KvError::TooMany { .. }
        )
    }
}
