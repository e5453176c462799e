//! Speaking QMP: one connection to one QEMU's monitor.
//!
//! The command and reply types are those of the `qapi` crate; the transport is our own, because theirs
//! dies of an unknown event, an unknown error class, or a reply that comes late. Here each of these costs
//! at most the one command it belongs to.
//!
//! ```text
//!  Qmp (any number of clones) --bounded queue--> task --> Session (pure) --> socket
//!                             <-----oneshot----- task <-- Session (pure) <-- socket
//!  Events (any number)        <----broadcast----
//! ```
//!
//! One command's life:
//!
//! ```text
//!            room in the window              its reply
//!  waiting -------------------> on the wire ------------> answered: Ok or Refused
//!     |                              |
//!     | deadline: NotSent            | deadline: NoAnswer
//!     v (certainly not done)         v (may have been done, or be done later)
//!   gone                          orphaned --its reply--> dropped, its place in the window is free
//! ```
//!
//! Must never: give a reply to a command it does not belong to, lose an event without saying so, wait
//! without a deadline, or report as failed what may have been done.
//!
//! A connection that ended stays ended. Whoever owns the VM connects again, after a look at the process:
//! a silent monitor does not make a dead QEMU.

mod connect;
mod error;
mod event;
mod fds;
mod handle;
mod message;
mod refusal;
mod schema;
mod session;
mod task;

pub use connect::{ConnectError, Connection, connect};
pub use error::{CloseReason, QmpError};
pub use event::{Event, EventTime, Events, EventsError};
pub use handle::Qmp;
pub(crate) use handle::whole_milliseconds;
pub use message::Greeting;
pub use refusal::{ErrorClass, Refusal};
pub use schema::Schema;

/// What `query-qmp-schema` and the biggest queries need, many times over; more is no QMP.
pub const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;
/// The longest command that is sent.
pub const MAX_COMMAND_BYTES: usize = 16 * 1024 * 1024;
