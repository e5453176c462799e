//! What is done with machines: each piece of work is one task with a deadline, and its end is told to the loop.
//!
//! Must never: decide. What is to be done was decided before, on what is stored and what is here.

use std::sync::Arc;
use std::time::Duration;

use plasmavmc_core::reconcile::{LaunchFailure, LaunchFailureKind, Outcome};
use plasmavmc_guard::wire::Refusal;
use plasmavmc_kvm::adopt::Inheritance;
use plasmavmc_kvm::image::ImageError;
use plasmavmc_kvm::machine::{Machine, MachineError, launch};
use plasmavmc_kvm::refused::Reason;
use plasmavmc_kvm::runtime::RuntimeError;
use plasmavmc_types::{AgentHealth, AttemptId, Incarnation, VmId, VmSpec};
use tokio::sync::Semaphore;

use super::observe::end_of;
use crate::agent::claims::ClaimError;
use crate::agent::prepare::{StartError, Workshop};
use crate::chain::chain;
use crate::failpoint;
use crate::store::WriteError;

/// For what a VM needs before its QEMU is started: making its disks takes longest. QEMU itself has deadlines of its
/// own, and the wait for other launches, which all end, counts for nothing.
const READY_WITHIN: Duration = Duration::from_secs(120);
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
        result: Result<Machine, Failed>,
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
    /// The guard holds it still.
    Frozen { vm: VmId, attempt: AttemptId },
    /// It was frozen or thawed, or was not.
    Held {
        vm: VmId,
        number: u64,
        result: Result<(), String>,
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

/// A launch that came to nothing.
#[derive(Debug)]
pub struct Failed {
    pub failure: LaunchFailure,
    /// Something is in the VM's folder that nobody could end, or that was there before.
    pub is_left: bool,
}

/// Starts a VM whose guest does not execute yet.
pub async fn start(
    workshop: Arc<Workshop>,
    room: Arc<Semaphore>,
    (vm, attempt, leased): (VmId, AttemptId, Option<Incarnation>),
    spec: VmSpec,
) -> Result<Machine, Failed> {
    let started = async {
        // It is never closed.
        let _room = room.acquire().await.ok();
        let ready = tokio::time::timeout(READY_WITHIN, workshop.plan(vm, attempt, leased, &spec)).await;
        let plan = ready.map_err(|_| StartError::NotReady { within: READY_WITHIN })??;
        let launched = failpoint::LAUNCH.around(launch(&workshop.kvm, plan)).await;
        launched.map_err(StartError::from)
    };
    let error: StartError = match started.await {
        Ok(machine) => return Ok(machine),
        Err(error) => error,
    };
    let failure = LaunchFailure {
        attempt,
        kind: kind_of(&error),
        text: text_of(&error),
    };
    tracing::warn!(%vm, %attempt, kind = ?failure.kind, "it was not started: {}", failure.text);
    let folder = workshop.kvm.vms.join(vm.to_string());
    // What cannot be looked at counts as there.
    let is_left = tokio::fs::try_exists(folder).await.unwrap_or(true);
    Err(Failed { failure, is_left })
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
        // An image that it stands on, most often.
        StartError::Image(ImageError::Failed { complaint, .. }) => complaint.contains(LOCK_WORDS),
        // The word that it was placed elsewhere is on its way.
        StartError::Claim(error) => matches!(error, ClaimError::Superseded { .. }),
        // The next beat brings another one.
        StartError::Machine(MachineError::Keeper(error)) => {
            matches!(error.refusal(), Some(Refusal::LeaseOver { .. } | Refusal::NoLease))
        }
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
