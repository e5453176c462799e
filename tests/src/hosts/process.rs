//! Programs that run on hosts, and the processes they become.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A program to run: what `std::process::Command` holds, in a form that can run on any host, many times.
#[derive(Debug, Clone)]
pub struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) log: Option<String>,
}

impl Program {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The log file's name on its host; by default that of the program.
    #[must_use]
    pub fn log(mut self, name: impl Into<String>) -> Self {
        self.log = Some(name.into());
        self
    }

    pub(super) fn log_name(&self) -> String {
        self.log.clone().unwrap_or_else(|| {
            let name = self.path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        })
    }
}

/// A process that a test started. Clones are the same process. Dropping it does not end it; its host
/// does, at the latest.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    child: Mutex<Child>,
    pid: Pid,
    pidfd: OwnedFd,
    log: PathBuf,
}

impl Process {
    /// `log` is where its output goes.
    pub fn adopt(child: Child, log: PathBuf) -> std::io::Result<Self> {
        let pid = Pid::from_child(&child);
        // Not reaped yet, so the id is still this child's.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self {
            inner: Arc::new(Inner {
                child: Mutex::new(child),
                pid,
                pidfd,
                log,
            }),
        })
    }

    /// The process id as the test's process sees it.
    pub fn pid(&self) -> u32 {
        self.inner.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn log(&self) -> &Path {
        &self.inner.log
    }

    /// The last lines of its output, for messages about failures.
    pub fn log_tail(&self, lines: usize) -> String {
        self.log_tail_of(lines, |_| true)
    }

    /// The last lines that tell of trouble.
    pub fn log_trouble(&self, lines: usize) -> String {
        self.log_tail_of(lines, |line| line.contains("ERROR") || line.contains("panicked"))
    }

    fn log_tail_of(&self, lines: usize, wanted: impl Fn(&str) -> bool) -> String {
        let text = std::fs::read(&self.inner.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().filter(|line| wanted(line)).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// SIGKILL, and waits until nothing is left of it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let _ = self.inner.child.lock().wait();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.inner.child.lock();
        // While the lock is held and it is not reaped, the id cannot become another process's.
        if let Ok(None) = child.try_wait() {
            let _ = kill_process(self.inner.pid, signal);
        }
    }

    /// How it ended, or `None` while it lives.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.inner.child.lock().try_wait().ok().flatten()
    }

    /// Waits for its end, no longer than `limit`.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        poll_exit(&self.inner.pidfd, limit);
        self.exit()
    }
}

/// Waits for a child's end, no longer than `limit`.
pub(super) fn wait_exit(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        poll_exit(&pidfd, limit);
    }
    child.try_wait().ok().flatten()
}

fn poll_exit(pidfd: &OwnedFd, limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else { return };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}
