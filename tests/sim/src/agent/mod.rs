//! The rim of a host, as the daemon has it: what it sends, waits for, and does.
//!
//! ```text
//!   heart   the session and the beats
//!   life    servers that start, catch up and take over
//!   look    the situation, and what is decided on it
//!   acts    decisions carried out, and what came of them
//!   work    what is done with QEMUs
//!   thaw    the two proofs
//! ```
//! Must never: decide; know what this host has not been told.

mod acts;
mod heart;
mod life;
mod look;
mod thaw;
mod work;
