//! Whole clusters on this machine: real servers, real guards, real QEMUs, and clients of the public API.
//!
//! ```text
//!   Cluster ── Site          one folder; whatever happens, nothing that runs in it outlives the test
//!      │
//!      ├── Node h1           a plasmavmc-server on 127.A.B.1, its --dir, its log
//!      ├── Node h2 ...       on 127.A.B.2: addresses of one cluster are no other's
//!      └── Client            the public API of one node, every call with a deadline
//! ```
//! Tests know of servers what operators know: the API, processes, and files that are documented. Nothing here
//! sleeps for a fixed time: [`until`] looks for a condition up to a deadline.

mod client;
pub mod comeback;
mod failpoints;
mod fleet;
pub mod ha;
mod lab;
mod node;
mod programs;
pub mod race;
mod site;
mod specs;
mod wait;

pub use client::{Client, code_and_reason, describe, has_ended};
pub use failpoints::{
    ENV as FAILPOINT_ENV, Failpoints, OF_GUESTS as PLACES_OF_GUESTS, Report as FailpointReport, Together,
    run as run_failpoints,
};
pub use fleet::{Cluster, with_cluster};
pub use lab::HostedCluster;
pub use node::Node;
pub use programs::{Programs, SERVER_ENV};
pub use site::Site;
pub use specs::{bare, micro};
pub use wait::{measured, until};
