//! The messages of the public API (`proto/plasmavmc/`), compiled with protox: no protoc is needed.
//!
//! Owns: the generated types and their descriptors for reflection, and the conversions between them and
//! plasmavmc-types. They come with the issue that brings the public API; there is no code here before. The
//! messages of the store (`proto/chainfire/`) belong to the crate `chainfire`, which compiles its own.
//!
//! Must never: hold logic, reuse a field number, or give an old field a new meaning.

#![forbid(unsafe_code)]
