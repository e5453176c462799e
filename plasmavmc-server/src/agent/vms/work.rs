//! What is done with machines: each piece of work is one task with a deadline, and its end is told to the loop.
//!
//! Must never: decide. What is to be done was decided before, on what is stored and what is here.

use std::sync::Arc;
use std::time::Duration;

use plasmavmc_core::reconcile::{LaunchFailure, LaunchFailureKind, Outcome};
use plasmavmc_kvm::adopt::Inheritance;
use plasmavmc_kvm::machine::{Machine, MachineError, launch};
use plasmavmc_kvm::refused::Reason;
use plasmavmc_kvm::runtime::RuntimeError;
use plasmavmc_types::{AgentHealth, AttemptId, VmId, VmSpec};
use tokio::sync::Semaphore;

use super::observe::end_of;
use crate::agent::beat::chain;
use crate::agent::prepare::{StartError, Workshop};
use crate::failpoint;
use crate::store::WriteError;

/// A launch waits for the ones before it; each of those has a deadline.
const LAUNCH_WITHIN: Duration = Duration::from_secs(120);
/// What QEMU says when somebody else has the disk.
const LOCK_WORDS: &str = "Failed to get";

/// What the loop is told.
#[derive(Debug)]
pub enum News {
    Wrote {
        vm: VmId,
        number: u64,
        result: Result<u64, WriteError>,
    },
    Launched {
        vm: VmId,
        number: u64,
        result: Result<Machine, LaunchFailure>,
    },
    /// A machine was let loose or killed, or was not.
    Acted {
        vm: VmId,
        number: u64,
        result: Result<(), String>,
    },
    /// An order came to its end; without an outcome the view says how.
    Ordered {
        vm: VmId,
        number: u64,
        outcome: Option<Outcome>,
    },
    /// What could not be taken over was looked at again.
    LookedAgain { vm: VmId, number: u64, found: Inheritance },
    /// The machine is not what it was.
    Changed { vm: VmId, attempt: AttemptId },
    Agent {
        vm: VmId,
        attempt: AttemptId,
        health: AgentHealth,
    },
}

/// Starts a VM whose guest does not execute yet. Nothing is left behind if this fails.
pub async fn start(
    workshop: Arc<Workshop>,
    room: Arc<Semaphore>,
    vm: VmId,
    attempt: AttemptId,
    spec: VmSpec,
) -> Result<Machine, LaunchFailure> {
    let started = async {
        // It is never closed.
        let _room = room.acquire().await.ok();
        let plan = workshop.plan(vm, attempt, &spec).await?;
        let launched = failpoint::LAUNCH.around(launch(&workshop.kvm, plan)).await;
        launched.map_err(StartError::from)
    };
    started.await.map_err(|error: StartError| {
        let failure = LaunchFailure {
            attempt,
            kind: kind_of(&error),
            text: text_of(&error),
        };
        tracing::warn!(%vm, %attempt, kind = ?failure.kind, "it was not started: {}", failure.text);
        failure
    })
}

fn kind_of(error: &StartError) -> LaunchFailureKind {
    let is_locked = match error {
        StartError::Refused(refusals) => refusals
            .iter()
            .all(|refused| matches!(refused.reason, Reason::InUse { .. } | Reason::StorageHangs { .. })),
        StartError::Machine(MachineError::EndedAtStart { said } | MachineError::Monitor { said, .. }) => {
            said.contains(LOCK_WORDS) && said.contains("lock")
        }
        StartError::Machine(MachineError::Runtime(RuntimeError::Locked { .. })) => true,
        _ => false,
    };
    match (is_locked, error.is_final()) {
        (true, _) => LaunchFailureKind::Waits,
        (false, true) => LaunchFailureKind::Refused,
        (false, false) => LaunchFailureKind::Broke,
    }
}

fn text_of(error: &StartError) -> String {
    match error {
        StartError::Machine(MachineError::EndedAtStart { said }) => {
            format!("QEMU ended before its guest was started; it said: {}", end_of(said))
        }
        error => chain(error),
    }
}

/// Lets the guest execute for the first time.
pub async fn let_loose(machine: Machine) -> Result<(), String> {
    failpoint::CONT
        .around(machine.cont())
        .await
        .map_err(|error| chain(&error))
}

/// Pulls the plug. That it is gone already is as good.
pub async fn kill(machine: Machine) -> Result<(), String> {
    match failpoint::KILL.around(machine.kill()).await {
        Err(_) if machine.state().borrow().phase.is_gone() => Ok(()),
        killed => killed.map_err(|error| chain(&error)),
    }
}

/// A launch that takes longer is given up: what is left of it is found as any other machine is.
pub async fn start_in_time(
    attempt: AttemptId,
    start: impl Future<Output = Result<Machine, LaunchFailure>>,
) -> Result<Machine, LaunchFailure> {
    let late = |_| LaunchFailure {
        attempt,
        kind: LaunchFailureKind::Broke,
        text: format!("the start was not done within {} s", LAUNCH_WITHIN.as_secs()),
    };
    tokio::time::timeout(LAUNCH_WITHIN, start).await.map_err(late)?
}
