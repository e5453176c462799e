//! The messages of the public API (`proto/plasmavmc/`), compiled with protox: no protoc is needed.
//!
//! Owns: the generated types and their descriptors for reflection, and the conversions between them and
//! plasmavmc-types. The messages of the store (`proto/chainfire/`) belong to the crate `chainfire`, which
//! compiles its own.
//!
//! Must never: hold logic, reuse a field number, or give an old field a new meaning.

#![forbid(unsafe_code)]

/// The public API.
#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
pub mod api {
    tonic::include_proto!("plasmavmc");

    /// Between the servers of a cluster.
    pub mod node {
        tonic::include_proto!("plasmavmc.node");
    }

    /// What is kept in the store.
    pub mod store {
        tonic::include_proto!("plasmavmc.store");
    }
}

pub mod convert;

pub use api::{node, store};

/// All of it, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
