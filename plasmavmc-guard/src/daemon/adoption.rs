//! What a guard that died left behind, sorted: processes that run are adopted, exits that were recorded are
//! kept, everything else is stale and reported.
//!
//! What is leased was stopped by the kernel when its guard died, or should have been: it counts as frozen and
//! is stopped at once, and no deadline is inherited.
//!
//! Must never happen: a process adopted that is not the record's, or one that lives called gone: its VM would be
//! started a second time. Pid, start time and the VM's id on the command line have to agree, and all three are
//! read while a pidfd holds the process. A process without memory of its own shows no command line, be it for
//! long: on a starved host in the middle of its exec, or while the kernel takes the memory of a big QEMU apart
//! that was killed. Then pid and start time have to do, which name one process of one boot.
//!
//! The command line lies in the process's own memory. The kernel lets a reader wait while it changes that
//! process's mappings, so this is the one look of a guard that a process in trouble could delay. It is taken
//! once, before anybody is served, and never at a process this guard started itself.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use plasmavmc_types::VmId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::MOST_CHILDREN;
use super::child::{Child, State};
use super::freezing;
use crate::identity::CommandLine;
use crate::journal::say;
use crate::records::{self, Found, Record};
use crate::wire::Stale;
use crate::{cgroup, identity};

/// Of the reports on stale records, so many are kept.
const MOST_STALE: usize = 64;
/// Together a second. An exec takes milliseconds.
const LOOKS_DURING_EXEC: u32 = 200;
const BETWEEN_LOOKS: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

#[derive(Debug, Default)]
pub struct Adopted {
    pub children: BTreeMap<VmId, Child>,
    pub stale: Vec<Stale>,
}

pub fn adopt(boot_id: &str) -> io::Result<Adopted> {
    let mut adopted = Adopted::default();
    for Found { name, record } in records::read_all()? {
        let key = record.as_ref().ok().map(|record| record.key);
        match record.and_then(|record| take_over(record, boot_id)) {
            Ok(mut child) if adopted.children.len() < MOST_CHILDREN => {
                hold_still(&mut child);
                say(&format!("adopts VM {} (pid {})", child.record.key.vm, child.record.pid));
                adopted.children.insert(child.record.key.vm, child);
            }
            Ok(_) => say(&format!("does not adopt {name}: it holds {MOST_CHILDREN} children")),
            Err(reason) => {
                say(&format!("drops the record {name}: {reason}"));
                records::remove_named(&name)?;
                let record = name;
                adopted.stale.push(Stale { record, key, reason });
            }
        }
    }
    let too_many = adopted.stale.len().saturating_sub(MOST_STALE);
    adopted.stale.drain(..too_many);
    Ok(adopted)
}

fn take_over(record: Record, boot_id: &str) -> Result<Child, String> {
    let dropped = |reason: String| {
        if let Some(mark) = &record.cgroup {
            cgroup::remove_if_empty(mark);
        }
        reason
    };
    let state = match &record.exit {
        _ if record.boot_id != boot_id => return Err("it is of another boot".to_owned()),
        Some(_) => State::Exited,
        None => State::Adopted {
            pidfd: hold(&record).map_err(dropped)?,
        },
    };
    Ok(Child {
        record,
        state,
        kill_ordered: false,
        superseded: false,
    })
}

/// The kernel or a sentinel has stopped it already, unless somebody meddled since: nothing is taken for granted.
fn hold_still(child: &mut Child) {
    if !child.is_leased() {
        return;
    }
    child.set_frozen(true);
    freezing::stop(child);
    freezing::record(child);
}

/// A pidfd of the record's process, if it is still that process.
fn hold(record: &Record) -> Result<OwnedFd, String> {
    let raw = record.pid;
    let pid = Pid::from_raw(raw).ok_or_else(|| format!("{raw} is no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| format!("pid {raw} is gone: {errno}"))?;
    let start_ticks = identity::start_ticks(raw).map_err(|error| format!("pid {raw} is gone: {error}"))?;
    if start_ticks != record.start_ticks {
        return Err(format!(
            "pid {raw} is another process: it started at tick {start_ticks}, not {}",
            record.start_ticks
        ));
    }
    match command_line(raw, record.key.vm, &pidfd) {
        Ok(Look::NamesVm | Look::StillEmpty) => Ok(pidfd),
        Ok(Look::Other) => Err(format!("pid {raw} does not name the VM on its command line")),
        Ok(Look::Ended) => Err(format!("pid {raw} has ended")),
        Err(error) => Err(format!("pid {raw} is gone: {error}")),
    }
}

/// What looking at a command line for a while led to.
enum Look {
    NamesVm,
    Other,
    Ended,
    /// It lives, and shows none.
    StillEmpty,
}

/// A process that executes its program in this very moment shows no command line, like one that has ended:
/// it is looked at until it shows one or ends.
fn command_line(pid: i32, vm: VmId, pidfd: &OwnedFd) -> io::Result<Look> {
    for _ in 0..LOOKS_DURING_EXEC {
        match identity::command_line(pid, vm)? {
            CommandLine::NamesVm => return Ok(Look::NamesVm),
            CommandLine::Other => return Ok(Look::Other),
            CommandLine::Empty if ends_within(pidfd, BETWEEN_LOOKS)? => return Ok(Look::Ended),
            CommandLine::Empty => {}
        }
    }
    Ok(Look::StillEmpty)
}

fn ends_within(pidfd: &OwnedFd, timeout: Timespec) -> io::Result<bool> {
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
