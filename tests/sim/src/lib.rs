//! The cluster in virtual time: the decisions that ship, on a store, hosts and QEMUs that are played.
//!
//! ```text
//!   setup       hosts, VMs, delays and faults of one life, from a seed or from a file
//!   store       what Raft promises, and no more: one sequence of commits, leaders that come and go
//!   host        a host: clock, server, guard, QEMUs that cannot lie
//!   agent       the rim of the daemon on a host: beats, looks, writes, work
//!   world       the queue of what happens, and what carries it: messages, elections, the controller
//!   outside     faults and clients
//!   check       what must be so after every step
//!   breaks      rules taken away one at a time, to prove that the checker can fail
//!   run         many seeds on all cores
//!   scenario    one life written down, with the log that is expected of it
//! ```
//! What decides is [`plasmavmc_core::plan`], [`plasmavmc_core::reconcile`], the compares of
//! [`plasmavmc_core::change::Change`] and the rule of the deadman. Everything else is a model of what the daemon does
//! with them, and is worse than reality wherever it can be: late, lost, reordered.
//!
//! Must never: read a clock, iterate in hash order, or draw a number that is not of the seed: a seed replays exactly.

#![forbid(unsafe_code)]

pub mod agent;
pub mod breaks;
pub mod check;
pub mod host;
pub mod ids;
pub mod log;
pub mod outside;
pub mod rng;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod setup;
pub mod store;
pub mod world;
