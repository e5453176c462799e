//! Learning that a frozen child was started elsewhere, from claims that disposable readers look for.
//!
//! ```text
//!   frozen, has claims folders: every 500 ms
//!        |
//!        v        ends                    higher than its incarnation, and it is frozen still
//!     reading ----------> (gone)    . . . . . . . . . . . . . . . . . . . . . . . . . . . . . > SIGKILL
//!        |                  ^
//!        | 5 s: SIGKILL     | when the kernel lets it end; until then no other one for this VM
//!        +------------------+
//! ```
//!
//! Each line that a reader writes is a claim that was read in a folder of that VM, so it counts whatever becomes
//! of the reader. Anything else a reader does means nothing: not its exit status, not its silence.
//!
//! Must never happen: a wait for a reader; a child killed that executes, or on anything but a number above its
//! own incarnation; more readers hanging than [`MOST_READERS`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use plasmavmc_types::{Incarnation, VmId};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Guard;
use super::child::{Reaped, reap};
use super::freezing::now_ms;
use crate::claims::{COMMAND, parse};
use crate::journal::say;
use crate::wire::Key;

const MOST_READERS: usize = 16;
const BETWEEN_READERS_MS: u64 = 500;
const PATIENCE_MS: u64 = 5000;
/// The numbers of all folders that a child may have, with much to spare.
const MOST_OUTPUT_BYTES: usize = 4096;

/// The readers under way, at most one for a VM, and when each VM had its last.
#[derive(Debug, Default)]
pub struct Readers {
    running: BTreeMap<VmId, Reader>,
    begun: BTreeMap<VmId, Begun>,
}

/// How often readers were begun for a frozen child: each begins at another folder, since one may hang.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at_ms: u64,
    times: usize,
}

#[derive(Debug)]
pub struct Reader {
    pidfd: OwnedFd,
    /// What it says and of whom; absent when that is of no interest any more.
    output: Option<Output>,
    /// Absent when SIGKILL was sent.
    kill_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Output {
    key: Key,
    pipe: OwnedFd,
    said: Vec<u8>,
}

impl Reader {
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(|output| output.pipe.as_fd())
    }

    /// Nobody waits for it: a reader of a dead pool ends when the kernel lets it.
    fn kill(&mut self) {
        self.kill_at_ms = None;
        self.output = None;
        // It fails only if it is gone.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Readers {
    pub fn iter(&self) -> impl Iterator<Item = (VmId, &Reader)> {
        self.running.iter().map(|(vm, reader)| (*vm, reader))
    }

    /// A reader of the program before this one. What it found is lost; that it may hang is not.
    pub fn take_over(&mut self, vm: VmId, pidfd: OwnedFd) {
        let mut reader = Reader {
            pidfd,
            output: None,
            kill_at_ms: None,
        };
        reader.kill();
        self.running.insert(vm, reader);
    }

    /// When a VM may have its next reader; `None` while it has one.
    fn due_ms(&self, vm: VmId) -> Option<u64> {
        if self.running.contains_key(&vm) {
            return None;
        }
        Some(self.begun.get(&vm).map_or(0, |begun| begun.at_ms + BETWEEN_READERS_MS))
    }
}

impl Guard {
    /// How long the loop may sleep for the claims' sake.
    pub(super) fn until_claims_are_due(&self, now_ms: u64) -> Option<Duration> {
        let kills = self.readers.running.values().filter_map(|reader| reader.kill_at_ms);
        let next_ms = kills.chain(self.next_reader().map(|(_, due_ms)| due_ms)).min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(now_ms)))
    }

    /// Ends slow readers and begins one that is due. Only one: the deadline is looked at between any two.
    pub(super) fn tend_readers(&mut self) {
        let now_ms = now_ms();
        for reader in self.readers.running.values_mut() {
            if reader.kill_at_ms.is_some_and(|kill_at_ms| kill_at_ms <= now_ms) {
                reader.kill();
            }
        }
        let children = &self.children;
        let is_frozen = |vm: &VmId| children.get(vm).is_some_and(|child| child.is_frozen());
        self.readers.begun.retain(|vm, _| is_frozen(vm));
        if let Some((vm, due_ms)) = self.next_reader()
            && due_ms <= now_ms
        {
            self.begin_reader(vm, now_ms);
        }
    }

    /// The frozen child that waits longest for a reader, if there is room for one.
    fn next_reader(&self) -> Option<(VmId, u64)> {
        if self.readers.running.len() >= MOST_READERS {
            return None;
        }
        let waiting = self.children.iter().filter(|(_, child)| {
            let claims = child.record.lease.as_ref().map(|lease| &lease.claims);
            child.is_frozen() && !child.superseded && claims.is_some_and(|claims| !claims.is_empty())
        });
        let due = waiting.filter_map(|(vm, _)| Some((*vm, self.readers.due_ms(*vm)?)));
        due.min_by_key(|(_, due_ms)| *due_ms)
    }

    fn begin_reader(&mut self, vm: VmId, now_ms: u64) {
        let Some(child) = self.children.get(&vm) else { return };
        let Some(lease) = &child.record.lease else { return };
        let times = self.readers.begun.get(&vm).map_or(0, |begun| begun.times);
        let mut folders = lease.claims.clone();
        folders.rotate_left(times % lease.claims.len().max(1));
        match start(&folders) {
            Ok((pidfd, pipe)) => {
                let (key, said) = (child.record.key, Vec::new());
                let reader = Reader {
                    pidfd,
                    output: Some(Output { key, pipe, said }),
                    kill_at_ms: Some(now_ms + PATIENCE_MS),
                };
                self.readers.running.insert(vm, reader);
            }
            // Said once a child, or a host out of processes would fill the log.
            Err(error) if times == 0 => say(&format!("the claims of VM {vm} are not read: {error}")),
            Err(_) => {}
        }
        let (at_ms, times) = (now_ms, times.wrapping_add(1));
        self.readers.begun.insert(vm, Begun { at_ms, times });
    }

    /// A reader wrote something, or closed its output.
    pub(super) fn hear_reader(&mut self, vm: VmId) {
        let Some(reader) = self.readers.running.get_mut(&vm) else {
            return;
        };
        let Some(output) = &mut reader.output else { return };
        let key = output.key;
        let mut bytes = [0; MOST_OUTPUT_BYTES];
        let is_over = match rustix::io::read(&output.pipe, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) | Ok(0) => true,
            Ok(count) => {
                output.said.extend_from_slice(&bytes[..count]);
                output.said.len() > MOST_OUTPUT_BYTES
            }
        };
        let highest = highest_line(&output.said);
        if is_over {
            reader.output = None;
        }
        if let Some(highest) = highest {
            self.weigh_claim(key, Incarnation::from_raw(highest));
        }
    }

    /// A reader ended. What it said before is heard first.
    pub(super) fn bury_reader(&mut self, vm: VmId) {
        self.hear_reader(vm);
        let Some(reader) = self.readers.running.get(&vm) else {
            return;
        };
        match reap(reader.pidfd()) {
            Reaped::NotYet => {}
            Reaped::Status(_) | Reaped::Lost => drop(self.readers.running.remove(&vm)),
        }
    }

    /// A claim was read. It is the proof that a child is superseded if it is higher than the child's own.
    fn weigh_claim(&mut self, key: Key, claimed: Incarnation) {
        let Some(child) = self.children.get_mut(&key.vm) else {
            return;
        };
        let Some(own) = child.record.lease.as_ref().map(|lease| lease.incarnation) else {
            return;
        };
        // It may have been let go, or be another attempt, by the time its reader is heard.
        if child.record.key != key || !child.is_frozen() || child.superseded || claimed <= own {
            return;
        }
        match child.kill() {
            Ok(()) => {
                child.superseded = true;
                say(&format!(
                    "kills VM {} (pid {}): it is frozen at incarnation {own}, and there is a claim of {claimed}",
                    key.vm, child.record.pid
                ));
            }
            // The next reader leads here again.
            Err(errno) => say(&format!("VM {} could not be killed: {errno}", key.vm)),
        }
    }
}

/// The program as it runs now; without environment, input, or anything of the guard's.
fn start(folders: &[String]) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .args(folders)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = child.stdout.take().map(OwnedFd::from);
    let opened = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).and_then(|pidfd| {
        let pipe = pipe.ok_or(Errno::BADF)?;
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok((pidfd, pipe))
    });
    opened.map_err(|errno| {
        // Not waited for: it may hang already. As a zombie it costs an entry in a table.
        let _ = child.kill();
        errno.into()
    })
}

/// Of the lines that are complete. The rest is no number yet.
fn highest_line(said: &[u8]) -> Option<u64> {
    let text = str::from_utf8(said).ok()?;
    let (complete, _) = text.rsplit_once('\n')?;
    complete.lines().filter_map(parse).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_lines_count() {
        for (said, expected) in [
            ("", None),
            ("12", None),
            ("12\n", Some(12)),
            ("12\n3\n", Some(12)),
            ("3\n12", Some(3)),
            ("3\nx\n-5\n", Some(3)),
            ("\n\n", None),
        ] {
            assert_eq!(highest_line(said.as_bytes()), expected, "{said:?}");
        }
        assert_eq!(highest_line(b"3\n\xff\n"), None);
    }
}
