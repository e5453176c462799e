//! Speaking to the guest agent: qemu-ga, over a channel.
//!
//! The agent has no ids: an answer belongs to the command before it, and a guest that was slow, frozen or
//! restarted may still have answers to commands of the past in its port. So every command is preceded by a
//! `guest-sync-delimited` with a number that is used once; only after its echo is the command sent.
//!
//! ```text
//!            0xFF, sync n                     0xFF, {"return": n}
//!   idle ------------------> syncing n ------------------------------> answering ----> idle
//!    ^                          |        the command is sent              |  its line
//!    |   deadline, other end,   |                                         |
//!    |   bytes lost             v                                         v
//!    +------- NotAnswering: certainly not done      NoAnswer, Interrupted: not known
//! ```
//!
//! This costs a round trip of about a millisecond, and buys three things: no answer is ever taken for
//! another's; a command is never left in the port of a guest without an agent, to be carried out when one
//! starts; and a dead agent is told within the time of a sync, however long the command may take.
//!
//! Must never: believe an open port to be an agent, send a command unsynced, send two at a time.

mod agent;
mod command;
mod conversation;
mod error;
mod exec;
mod file;
mod owner;

pub use agent::{Agent, AgentOptions, Health};
pub use command::{FreezeState, ShutdownAnswer, ShutdownMode};
pub use error::QgaError;
pub use exec::{Captured, Exec, ExecEnd, ExecOutcome};
pub use file::FileContent;

/// The longest answer that is taken. A guest cannot make us hold more.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
