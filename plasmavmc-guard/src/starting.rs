//! Starting a guard in the background, so that any number of starters end up with exactly one.
//!
//! Who starts does not matter, since the lock of the folder decides who stays. A starter waits until a guard
//! answers, its own or another's.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::daemon::Options;
use crate::wire::socket;

/// The exit code of a guard whose folder another one holds.
pub const HELD: u8 = 3;

const PATIENCE: Duration = Duration::from_secs(10);
const READY: &[u8] = b"ready\n";
const LOG: &str = "guard.log";
/// A log that grew beyond it is begun anew by the next start.
const LONGEST_LOG_BYTES: u64 = 1024 * 1024;

/// Tells whoever started this guard that it listens, and lets go of standard output.
pub fn announce() {
    // A starter that is gone needs no word, and without /dev/null the pipe just stays.
    let _ = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    if let Ok(nothing) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nothing);
    }
}

/// Returns when a guard serves the folder. The one started here, if any, is nobody's child any more when this
/// process ends.
pub fn start(options: &Options) -> Result<()> {
    if socket::connect(&options.folder).is_ok() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut guard = start_one(options)?;
    let stdout = guard.stdout.take().context("the guard has no standard output")?;
    if says_ready(stdout, deadline)? {
        return Ok(());
    }
    // It ended, or closed its output to no purpose.
    let code = wait_until(&mut guard, deadline)?;
    if code != Some(i32::from(HELD)) {
        let log = options.folder.join(LOG);
        bail!("the guard did not start (exit code {code:?}): see {}", log.display());
    }
    wait_for_the_other(options, deadline)
}

fn start_one(options: &Options) -> Result<Child> {
    let mut builder = std::fs::DirBuilder::new();
    let folder = &options.folder;
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(LOG);
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let log = log.with_context(|| format!("cannot open {}", path.display()))?;
    if log.metadata()?.len() > LONGEST_LOG_BYTES {
        log.set_len(0)?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg("--dir").arg(folder);
    if options.leave_running {
        command.arg("--leave-running");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().context("cannot start the guard")
}

/// `false` if it closed its output without saying so.
fn says_ready(mut stdout: ChildStdout, deadline: Instant) -> Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    if !is_readable_within(&stdout, left)? {
        bail!("the guard did not listen within {PATIENCE:?}");
    }
    let mut word = [0; READY.len()];
    match io::Read::read_exact(&mut stdout, &mut word) {
        Ok(()) => Ok(word == READY),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn wait_until(guard: &mut Child, deadline: Instant) -> Result<Option<i32>> {
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(guard),
        rustix::process::PidfdFlags::empty(),
    )?;
    if !is_readable_within(&pidfd, deadline.saturating_duration_since(Instant::now()))? {
        bail!("the guard neither listens nor ends: pid {}", guard.id());
    }
    Ok(guard.wait()?.code())
}

/// Another starter's guard holds the lock and will listen in a moment. Nothing can be waited for but time.
fn wait_for_the_other(options: &Options, deadline: Instant) -> Result<()> {
    while Instant::now() < deadline {
        match socket::connect(&options.folder) {
            Ok(_) => return Ok(()),
            Err(_) => pause(Duration::from_millis(5))?,
        }
    }
    bail!(
        "a process holds {} but does not listen: it may be a guard that hangs",
        options.folder.join("guard.lock").display()
    )
}

fn is_readable_within(source: impl AsFd, timeout: Duration) -> Result<bool> {
    let ready = poll(
        &mut [PollFd::new(&source, PollFlags::IN)],
        Some(&Timespec::try_from(timeout)?),
    )?;
    Ok(ready > 0)
}

fn pause(time: Duration) -> Result<()> {
    poll(&mut [], Some(&Timespec::try_from(time)?))?;
    Ok(())
}
