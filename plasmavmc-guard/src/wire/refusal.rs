//! Why an order was not carried out: what a caller may treat differently is a variant of its own.

use std::fmt;

use plasmavmc_types::Epoch;
use serde::{Deserialize, Serialize};

use super::{Held, Key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("the guard could not read the packet and closed the connection: {problem}")]
    Unreadable { problem: String },
    #[error("only uid {allowed} and root may talk to this guard, not uid {uid}")]
    NotAllowed { uid: u32, allowed: u32 },
    #[error("the guard serves {limit} clients already: close one")]
    TooManyClients { limit: usize },
    #[error("the order is invalid: {}", .problems.join("; "))]
    Invalid { problems: Vec<String> },
    #[error("VM {} is held already, by attempt {} (pid {}, {:?}): collect it after its exit", .0.key.vm, .0.key.attempt, .0.pid, .0.phase)]
    Busy(Box<Held>),
    #[error("the guard holds {limit} children and takes no more")]
    Full { limit: usize },
    #[error("the guard does not hold attempt {} of VM {}", .key.attempt, .key.vm)]
    Unknown {
        key: Key,
        /// Another attempt for the same VM, if it holds one.
        instead: Option<Box<Held>>,
    },
    #[error("VM {} still runs (pid {}): only what exited can be collected", .0.key.vm, .0.pid)]
    StillRunning(Box<Held>),
    #[error("the process could not {step}: {problem}")]
    Launch {
        step: Step,
        errno: Option<i32>,
        problem: String,
    },
    #[error("the process was not ready after {after_ms} ms and was killed")]
    LaunchTimeout { after_ms: u64 },
    #[error("the process ended before it executed the program ({problem})")]
    LaunchDied { problem: String },
    #[error("the guard cannot keep its records: {problem}")]
    Records { problem: String },
    #[error("the guard holds {children} children that run: end them, or order it to leave them running")]
    StillHolding { children: usize },
    #[error("the guard's program was not replaced and goes on: {problem}")]
    NotUpgraded { problem: String },
    #[error("the lease is of an earlier session: the guard holds one of epoch {held}")]
    StaleEpoch { held: Epoch },
    #[error("the lease has been over for {over_for_ms} ms: extend it first")]
    LeaseOver { over_for_ms: u64 },
    #[error("this guard has no lease yet: extend it first")]
    NoLease,
    #[error("the guard is replacing its program: try again")]
    Upgrading,
    #[error("the guard failed: {problem}")]
    Failed { problem: String },
}

/// What is done between a spawn order and the program's first instruction, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Start,
    ReadOrder,
    Session,
    Limits,
    OomScore,
    Cgroup,
    WorkingFolder,
    Output,
    Descriptors,
    Owner,
    DeathSignal,
    Execute,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "be started",
            Self::ReadOrder => "read its order",
            Self::Session => "open its own session",
            Self::Limits => "set its resource limits",
            Self::OomScore => "set its out-of-memory score",
            Self::Cgroup => "join its cgroup",
            Self::WorkingFolder => "enter its working folder",
            Self::Output => "open its log",
            Self::Descriptors => "place its descriptors",
            Self::Owner => "take on its user and groups",
            Self::DeathSignal => "set its parent death signal",
            Self::Execute => "execute the program",
        })
    }
}
