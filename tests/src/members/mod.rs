//! ChainFire members as real processes, and a client that tells "not done" from "perhaps done".
//!
//! [`Local`] runs members on loopback, [`Fleet`] on the hosts of a lab. Both use the built binary; see
//! [`binary`] for where it is looked for.

mod binary;
mod client;
mod fleet;
mod local;
mod readiness;

pub use binary::{BINARY_ENV, binary};
pub use client::{Failure, Listing, MemberClient, WatchEnd, Watching};
pub use fleet::Fleet;
pub use local::{Local, LocalMember};
pub use readiness::{Expectation, await_agreement, disagreement};

/// Environment of a member, beyond what it inherits.
pub type MemberEnv = Vec<(String, String)>;
