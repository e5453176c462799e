//! Guest channels under abuse, with a real guest and a real agent.
//!
//! What went wrong elsewhere, done on purpose and many times: the server side goes away and comes back, QEMU
//! is started before anybody listens, the agent is killed in the middle of a frame, and nobody takes what
//! the guest writes. After each, bytes must flow again, by themselves. At the end no descriptor may be left,
//! neither here nor in QEMU.

mod abuse;
mod guest;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use guest::{Guest, Start};

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The folder with the micro guest's kernel and initrd; by default, where `cargo xtask guest-image micro` puts it.
    #[arg(long)]
    pub guest: Option<PathBuf>,
    /// Connections of the server side that end and come back.
    #[arg(long, default_value_t = 1000)]
    pub reconnects: u64,
    /// How often the agent is killed while it answers.
    #[arg(long, default_value_t = 20)]
    pub agent_kills: u32,
}

/// What `torture channel` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Orders of starting after which the agent answered or failed to.
    pub startup_cases: u32,
    /// Whatever did not come back in time.
    pub failures: u32,
    pub reconnects: u64,
    /// Agents that were killed while they answered, and came back.
    pub agent_kills: u32,
    /// Bytes a guest wrote while nobody took them.
    pub drained_bytes: u64,
    pub leaked_fds: usize,
    pub seconds: f64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.failures == 0 && self.leaked_fds == 0
    }
}

/// How long bytes may take to flow again: QEMU connects anew after a second, and this machine may be busy.
const FLOW_RETURNS: Duration = Duration::from_secs(20);

pub async fn run(options: &Options) -> Result<Report> {
    let image = match &options.guest {
        Some(folder) => folder.clone(),
        None => crate::vms::guest("micro")?,
    };
    let started = Instant::now();
    let fds_before = open_fds("self")?;
    let mut report = Report {
        startup_cases: 0,
        failures: 0,
        reconnects: 0,
        agent_kills: 0,
        drained_bytes: 0,
        leaked_fds: 0,
        seconds: 0.0,
    };
    for start in Start::ALL {
        report.startup_cases += 1;
        match Guest::boot(&image, start).await {
            Ok(guest) => guest.close().await,
            Err(error) => report.fails(&format!("start {start:?}"), &error),
        }
    }
    let guest = Guest::boot(&image, Start::ListenerFirst).await?;
    let qemu_before = open_fds(&guest.pid())?;
    abuse::reconnect(&guest, options.reconnects, &mut report).await;
    abuse::kill_agents(&guest, options.agent_kills, &mut report).await;
    abuse::leave_unread(&guest, &mut report).await;
    // All sessions are those of the beginning again, one for a port.
    report.leaked_fds += guest.settled_fds(qemu_before).await?.saturating_sub(qemu_before);
    guest.close().await;
    report.leaked_fds += open_fds("self")?.saturating_sub(fds_before);
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

impl Report {
    fn fails(&mut self, what: &str, error: &anyhow::Error) {
        eprintln!("torture channel: {what}: {error:#}");
        self.failures += 1;
    }
}

/// The descriptors of a process, by its number or `self`.
fn open_fds(process: &str) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/fd"))?.count())
}
