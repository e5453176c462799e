//! Replacing the guard's program while it runs.
//!
//! ```text
//!   Idle --ordered--> Checking --it understands the handover--> Due --every launch settled--> exec
//!    ^                   |                                       |                             |
//!    +---- refused, too slow -------- a launch does not settle --+--------- exec failed -------+
//! ```
//!
//! The process stays, so its children stay its children and their exit status stays known. Descriptors are
//! not passed by number: they wait in a socket that is the new program's standard input, in an order that
//! the handover names, and whatever goes wrong before exec just drops that socket.
//!
//! Must never happen: an exec of something that cannot take over. So the candidate is started beside the
//! guard first and asked.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::child::{Child, Reaped, reap};
use super::clients::Asker;
use super::handover;
use super::signals::MEANINGFUL;
use super::{Guard, GuardError, freezing};
use crate::journal::say;
use crate::sys;
use crate::wire::{Answer, Refusal};

/// The version of what one program hands to the next: 2 since there are leases, which a program that knows none
/// must not take over.
pub const HANDOVER_VERSION: u32 = 2;
const OLDEST_UNDERSTOOD: u32 = 1;
/// `plasmavmc-guard can-resume VERSION` ends with [`CAN_RESUME`] if it understands that version.
pub const CHECK_COMMAND: &str = "can-resume";
/// Not 0, with which any program may end that knows nothing of this.
pub const CAN_RESUME: u8 = 113;
/// Whether this program understands the handover of that version.
pub fn can_resume(version: &str) -> bool {
    version
        .parse()
        .is_ok_and(|version| (OLDEST_UNDERSTOOD..=HANDOVER_VERSION).contains(&version))
}

/// What the new program is executed with.
pub const RESUME_COMMAND: &str = "resume";

const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// Longer than a launch may take.
const SETTLE_PATIENCE: Duration = Duration::from_secs(12);
/// Orders wait while a launch settles, also those that extend the lease. With less than this of it left they are
/// served: better no new program than children frozen for it.
const LEAST_LEASE_MS: u64 = 1500;

#[derive(Debug)]
pub enum Upgrade {
    Idle,
    Checking {
        wanted: Wanted,
        candidate: OwnedFd,
        deadline: Instant,
    },
    Due {
        wanted: Wanted,
        deadline: Instant,
    },
}

#[derive(Debug)]
pub struct Wanted {
    program: PathBuf,
    asker: Option<Asker>,
}

impl Upgrade {
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    pub fn is_due(&self) -> bool {
        matches!(self, Self::Due { .. })
    }

    pub fn candidate(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Checking { candidate, .. } => Some(candidate.as_fd()),
            Self::Idle | Self::Due { .. } => None,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Checking { deadline, .. } | Self::Due { deadline, .. } => Some(*deadline),
            Self::Idle => None,
        }
    }
}

impl Guard {
    /// Begins with the check. One upgrade at a time; a signal that comes meanwhile means the same one.
    pub(super) fn begin_upgrade(&mut self, program: Option<String>, asker: Option<Asker>) {
        if !self.upgrade.is_idle() {
            return;
        }
        let program = program.map_or_else(|| self.program.clone(), PathBuf::from);
        let wanted = Wanted { program, asker };
        if !wanted.program.is_absolute() {
            let problem = format!("{} is not an absolute path", wanted.program.display());
            self.refuse_upgrade(wanted.asker, problem);
            return;
        }
        match start_check(&wanted.program) {
            Ok(candidate) => {
                self.upgrade = Upgrade::Checking {
                    wanted,
                    candidate,
                    deadline: Instant::now() + CHECK_PATIENCE,
                };
            }
            Err(error) => {
                let problem = format!("{} cannot be started: {error}", wanted.program.display());
                self.refuse_upgrade(wanted.asker, problem);
            }
        }
    }

    /// The candidate ended its check.
    pub(super) fn serve_candidate(&mut self) {
        let Upgrade::Checking { candidate, .. } = &self.upgrade else {
            return;
        };
        let code = match reap(candidate.as_fd()) {
            Reaped::NotYet => return,
            Reaped::Status(status) => status.exit_status(),
            Reaped::Lost => None,
        };
        let Upgrade::Checking { wanted, .. } = std::mem::replace(&mut self.upgrade, Upgrade::Idle) else {
            return;
        };
        if code == Some(i32::from(CAN_RESUME)) {
            let deadline = Instant::now() + SETTLE_PATIENCE;
            self.upgrade = Upgrade::Due { wanted, deadline };
        } else {
            let program = wanted.program.display();
            let problem = format!("{program} does not understand handover version {HANDOVER_VERSION}");
            self.refuse_upgrade(wanted.asker, problem);
        }
    }

    /// Executes the new program when it may; gives up on what takes too long.
    pub(super) fn advance_upgrade(&mut self, now: Instant) {
        let is_late = self.upgrade.deadline().is_some_and(|deadline| deadline <= now);
        let settled = !self.children.values().any(Child::is_unsettled);
        match std::mem::replace(&mut self.upgrade, Upgrade::Idle) {
            Upgrade::Checking { wanted, candidate, .. } if is_late => {
                // It is not reaped: that would be a wait. As a zombie it costs an entry in a table.
                let _ = pidfd_send_signal(&candidate, Signal::KILL);
                self.refuse_upgrade(wanted.asker, "its check took too long".to_owned());
            }
            Upgrade::Due { wanted, .. } if settled => self.replace_program(&wanted),
            Upgrade::Due { wanted, .. } if is_late => {
                self.refuse_upgrade(wanted.asker, "a launch under way does not end".to_owned());
            }
            Upgrade::Due { wanted, .. } if self.lease_runs_short() => {
                let problem = "a launch under way does not end, and the lease runs short".to_owned();
                self.refuse_upgrade(wanted.asker, problem);
            }
            other => self.upgrade = other,
        }
    }

    fn lease_runs_short(&self) -> bool {
        let ahead_ms = self.deadman.until_ms().saturating_sub(freezing::now_ms());
        // When it is over already there is nothing to lose.
        (1..LEAST_LEASE_MS).contains(&ahead_ms) && self.children.values().any(Child::is_leased)
    }

    fn replace_program(&mut self, wanted: &Wanted) {
        say(&format!("replaces its program by {}", wanted.program.display()));
        let Err(error) = self.hand_over_and_execute(wanted);
        // Nothing was given away: all descriptors that were handed over were copies.
        let restored = discard_stdin().and_then(|()| sys::let_signals_through());
        if let Err(error) = restored {
            say(&format!("after a failed upgrade: {error}"));
        }
        self.refuse_upgrade(wanted.asker, error.to_string());
    }

    fn hand_over_and_execute(&mut self, wanted: &Wanted) -> io::Result<std::convert::Infallible> {
        let program = CString::new(wanted.program.as_os_str().as_bytes())?;
        let waiting = handover::pack(self, &wanted.program, wanted.asker)?;
        // A second SIGHUP between exec and the new program's handlers would end it.
        sys::hold_signals_back(&MEANINGFUL)?;
        rustix::stdio::dup2_stdin(&waiting)?;
        drop(waiting);
        let resume = CString::new(RESUME_COMMAND)?;
        let arguments: [&CStr; 1] = [&resume];
        Err(sys::replace_program(&program, &arguments))
    }

    fn refuse_upgrade(&mut self, asker: Option<Asker>, problem: String) {
        say(&format!("its program was not replaced: {problem}"));
        self.last_upgrade_problem = Some(problem.clone());
        if let Some(asker) = asker {
            let refusal = Refusal::NotUpgraded { problem };
            self.clients.answer(asker, Answer::Refused(refusal), None);
        }
    }

    /// Goes on where the program before this one stopped.
    pub fn resume() -> Result<Self, GuardError> {
        let (mut guard, asker) = handover::unpack()?;
        discard_stdin().map_err(|source| GuardError::Io {
            action: "let go of its standard input",
            source,
        })?;
        sys::let_signals_through().map_err(|source| GuardError::Io {
            action: "receive signals",
            source,
        })?;
        say(&format!(
            "goes on as version {} with {} children",
            env!("CARGO_PKG_VERSION"),
            guard.children.len()
        ));
        if let Some(asker) = asker {
            guard.clients.answer(asker, Answer::Done, None);
        }
        Ok(guard)
    }
}

fn discard_stdin() -> io::Result<()> {
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(())
}

fn start_check(program: &Path) -> io::Result<OwnedFd> {
    let mut child = Command::new(program)
        .args([CHECK_COMMAND, &HANDOVER_VERSION.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|errno| {
        // Both only fail if it is gone, which is what they are for.
        let _ = child.kill();
        let _ = child.wait();
        errno.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_programs_hand_over_is_understood_and_what_newer_ones_do_is_not() {
        for (version, expected) in [
            ("1", true),
            ("2", true),
            ("0", false),
            ("3", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(can_resume(version), expected, "{version:?}");
        }
        assert!(can_resume(&HANDOVER_VERSION.to_string()));
    }
}
