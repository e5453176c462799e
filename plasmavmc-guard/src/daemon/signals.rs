//! SIGTERM and SIGHUP as something that can be polled.
//!
//! By handlers and a socket, not by a blocked mask: a mask would be inherited by every child.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGTERM};

/// Those that mean something to a guard; they are held back while it replaces its program.
pub const MEANINGFUL: [i32; 2] = [SIGHUP, SIGTERM];

#[derive(Debug)]
pub struct Signals {
    hangup: UnixStream,
    terminate: UnixStream,
    either: rustix::fd::OwnedFd,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Came {
    pub hangup: bool,
    pub terminate: bool,
}

impl Signals {
    pub fn receive() -> io::Result<Self> {
        // A parent that ignores SIGCHLD hands that on, and then the kernel keeps no exit status for us. A
        // handler undoes it; what it sets is of no interest.
        signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
        let (hangup, terminate) = (listen_to(SIGHUP)?, listen_to(SIGTERM)?);
        let either = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        for stream in [&hangup, &terminate] {
            let data = rustix::event::epoll::EventData::new_u64(0);
            rustix::event::epoll::add(&either, stream, data, rustix::event::epoll::EventFlags::IN)?;
        }
        Ok(Self {
            hangup,
            terminate,
            either,
        })
    }

    /// Which came since the last look.
    pub fn take(&mut self) -> Came {
        Came {
            hangup: drain(&mut self.hangup),
            terminate: drain(&mut self.terminate),
        }
    }
}

/// Readable when any of them came.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}

fn listen_to(signal: i32) -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, handlers)?;
    Ok(ours)
}

fn drain(stream: &mut UnixStream) -> bool {
    let mut came = false;
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
        came = true;
    }
    came
}
