//! What is kept in the store, one message for each kind of value.

mod host;
mod operation;
mod vm;

#[cfg(test)]
mod tests;

pub use host::{read_beat, write_beat};
pub use vm::{read_pointer, write_pointer};
