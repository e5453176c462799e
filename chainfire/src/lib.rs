//! ChainFire: a replicated, revisioned key-value store. It stores bytes and knows nothing of VMs.
//!
//! ```text
//!   kv         the interface: what every store promises, with a conformance suite
//!   client     the interface over gRPC
//!   service    the gRPC services of a member
//!   node       a member's life: starting, healing, joining, stopping
//!   raft       replication: openraft and what it lacks
//!   log        entries and ballots on disk
//!   state      what the entries add up to: recent history in memory over rows in sled
//! ```
//!
//! What must never happen: an acknowledged write is lost or reordered by the crash of any minority, or of
//! all members; a linearizable read misses an acknowledged write; a watch skips a change.

#![deny(unsafe_code)]

mod allocator;
pub mod backup;
pub mod claim;
pub mod client;
mod codec;
pub mod descriptors;
#[cfg(feature = "faults")]
mod faults;
mod files;
pub mod kv;
pub mod log;
pub mod metrics;
pub mod node;
pub mod proto;
pub mod raft;
pub mod service;
pub mod state;
pub mod transport;
pub mod wire;
