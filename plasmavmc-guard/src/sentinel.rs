//! The sentinel: what stops adopted children when their guard dies.
//!
//! The kernel stops a leased child when the guard that started it dies. It does nothing when one dies that had
//! adopted it, and then nobody would be left to keep the deadline. So a guard with leased adopted children
//! starts its own program beside it and hands it their pidfds:
//!
//! ```text
//!   plasmavmc-guard stop-on-death     waits until its standard input closes; SIGSTOP to all; ends
//! ```
//!
//! Only the guard has the other end, and hands it to the program it is replaced by. The kernel closes it with
//! the guard, however that ends; what was sent before is received before.
//!
//! Must never happen: a SIGCONT, or an end before the guard's own that nobody sees. The guard watches it, puts
//! another in its place, and thaws nothing adopted without one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wire::socket::{self, Received};
use crate::{standing, sys};

/// The word on the command line that makes this program a sentinel.
pub const COMMAND: &str = "stop-on-death";

const DESCRIPTORS_A_PACKET: usize = 200;
/// What may be meant for the guard and must not end its sentinel with it.
const NOT_FOR_US: [i32; 3] = [
    signal_hook::consts::SIGHUP,
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGTERM,
];

/// Keeps watch until the guard is gone.
pub fn run() -> ExitCode {
    // It acts for the guard, so it stands as the guard does: without, it acts all the same.
    let _ = standing::take();
    let _ = rustix::process::setsid();
    let _ = sys::hold_signals_back(&NOT_FOR_US);
    let guard = io::stdin();
    let mut children: Vec<OwnedFd> = Vec::new();
    loop {
        match socket::receive_waiting(&guard, DESCRIPTORS_A_PACKET) {
            Ok(Received::Packet { descriptors, .. }) => children.extend(descriptors),
            Err(Errno::INTR) => {}
            Ok(Received::Closed | Received::Cut) | Err(_) => break,
        }
    }
    for child in &children {
        // One that is gone needs none.
        let _ = pidfd_send_signal(child, Signal::STOP);
    }
    ExitCode::SUCCESS
}

/// The guard's end of one.
#[derive(Debug)]
pub struct Sentinel {
    /// What closes with the guard.
    pub socket: OwnedFd,
    pub pidfd: OwnedFd,
}

/// Starts one for these children. It holds all of them from here on: what it has not received yet waits for it.
pub fn start<'a>(children: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Sentinel> {
    let (ours, theirs) = socket::pair()?;
    let children: Vec<BorrowedFd<'_>> = children.collect();
    for chunk in children.chunks(DESCRIPTORS_A_PACKET) {
        socket::send(&ours, b"children", chunk)?;
    }
    let mut started = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    match pidfd_open(Pid::from_child(&started), PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Sentinel { socket: ours, pidfd }),
        Err(errno) => {
            // Both only fail if it is gone already, which is what they are for.
            let _ = started.kill();
            let _ = started.wait();
            Err(errno.into())
        }
    }
}

impl AsFd for Sentinel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
