//! The decisions of the cluster, and nothing but decisions.
//!
//! ```text
//!   view        what is stored, as one value: the input of everything here
//!   change      one transaction: what it compares and what it writes; the output
//!   lifecycle   what may be asked of a VM in which state
//!   visible     what a client is shown of VMs and hosts; explain says why
//!   placement   which host a VM fits on, and why not on the others
//!   boot        what a VM waits for before it starts
//!   ha          whether a VM is leased: frozen without contact, and started elsewhere
//!   liveness    which hosts are given up, and on which evidence
//!   elders      since when other member processes have listened: what tells a cold start from a loss
//!   terms       what a beat says of time, so that the timings can change
//!   restart     what follows a crash
//!   plan        what the controller does
//!   reconcile   what a host does
//!   events      changes in words
//! ```
//!
//! Must never: do I/O, read a clock, draw random numbers, start a thread, iterate in hash order, or know
//! of gRPC, Raft or QEMU. `now` is an argument. The daemon and the simulator call the same functions, and
//! the same input gives the same decision on every host. `cargo xtask tidy` checks it.

#![forbid(unsafe_code)]

pub mod boot;
pub mod change;
pub mod code;
pub mod elders;
pub mod events;
pub mod explain;
pub mod ha;
pub mod lifecycle;
pub mod liveness;
pub mod placement;
pub mod plan;
pub mod protection;
pub mod reconcile;
pub mod restart;
pub mod terms;
pub mod view;
pub mod visible;

#[cfg(test)]
mod samples;
