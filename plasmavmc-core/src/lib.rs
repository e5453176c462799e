//! The decisions of the cluster, and nothing but decisions.
//!
//! Owns: placement, liveness, `plan` (what the controller does), `reconcile` (what a host does), the
//! rules of the life cycle, and the checker of the invariants.
//!
//! Must never: do I/O, read a clock, draw random numbers, start a thread, iterate in hash order, or know
//! of gRPC, Raft or QEMU. `now` is an argument. The daemon and the simulator call the same functions, and
//! the same input gives the same decision on every host. `cargo xtask tidy` checks it.

#![forbid(unsafe_code)]

pub mod view;
