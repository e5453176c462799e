//! The guard's end of a launch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Assignment, Failure, FromLauncher, OriginalLimits, Prepared, ToLauncher, arguments};
use crate::wire::socket::{self, Received};
use crate::wire::{self, SpawnOrder, Step};

/// How long a launcher may take until the program executes. A log folder on a dead mount takes forever.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A launcher under way. Dropping it before [`Launch::go`] ends the launcher without executing anything.
#[derive(Debug)]
pub struct Launch {
    socket: OwnedFd,
    pub deadline: Instant,
}

/// A launcher that was just started, and what it is held by.
#[derive(Debug)]
pub struct Started {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub launch: Launch,
}

/// What a launcher tells.
#[derive(Debug)]
pub enum Progress {
    /// Nothing new.
    Waiting,
    /// Everything is set up; it waits for [`Launch::go`].
    Prepared(Prepared),
    Failed(Failure),
    /// The socket closed: after [`Launch::go`] the program executes, before it the launcher died.
    Closed,
}

/// Starts a launcher with this order and these descriptors. `itself` is this program, as running now.
pub fn start(
    itself: &Path,
    order: SpawnOrder,
    descriptors: &[OwnedFd],
    limits: OriginalLimits,
    now: Instant,
) -> Result<Started, Failure> {
    let failed = |error: io::Error| Failure {
        step: Step::Start,
        errno: error.raw_os_error(),
        problem: error.to_string(),
    };
    let (ours, theirs) = socket::pair().map_err(|errno| failed(errno.into()))?;
    let command_line = arguments(order.key.vm);
    let assignment = ToLauncher::Prepare(Box::new(Assignment {
        order,
        guard_pid: rustix::process::getpid().as_raw_nonzero().get(),
        limits,
    }));
    let packet = wire::encode(&assignment).map_err(|error| failed(io::Error::other(error)))?;
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    // It waits in the socket until the launcher reads it.
    socket::send(&ours, &packet, &borrowed).map_err(|errno| failed(errno.into()))?;
    let child = Command::new(itself)
        .args(command_line)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let pid = Pid::from_child(&child);
    // Nobody reaped it yet and only we can, so the pid is still its own. Without a pidfd it is ended by the
    // socket that closes, and reaped here.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Started {
            pid,
            pidfd,
            launch: Launch {
                socket: ours,
                deadline: now + PATIENCE,
            },
        }),
        Err(errno) => {
            abandon(child);
            Err(failed(errno.into()))
        }
    }
}

fn abandon(mut child: std::process::Child) {
    // Both only fail if it is gone already, which is what they are for.
    let _ = child.kill();
    let _ = child.wait();
}

impl Launch {
    /// Takes what the launcher says, if it says something.
    pub fn progress(&self) -> Progress {
        match socket::receive(&self.socket) {
            Err(Errno::AGAIN | Errno::INTR) => Progress::Waiting,
            Err(_) | Ok(Received::Closed | Received::Cut) => Progress::Closed,
            Ok(Received::Packet { bytes, .. }) => match wire::decode(&bytes) {
                Ok(FromLauncher::Prepared(prepared)) => Progress::Prepared(prepared),
                Ok(FromLauncher::Failed(failure)) => Progress::Failed(failure),
                Err(error) => Progress::Failed(Failure {
                    step: Step::ReadOrder,
                    errno: None,
                    problem: error.to_string(),
                }),
            },
        }
    }

    /// Lets the launcher execute the program. Only to be called with the child's record in place.
    pub fn go(&self) -> Result<(), Failure> {
        let packet = wire::encode(&ToLauncher::Go).map_err(|error| io::Error::other(error.to_string()));
        let sent = packet.and_then(|packet| Ok(socket::send(&self.socket, &packet, &[])?));
        sent.map_err(|error| Failure {
            step: Step::Execute,
            errno: error.raw_os_error(),
            problem: format!("the launcher does not listen: {error}"),
        })
    }
}

impl AsFd for Launch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
