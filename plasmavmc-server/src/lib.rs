//! The daemon of a host: where the other crates meet.
//!
//! Owns: configuration, the public API, the controller (on the Raft leader), the agent of this host, and
//! the typed keys of the store. Embeds a ChainFire member. They come with the issue that brings the first
//! VM; there is no code here before.
//!
//! Must never: decide (plasmavmc-core does), act on a decision that is not committed, write a record
//! without the revision it was decided on, or stop a guest by stopping itself.

#![forbid(unsafe_code)]
