//! The host's side of a guest's channel: guest agent, plasma-agent, serial console.
//!
//! QEMU is the client (`reconnect=1`): it finds a restarted server again within a second, and the two bugs
//! of its server mode that lose a port for good are out of reach. We own the listener.
//!
//! ```text
//!                     QEMU connects
//!   listening  ----------------------->  session n
//!       ^                                    |  QEMU connects again: what the old connection still
//!       |   end of stream, or disconnect()   |  holds is read, then session n + 1 takes its place
//!       +------------------------------------+
//! ```
//!
//! **One session, and the newest wins.** QEMU holds one connection for a port, and makes another only when
//! it has given up the one before. An old session is therefore dead, even if we have not seen its end.
//!
//! **The reader always drains.** A port whose host side does not read fills up, and then the guest's writer
//! blocks. What nobody takes in time is dropped, counted, and marked where it is missing
//! ([`Incoming::Lost`]), so that a reader of frames can find its place again.
//!
//! **One writer.** Frames are written whole and in order. A frame of which nothing was written by its
//! deadline is taken back; one that was begun is finished, however late, or the stream would be torn.
//!
//! Must never: wait for a consumer, let two sessions be written to, or hold an old connection open.

mod console;
mod inbox;
mod lines;
mod outbox;
mod port;
pub(crate) mod socket;
mod task;

pub use console::{Console, Past, Watched, Watcher};
pub use inbox::Incoming;
pub use lines::LineTooLong;
pub(crate) use lines::Lines;
pub use port::{Channel, ChannelOptions, ChannelSender, ChannelState, SendError};
pub use socket::{SocketError, SocketOwner};
