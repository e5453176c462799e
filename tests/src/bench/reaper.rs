//! Ends every member and removes their folder when the benchmark ends, in whatever way it ends.
//!
//! The reaper is a process of its own: this binary, started again as `reap DIR`, the head of a process
//! group that every member joins as it is started. It waits for the end of its standard input, which
//! comes when the benchmark returns, panics, is interrupted or is killed, and then ends its group.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, kill_process};

/// How long the members of the group get to be gone after SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// The benchmark's hold on its reaper.
#[derive(Debug)]
pub struct Reaper {
    child: Child,
    /// Closed to set the reaper to work.
    stdin: Option<ChildStdin>,
}

impl Reaper {
    /// Starts a reaper that removes `dir` at the end.
    pub fn start(dir: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;

        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .arg("reap")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the reaper")?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// The process group that members must join.
    pub fn group(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Bounded by KILL_DEADLINE on its side.
        if let Err(error) = self.child.wait() {
            eprintln!("waiting for the reaper: {error}");
        }
    }
}

/// What the reaper process runs.
pub fn reap(dir: &Path) -> Result<()> {
    let mut ignored = Vec::new();
    std::io::stdin().lock().read_to_end(&mut ignored)?;
    end_group()?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Kills every other process of this process's group until none is left.
#[expect(
    clippy::disallowed_methods,
    reason = "strangers' ends are polled for, up to a deadline"
)]
fn end_group() -> Result<()> {
    let own = getpid();
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let others = group_members(own)?;
        if others.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("still running after SIGKILL: {others:?}");
        }
        for pid in others {
            // Gone in between is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        // Processes that are not our children cannot be waited for.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The living processes of `group` other than its head.
fn group_members(group: Pid) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        if pid != group && is_alive_in_group(&stat, group) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Reads a line of `/proc/<pid>/stat`: pid (name) state parent group ...
fn is_alive_in_group(stat: &str, group: Pid) -> bool {
    // The name may hold spaces and brackets, so count from the last bracket.
    let Some((_, after_name)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = after_name.split_whitespace();
    let state = fields.next();
    let process_group = fields.nth(1).and_then(|field| field.parse().ok());
    !matches!(state, Some("Z" | "X")) && process_group == Some(group.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_read_past_a_name_with_brackets() {
        let group = Pid::from_raw(77).expect("not zero");
        assert!(is_alive_in_group("80 (a) b) S 1 77 77 0", group));
        assert!(!is_alive_in_group("80 (a) b) S 77 1 77 0", group));
        assert!(!is_alive_in_group("80 (a) Z 1 77 77 0", group));
    }
}
