//! The server: what joins the store, the decisions and QEMU on one host.
//!
//! ```text
//!   config     what it is told: file, environment, flags
//!   store      typed keys over ChainFire; the mirror, which is all that is stored as one value
//!   control    on the Raft leader: view -> core::plan -> transactions
//!   agent      this host: session, beats, VMs: view -> core::reconcile -> QEMU and transactions
//!   api        the public calls
//!   cluster    founding, joining, the cluster port
//!   clock      the wall clock;  chain: an error with its causes
//!   serve      what starts and stops all of it, in order
//!   program    what `main` is; failpoint: places where a program of the tests has it die
//! ```
//! Must never: decide anything about a VM outside of plasmavmc-core, or write a key without comparing the
//! revision it decided on.

#![forbid(unsafe_code)]

pub mod agent;
pub mod api;
mod chain;
mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod ending;
pub mod failpoint;
pub mod program;
mod recover;
pub mod serve;
pub mod store;

#[cfg(test)]
mod played;
