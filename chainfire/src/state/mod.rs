//! The applied state of a member: what the committed entries of the log add up to.
//!
//! ```text
//!  entry ──apply──► window (memory)                    reads, pages, snapshots: window over base
//!                   every version and change after     watches: the window's changes
//!                   the floor
//!                      │ flush, oldest first, whole entries
//!                      ▼
//!                   base (sled, and an index of it in memory)
//!                   one row per key, as of the floor, with the log id it stands for
//! ```
//!
//! - Applying touches memory only; flushing is batched, off the path of a write, and coalesces the
//!   writes of a busy key into one.
//! - History is bounded by the window. After a restart the log is replayed from the floor, so that the
//!   same history is there again and watches resume.
//! - A put reads nothing that is stored: what it has to know of the row before is in memory for every key.
//! - A scan of the base is not a snapshot, but the base is only ever changed by the flusher, in steps that
//!   the window covers: a reader that consults the window first, at a revision not below the floor, sees
//!   exactly one revision.
//!
//! What must never happen: a base that is ahead of, or between, entries; an answer from a base whose
//! rows do not add up to its digest; the log being cut beyond the last synced snapshot file, since
//! sled's writes are not synced and the base may have to be rebuilt.

mod apply;
mod base;
mod boundary;
mod machine;
mod open;
mod persist;
mod read;
mod row;
mod snapshot;
mod watch;
mod window;

pub use apply::Answer;
#[cfg(test)]
pub use boundary::Boundary;
pub use machine::{StateMachine, encode_commands};
pub use open::{LogExtent, OpenReport, Opened, StateError, StateOptions, open};
pub use persist::FlushLimits;
pub use read::{Applied, Pinned, State};
pub use row::{Digest, Head, Row};
pub use snapshot::{SnapshotError, SnapshotFile, SnapshotReader, SnapshotStore, write_file as write_snapshot_file};

/// The features that this version can apply. A cluster raises its own level once every member has it.
pub const FEATURE_LEVEL: u32 = 1;
