//! What is kept in ChainFire: which key holds what, in which bytes, and all of it as one value.
//!
//! ```text
//!   keys     every key, written and parsed
//!   values   what is kept besides plasmavmc-types: settings, requests, tokens; any value as one type
//!   codec    the bytes of each value
//!   decided  what plasmavmc-core decided, as a transaction; what changed, as its events want it
//!   write    one transaction: what it compares, what it writes
//!   mirror   everything stored, followed live: the input of all decisions and answers
//! ```
//! Must never: write a value without comparing the revision it was decided on, guess the meaning of bytes it
//! cannot read, or hold a second truth beside the store.

pub mod codec;
mod decided;
pub mod keys;
pub mod mirror;
mod values;
pub mod write;

pub use codec::CodecError;
pub use keys::ParsedKey;
pub use mirror::{Change, Changes, ChangesError, Figures, Mirror, MirrorError, Unreadable};
pub use values::{ClusterConfig, Request, StoredValue, Token};
pub use write::{Committed, Write, WriteError};

#[cfg(test)]
pub(crate) mod samples;
