//! The guard itself: one thread, one loop over what became ready.
//!
//! ```text
//!   spawn order
//!       |
//!       v         prepared, record written,           exec closes
//!   Preparing ------------ "go" ---------> Registered ------------> Running ---+
//!       |                                      |                               | exit, with status
//!       | failed, died or too slow             | exec failed, too slow         v
//!       +---------------> Ending <-------------+                            Exited ---> collected: forgotten
//!                           |                                                  ^
//!                           v reaped: refused, forgotten                       | exit, status unknown
//!                                                                              |
//!   record of a guard that died, and its process lives -------------------> Adopted
//! ```
//!
//! Must never happen: a wait for anything but readiness of descriptors; a second child for a VM while the
//! first is not collected; a signal sent by pid; a child ended because its client, or this guard, went away.
//!
//! Decisions. SIGTERM does not end a guard that holds children that run, unless it was started with
//! `--leave-running` or the order says so: without it nobody would know how they end. It is not a subreaper:
//! QEMU may not start processes (its sandbox forbids it), so a stray process below a child is none of ours,
//! and init reaps it. A child's exit status is asked for through its own pidfd alone, never for "any child".
//!
//! A leased child that runs or was adopted is besides frozen or not; [`freezing`] draws that. The deadline is
//! one more timeout of this loop, kept before and after everything that is served, and what proves to a frozen
//! child that it is lost ([`claims`]) is one more kind of descriptor. A leased child begins its life with the
//! deadline ahead: it is asked for when the order comes and again before "go".

mod adoption;
mod child;
mod claims;
mod clients;
mod exits;
mod freezing;
mod handover;
mod orders;
mod signals;
mod spawning;
mod upgrade;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plasmavmc_types::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::deadman::{Deadman, TICK_MS};
use crate::journal::say;
use crate::launch::OriginalLimits;
use crate::records;
use crate::sentinel::Sentinel;
use crate::standing::{self, Standing};
use crate::wire::Stale;
use crate::wire::socket::{self, SOCKET_NAME};
use crate::{identity, sys};
use child::Child;
use claims::Readers;
use clients::{ClientId, Clients, Incoming};
use signals::Signals;
use upgrade::Upgrade;

pub use crate::records::FolderError;
pub use upgrade::{CAN_RESUME, CHECK_COMMAND, RESUME_COMMAND, can_resume};

/// The most children one guard holds.
pub const MOST_CHILDREN: usize = 512;

/// How a guard was started. Kept when it replaces its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub folder: PathBuf,
    /// What SIGTERM means while children run.
    pub leave_running: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the guard cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("what the program before this one handed over is not understood: {problem}")]
    Handover { problem: String },
}

fn cannot<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> GuardError {
    move |source| GuardError::Io {
        action,
        source: source.into(),
    }
}

pub struct Guard {
    options: Options,
    /// Where this program lay when it was started: a newer one is looked for there.
    program: PathBuf,
    limits: OriginalLimits,
    boot_id: String,
    upgrades: u32,
    last_upgrade_problem: Option<String>,
    standing: Standing,
    stale: Vec<Stale>,
    /// Held, never read: it keeps other guards out of the folder.
    lock: OwnedFd,
    listener: OwnedFd,
    signals: Signals,
    clients: Clients,
    children: BTreeMap<VmId, Child>,
    deadman: Deadman,
    /// When what is frozen is stopped again.
    next_tick_ms: u64,
    readers: Readers,
    /// Stands beside this guard while it holds leased children that it adopted.
    sentinel: Option<Sentinel>,
    upgrade: Upgrade,
    ending: bool,
}

/// What a descriptor that became ready belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Candidate,
    Client(ClientId),
    Launch(VmId),
    Process(VmId),
    ReaderOutput(VmId),
    Reader(VmId),
    Sentinel,
}

impl Guard {
    /// Takes the folder, takes over what a dead guard left in it, and listens.
    pub fn start(options: Options) -> Result<Self, GuardError> {
        let program = std::env::current_exe().map_err(cannot("find its own program"))?;
        let limits = OriginalLimits::read();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        // Whoever started it must not take it along when it goes. It fails if that was seen to already.
        let _ = rustix::process::setsid();
        let lock = records::enter(&options.folder)?;
        let signals = Signals::receive().map_err(cannot("receive signals"))?;
        sys::let_signals_through().map_err(cannot("receive signals"))?;
        let boot_id = identity::boot_id().map_err(cannot("read the boot id"))?;
        let adopted = adoption::adopt(&boot_id).map_err(cannot("read its records"))?;
        let listener = socket::listen_here().map_err(cannot("listen"))?;
        Ok(Self {
            options,
            program,
            limits,
            boot_id,
            upgrades: 0,
            last_upgrade_problem: None,
            standing: standing::take(),
            stale: adopted.stale,
            lock,
            listener,
            signals,
            clients: Clients::default(),
            children: adopted.children,
            deadman: Deadman::default(),
            next_tick_ms: 0,
            readers: Readers::default(),
            sentinel: None,
            upgrade: Upgrade::Idle,
            ending: false,
        })
    }

    /// Serves until it is told to end. What still runs then goes on.
    pub fn run(&mut self) -> Result<(), GuardError> {
        while !self.ending {
            let ready = self.wait().map_err(cannot("wait for descriptors"))?;
            self.keep_deadline();
            for (source, flags) in ready {
                self.serve(source, flags);
                self.keep_deadline();
            }
            self.end_slow_launches(Instant::now());
            self.tend_readers();
            self.advance_upgrade(Instant::now());
        }
        // The next guard replaces it anyway.
        let _ = rustix::fs::unlink(SOCKET_NAME);
        Ok(())
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>, Errno> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        let mut watch = |source, descriptor, flags| watched.push((source, descriptor, flags));
        watch(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        if let Some(candidate) = self.upgrade.candidate() {
            watch(Source::Candidate, candidate, PollFlags::IN);
        }
        // While the program is about to be replaced, orders wait in their sockets for the next one.
        let serving = !self.upgrade.is_due();
        if serving {
            watch(Source::Listener, self.listener.as_fd(), PollFlags::IN);
        }
        for (id, client) in self.clients.iter() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, serving);
            flags.set(PollFlags::OUT, client.is_waiting());
            if !flags.is_empty() {
                watch(Source::Client(id), client.socket.as_fd(), flags);
            }
        }
        for (vm, child) in &self.children {
            if let Some(launch) = child.launch() {
                watch(Source::Launch(*vm), launch.as_fd(), PollFlags::IN);
            }
            if let Some(pidfd) = child.pidfd() {
                watch(Source::Process(*vm), pidfd.as_fd(), PollFlags::IN);
            }
        }
        if let Some(sentinel) = &self.sentinel {
            watch(Source::Sentinel, sentinel.as_fd(), PollFlags::IN);
        }
        for (vm, reader) in self.readers.iter() {
            watch(Source::Reader(vm), reader.pidfd(), PollFlags::IN);
            if let Some(output) = reader.output() {
                watch(Source::ReaderOutput(vm), output, PollFlags::IN);
            }
        }
        let mut polled: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags))
            .collect();
        let timeout = self.until_next_deadline(Instant::now());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let ready = watched
            .iter()
            .zip(&polled)
            .map(|((source, ..), polled)| (*source, polled.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn until_next_deadline(&self, now: Instant) -> Option<Timespec> {
        let launches = self.children.values().filter_map(|child| child.launch());
        let deadlines = launches.map(|launch| launch.deadline).chain(self.upgrade.deadline());
        let next = deadlines.min().map(|next| next.saturating_duration_since(now));
        let now_ms = freezing::now_ms();
        let leases = [self.until_next_tick(now_ms), self.until_claims_are_due(now_ms)];
        // What is left of the lease is looked at while an upgrade is due.
        let look = self.upgrade.is_due().then_some(Duration::from_millis(TICK_MS));
        let next = leases.into_iter().chain([next, look]).flatten().min()?;
        Some(Timespec {
            tv_sec: i64::try_from(next.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: next.subsec_nanos().into(),
        })
    }

    fn serve(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.clients.accept(&self.listener),
            Source::Signals => self.serve_signals(),
            Source::Candidate => self.serve_candidate(),
            Source::Launch(vm) => self.advance_launch(vm),
            Source::Process(vm) => self.notice_exit(vm),
            Source::ReaderOutput(vm) => self.hear_reader(vm),
            Source::Reader(vm) => self.bury_reader(vm),
            Source::Sentinel => self.replace_sentinel(),
            Source::Client(id) => {
                if flags.contains(PollFlags::OUT) {
                    self.clients.flush(id);
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                    && let Incoming::Order {
                        asker,
                        order,
                        descriptors,
                    } = self.clients.receive(id)
                {
                    self.serve_order(asker, order, descriptors);
                }
            }
        }
    }

    fn serve_signals(&mut self) {
        let came = self.signals.take();
        if came.hangup {
            self.begin_upgrade(None, None);
        }
        if came.terminate {
            let running = self.running();
            if running == 0 || self.options.leave_running {
                say(&format!("ends on SIGTERM; {running} children go on"));
                self.ending = true;
            } else {
                say(&format!(
                    "does not end on SIGTERM: it holds {running} children that run"
                ));
            }
        }
    }

    /// How many children have not exited.
    fn running(&self) -> usize {
        self.children.values().filter(|child| !child.is_exited()).count()
    }
}
