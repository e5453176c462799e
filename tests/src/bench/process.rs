//! One member's process: start, stop, kill, pause, and what it costs.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a member may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long a member may take to be gone after SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A running member. Killed, and gone, when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
}

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All resident pages, those of mapped files included.
    pub resident_mb: f64,
    /// Resident pages that no file backs.
    pub anonymous_mb: f64,
}

impl Process {
    /// Starts `command` in the process group `group`, its output appended to `log`.
    pub fn start(mut command: Command, group: i32, log: &Path) -> Result<Self> {
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        // Variables with these names are flags to the members: what this shell has set for other
        // purposes must not reach them.
        for (name, _) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            let given = command.as_std().get_envs().any(|(key, _)| key == name);
            if !given && (name.starts_with("ETCD_") || name.starts_with("CHAINFIRE_")) {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(group)
            .spawn()
            .with_context(|| format!("starting {:?}", command.as_std().get_program()))?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("a process without an id"))?;
        Ok(Self { child, pid })
    }

    /// `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(mut self) -> Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        match timeout(STOP_DEADLINE, self.child.wait()).await {
            Ok(status) => status.map(drop).context("waiting for a member to end"),
            Err(_) => bail!("a member did not end within {STOP_DEADLINE:?} of SIGTERM"),
        }
    }

    /// Sends SIGKILL without waiting, so that the moment of death is the moment of the call.
    pub fn start_kill(&mut self) -> Result<()> {
        Ok(self.child.start_kill()?)
    }

    /// Sends SIGKILL and waits for the end.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGSTOP.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    /// Sends SIGCONT.
    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }

    pub fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(Memory {
            resident_mb: status_mb(&status, "VmRSS")?,
            anonymous_mb: status_mb(&status, "RssAnon")?,
        })
    }

    /// Processor time used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(&self.pid.to_string())
    }
}

impl Drop for Process {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot await; bounded by its deadline")]
    /// Returns when the process is gone, so that its folder can go too.
    fn drop(&mut self) {
        let deadline = Instant::now() + KILL_DEADLINE;
        // An error means that it has ended before.
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Processor time that this program has used so far.
pub fn own_cpu_time() -> Result<Duration> {
    cpu_time("self")
}

/// Processor time that a process has used so far.
pub fn cpu_time_of(pid: &str) -> Result<Duration> {
    cpu_time(pid)
}

/// What of a process is in memory.
pub fn resident_mb_of(pid: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status_mb(&status, "VmRSS")
}

fn cpu_time(pid: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| anyhow!("malformed /proc/{pid}/stat"))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// User and system time of a line of `/proc/<pid>/stat`: its 14th and 15th field.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_mb(status: &str, field: &str) -> Result<f64> {
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .ok_or_else(|| anyhow!("no {field} in the status of a process"))?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_read() {
        assert_eq!(cpu_ticks("7 (x y) S 1 7 7 0 -1 4 5 6 7 8 30 12 0 0"), Some(42));
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(status_mb(status, "VmRSS").ok(), Some(2.0));
        assert_eq!(status_mb(status, "RssAnon").ok(), Some(0.5));
        assert!(status_mb(status, "VmSwap").is_err());
    }

    #[test]
    fn own_time_moves() {
        let before = own_cpu_time().expect("readable");
        let mut sum = 0u64;
        while own_cpu_time().expect("readable") == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(own_cpu_time().expect("readable") > before);
    }
}
