//! The life of a machine as one pure table: what it is, what may be asked of it, and what follows from what
//! is seen.
//!
//! ```text
//!             cont            pause, I/O error, panic, watchdog
//!  prepared --------> running --------------------------------> paused
//!                     |  |  ^ <--------------------------------   |
//!                     |  |  |     resume; reset, if not asked for |
//!                     |  |  +-- reset and cont -- rebooting <-----|--- (asked: the guest powers off first)
//!         (asked) stop|  |
//!                     v  | the guest powers itself off
//!               stopping |
//!                     |  |
//!                     v  v
//!                 powered off ---- quit ----+
//!                                           v
//!  any ------- the process ends ---------> gone
//!  any but gone <--- the monitor --------> unreachable
//! ```
//! `gone` is final and comes only from the end of the process itself. A monitor that does not answer never
//! makes a machine gone.

use plasmavmc_guard::wire::ExitReason;
use plasmavmc_types::{PauseCause, QemuRunState, VmState};
use serde::{Deserialize, Serialize};

/// What a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its process runs; its guest has not executed yet.
    Prepared,
    Running,
    Paused(PauseCause),
    /// A graceful stop is under way.
    Stopping,
    /// A reboot is under way: its guest powers off, and is then started anew in the same process.
    Rebooting,
    /// Its guest has powered off. The process still holds the locks of the disks.
    PoweredOff(PoweredOffBy),
    /// It was told to end at once.
    Ending,
    /// Its process lives, its monitor does not answer.
    Unreachable,
    Gone(Cause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoweredOffBy {
    Guest,
    /// We asked it to.
    Request,
}

/// Why a process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest powered off because it was asked to.
    Stopped,
    /// It was told to end at once.
    Killed,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// A signal that we did not send.
    Signal { signal: i32 },
    /// It ended by itself.
    Exited { code: i32 },
    /// Nobody is left who could know.
    Unknown,
}

/// What may be asked of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Let the guest execute for the first time.
    Cont,
    Stop,
    Reboot,
    Reset,
    Pause,
    Resume,
    /// Plug or unplug a device, or resize a disk.
    Devices,
    /// Take a picture of the screen.
    Screenshot,
    /// End the process of a guest that has powered off.
    Finish,
    Kill,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Action::Cont => "starting the guest",
            Action::Stop => "a graceful stop",
            Action::Reboot => "a graceful reboot",
            Action::Reset => "a reset",
            Action::Pause => "a pause",
            Action::Resume => "a resume",
            Action::Devices => "a change of devices",
            Action::Screenshot => "a screenshot",
            Action::Finish => "ending QEMU",
            Action::Kill => "a kill",
        })
    }
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// QEMU says what it does.
    Reported(QemuRunState),
    Began(Action),
    /// An action came to its end, well or not; QEMU was at this then.
    Ended(Action, QemuRunState),
    MonitorLost,
    ProcessEnded(ExitReason),
}

/// An action that makes no sense now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    #[error("it is gone")]
    Gone,
    #[error("its guest executes already")]
    Started,
    #[error("its guest has not been started yet")]
    NotStarted,
    #[error("it is paused, so its guest can take no part: resume it first, or use force")]
    Paused,
    #[error("it is not paused")]
    NotPaused,
    #[error("its guest's kernel has panicked and cannot go on: reset or kill it")]
    Panicked,
    #[error("QEMU met an internal error and cannot go on: reset or kill it")]
    Broken,
    #[error("its guest is asleep or its state is being written: it goes on by itself")]
    Asleep,
    #[error("it is being stopped")]
    Stopping,
    #[error("it is being rebooted")]
    Rebooting,
    #[error("its guest has powered off")]
    PoweredOff,
    #[error("its guest has not powered off")]
    NotPoweredOff,
    #[error("QEMU does not answer: wait, or kill it")]
    Unreachable,
}

/// Whether an action may begin.
pub fn admit(phase: Phase, action: Action) -> Result<(), NotNow> {
    match (phase, action) {
        (Phase::Gone(_), _) => Err(NotNow::Gone),
        (_, Action::Kill) => Ok(()),
        (Phase::Unreachable, _) => Err(NotNow::Unreachable),
        (Phase::Ending | Phase::Stopping, _) => Err(NotNow::Stopping),
        (Phase::Rebooting, _) => Err(NotNow::Rebooting),
        (Phase::PoweredOff(_), Action::Finish) => Ok(()),
        (Phase::PoweredOff(_), _) => Err(NotNow::PoweredOff),
        (_, Action::Finish) => Err(NotNow::NotPoweredOff),
        (_, Action::Devices | Action::Screenshot) => Ok(()),
        (Phase::Prepared, Action::Cont) => Ok(()),
        (Phase::Prepared, _) => Err(NotNow::NotStarted),
        (_, Action::Cont) => Err(NotNow::Started),
        (_, Action::Reset) => Ok(()),
        (Phase::Running, Action::Resume) => Err(NotNow::NotPaused),
        (Phase::Running, _) => Ok(()),
        (Phase::Paused(cause), Action::Resume) => may_resume(cause),
        (Phase::Paused(_), Action::Stop | Action::Reboot | Action::Pause) => Err(NotNow::Paused),
    }
}

fn may_resume(cause: PauseCause) -> Result<(), NotNow> {
    match cause {
        PauseCause::Asked | PauseCause::IoError | PauseCause::Watchdog | PauseCause::Debugger => Ok(()),
        PauseCause::GuestPanicked => Err(NotNow::Panicked),
        PauseCause::InternalError => Err(NotNow::Broken),
        PauseCause::Suspended | PauseCause::Snapshot => Err(NotNow::Asleep),
    }
}

/// What a machine is after a signal.
pub fn follow(phase: Phase, signal: &Signal) -> Phase {
    match (phase, signal) {
        (Phase::Gone(cause), _) => Phase::Gone(cause),
        (phase, Signal::ProcessEnded(exit)) => Phase::Gone(cause_of(phase, *exit)),
        (Phase::Ending, _) => Phase::Ending,
        (_, Signal::Began(Action::Kill)) => Phase::Ending,
        (_, Signal::Began(Action::Stop)) => Phase::Stopping,
        (_, Signal::Began(Action::Reboot)) => Phase::Rebooting,
        (phase, Signal::Began(_)) => phase,
        (Phase::PoweredOff(by), Signal::MonitorLost) => Phase::PoweredOff(by),
        (_, Signal::MonitorLost) => Phase::Unreachable,
        (_, Signal::Ended(Action::Kill, _)) => phase,
        (phase, Signal::Ended(_, state)) => settled(phase, state),
        (Phase::Stopping, Signal::Reported(QemuRunState::Shutdown)) => Phase::PoweredOff(PoweredOffBy::Request),
        (phase @ (Phase::Stopping | Phase::Rebooting), Signal::Reported(_)) => phase,
        (phase, Signal::Reported(state)) => settled(phase, state),
    }
}

/// What QEMU's own word for its state means while nothing is under way.
fn settled(phase: Phase, state: &QemuRunState) -> Phase {
    if let Some(cause) = state.pause_cause() {
        return Phase::Paused(cause);
    }
    match (state.vm_state(), phase) {
        (VmState::Running, _) => Phase::Running,
        // After a reset QEMU speaks of one that was paused as if it had never run: it waits for a resume. Who
        // finds it like this after a restart cannot tell it from one that is prepared, and need not.
        (VmState::Starting, Phase::Running | Phase::Paused(_) | Phase::Stopping | Phase::Rebooting) => {
            Phase::Paused(PauseCause::Asked)
        }
        (VmState::Starting, _) => Phase::Prepared,
        (VmState::Stopping, Phase::PoweredOff(by)) => Phase::PoweredOff(by),
        (VmState::Stopping, Phase::Stopping | Phase::Rebooting) => Phase::PoweredOff(PoweredOffBy::Request),
        (VmState::Stopping, _) => Phase::PoweredOff(PoweredOffBy::Guest),
        (_, phase) => phase,
    }
}

fn cause_of(phase: Phase, exit: ExitReason) -> Cause {
    match (phase, exit) {
        (Phase::Ending, _)
        | (_, ExitReason::KilledOnOrder | ExitReason::Superseded | ExitReason::Unknown { kill_ordered: true }) => {
            match phase {
                // The kill only helped a process out whose guest was done.
                Phase::PoweredOff(by) => powered_off(by),
                _ => Cause::Killed,
            }
        }
        (_, ExitReason::OutOfMemory) => Cause::OutOfMemory,
        (_, ExitReason::Signalled { signal, .. }) => Cause::Signal { signal },
        (Phase::PoweredOff(by), _) => powered_off(by),
        (_, ExitReason::Exited { code }) => Cause::Exited { code },
        (_, ExitReason::Unknown { kill_ordered: false }) => Cause::Unknown,
    }
}

fn powered_off(by: PoweredOffBy) -> Cause {
    match by {
        PoweredOffBy::Guest => Cause::GuestPoweredOff,
        PoweredOffBy::Request => Cause::Stopped,
    }
}

impl Phase {
    pub fn is_gone(self) -> bool {
        matches!(self, Phase::Gone(_))
    }

    /// What a client of the cluster sees of it.
    pub fn vm_state(self) -> VmState {
        match self {
            Phase::Prepared => VmState::Starting,
            Phase::Running | Phase::Rebooting => VmState::Running,
            Phase::Paused(_) => VmState::Paused,
            Phase::Stopping | Phase::PoweredOff(_) | Phase::Ending => VmState::Stopping,
            Phase::Unreachable => VmState::Unknown,
            Phase::Gone(_) => VmState::Stopped,
        }
    }
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
