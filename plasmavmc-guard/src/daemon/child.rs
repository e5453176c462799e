//! One child: its record, and what holds it in the state it is in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use super::clients::Asker;
use crate::cgroup;
use crate::launch::Launch;
use crate::records::Record;
use crate::wire::{Exit, ExitReason, Held, HeldLease, Phase, Refusal};

#[derive(Debug)]
pub struct Child {
    pub record: Record,
    pub state: State,
    pub kill_ordered: bool,
    /// SIGKILL was sent on the proof of a higher claim.
    pub superseded: bool,
}

#[derive(Debug)]
pub enum State {
    Preparing {
        pidfd: OwnedFd,
        launch: Launch,
        asker: Asker,
    },
    Registered {
        pidfd: OwnedFd,
        launch: Launch,
        asker: Asker,
    },
    Running {
        pidfd: OwnedFd,
    },
    Adopted {
        pidfd: OwnedFd,
    },
    /// The launch failed; answered when the launcher is gone, or at once if it was too slow (then no asker).
    Ending {
        pidfd: OwnedFd,
        refusal: Refusal,
        asker: Option<Asker>,
    },
    /// The record holds how.
    Exited,
}

impl Child {
    pub fn held(&self) -> Held {
        let exit = self.record.exit.clone();
        Held {
            key: self.record.key,
            pid: self.record.pid,
            start_ticks: self.record.start_ticks,
            phase: match (&self.state, exit) {
                (State::Exited, Some(exit)) => Phase::Exited(exit),
                (State::Exited, None) => Phase::Exited(Exit::now(ExitReason::Unknown { kill_ordered: false })),
                (State::Preparing { .. }, _) => Phase::Preparing,
                (State::Registered { .. }, _) => Phase::Registered,
                (State::Running { .. }, _) => Phase::Running,
                (State::Adopted { .. }, _) => Phase::Adopted,
                (State::Ending { .. }, _) => Phase::Ending,
            },
            notes: self.record.notes.clone(),
            lease: self.record.lease.as_ref().map(|lease| HeldLease {
                incarnation: lease.incarnation,
                frozen: lease.frozen,
            }),
        }
    }

    /// What tells that the process ended; none when it has.
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.state {
            State::Preparing { pidfd, .. }
            | State::Registered { pidfd, .. }
            | State::Running { pidfd }
            | State::Adopted { pidfd }
            | State::Ending { pidfd, .. } => Some(pidfd),
            State::Exited => None,
        }
    }

    pub fn launch(&self) -> Option<&Launch> {
        match &self.state {
            State::Preparing { launch, .. } | State::Registered { launch, .. } => Some(launch),
            State::Running { .. } | State::Adopted { .. } | State::Ending { .. } | State::Exited => None,
        }
    }

    /// Whether something of it must settle before the guard can hand it to another program.
    pub fn is_unsettled(&self) -> bool {
        matches!(
            self.state,
            State::Preparing { .. } | State::Registered { .. } | State::Ending { .. }
        )
    }

    pub fn is_exited(&self) -> bool {
        matches!(self.state, State::Exited)
    }

    /// Whether the deadline concerns it: it is leased, and not at its end.
    pub fn is_leased(&self) -> bool {
        self.record.lease.is_some() && !self.is_exited()
    }

    /// Whether the kernel would not stop it if this guard died, though it should be.
    pub fn needs_sentinel(&self) -> bool {
        self.is_leased() && matches!(self.state, State::Adopted { .. })
    }

    pub fn is_frozen(&self) -> bool {
        self.record.lease.as_ref().is_some_and(|lease| lease.frozen) && !self.is_exited()
    }

    /// Whether it is leased and executes its program without being frozen.
    pub fn is_freezable(&self) -> bool {
        self.is_leased() && !self.is_frozen() && matches!(self.state, State::Running { .. } | State::Adopted { .. })
    }

    /// Notes that the guard froze it or let it go; means nothing to a child without a lease.
    pub fn set_frozen(&mut self, frozen: bool) {
        if let Some(lease) = &mut self.record.lease {
            lease.frozen = frozen;
        }
    }

    /// SIGSTOP. One that is stopped already stays so; one that is gone needs none.
    pub fn stop(&self) -> Result<(), Errno> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: only ever with the deadline ahead at this very moment.
    pub fn go_on(&self) -> Result<(), Errno> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, to this process and no other. One that is gone already is what was wanted.
    pub fn kill(&self) -> Result<(), Errno> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match self.pidfd().map(|pidfd| pidfd_send_signal(pidfd, signal)) {
            None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
            Some(Err(errno)) => Err(errno),
        }
    }

    /// Why the process ended, taking its status from the kernel. `None` if it has not.
    pub fn take_exit_reason(&self) -> Option<ExitReason> {
        let unknown = match self.superseded {
            true => ExitReason::Superseded,
            false => ExitReason::Unknown {
                kill_ordered: self.kill_ordered,
            },
        };
        if matches!(self.state, State::Adopted { .. }) {
            return Some(unknown);
        }
        match reap(self.pidfd()?.as_fd()) {
            Reaped::NotYet => None,
            Reaped::Lost => Some(unknown),
            Reaped::Status(status) => Some(self.reason_of(&status)),
        }
    }

    fn reason_of(&self, status: &WaitIdStatus) -> ExitReason {
        if let Some(code) = status.exit_status() {
            return ExitReason::Exited { code };
        }
        let signal = status.terminating_signal().unwrap_or_default();
        if signal == Signal::KILL.as_raw() {
            if self.superseded {
                return ExitReason::Superseded;
            }
            if self.kill_ordered {
                return ExitReason::KilledOnOrder;
            }
            if self.record.cgroup.as_ref().is_some_and(cgroup::ran_out_of_memory) {
                return ExitReason::OutOfMemory;
            }
        }
        ExitReason::Signalled {
            signal,
            core_dumped: status.dumped(),
        }
    }
}

impl Exit {
    pub fn now(reason: ExitReason) -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            reason,
            seen_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

pub enum Reaped {
    NotYet,
    Status(WaitIdStatus),
    /// The kernel has none for us.
    Lost,
}

/// Takes the exit status of a child of this process, if it ended.
pub fn reap(pidfd: BorrowedFd<'_>) -> Reaped {
    match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(None) | Err(Errno::INTR) => Reaped::NotYet,
        Ok(Some(status)) => Reaped::Status(status),
        Err(_) => Reaped::Lost,
    }
}
