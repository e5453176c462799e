//! What `proto/chainfire/*.proto` compiles to, and its descriptors for reflection.

#![allow(clippy::all, reason = "generated code")]

tonic::include_proto!("chainfire");

/// The descriptors that the reflection service answers with.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
