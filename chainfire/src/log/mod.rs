//! The durable log: entries, ballots and positions of one member, on one disk.
//!
//! It exists to make one promise: what was acknowledged is there after any crash, in order and unaltered, or
//! the member refuses to start. Never may it open a log that is shorter than what was acknowledged, answer
//! with an entry that was not written, or let anybody outside see what is not synced.
//!
//! ```text
//! openraft ── store ── writer ──────▶ thread of the log beneath: writev, fdatasync
//!   ▲                    ▲                                  │
//!   │                    └──────── next flush ─── flush ◀───┘
//!   └──── acknowledged ────────────────────────────┘ │
//!                                                    └──▶ watermark
//! ```
//!
//! The log beneath (`raft-log`) is safe under conditions, which these modules keep:
//! - `payload`: no damaged byte may look like the torn end that it silently drops;
//! - `watermark`: a log cut at its end opens without complaint, so its end is remembered elsewhere;
//! - `open`: nothing is promised before all that was read is synced (again, if need be);
//! - `writer`: the first error ends all writing; what is acknowledged is in the watermark first;
//! - `ahead`: what a leader hands on before its own sync is applied and called committed only after it;
//! - chunks are small, because the newest is held in memory as a whole.
//!
//! Two things it does not promise. A truncation that is the very last record may come undone with it: the
//! entries that return were never taken back towards anyone, since the leader hears only of what is appended
//! after. And the last position known as committed is a hint, written with the next append.

mod ahead;
mod error;
mod faults;
mod flush;
mod folder;
mod open;
mod payload;
mod store;
mod watermark;
mod writer;

pub use ahead::SyncGate;
pub use error::{FailureKind, LogFailure, OpenError, Rollback};
pub use folder::FORMAT_VERSION;
pub use open::LogOptions;
pub use payload::MAX_ENTRY_BYTES;
pub use store::LogStore;
pub use writer::SyncObserver;
