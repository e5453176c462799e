//! What can be measured. Each section starts the clusters it needs and ends them.

mod catchup;
mod failover;
mod follower;
mod memory;
mod restart;
mod scale;
mod slow_disk;
mod throughput;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result};

use super::lab::Lab;
use super::load::Work;
use super::report::Report;

/// How long writes may stop before a section gives up.
const OUTAGE_DEADLINE: Duration = Duration::from_secs(60);

/// A part of the run that can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    /// Puts at 1, 16, 64 and 256 clients.
    Put,
    /// Linearizable gets at 1, 16, 64 and 256 clients.
    Get,
    /// Transactions of one compare and one put at 64 clients.
    Txn,
    /// An event to 1,000 watches.
    Watch,
    /// Puts with a slow disk under our log.
    SlowDisk,
    /// Memory with 100,000 keys, before and after a restart.
    Memory,
    /// Puts with ever more distinct keys.
    Scale,
    /// From start to serving with 100,000 keys.
    Restart,
    /// Leaders killed and paused under load.
    Failover,
    /// Followers restarted and paused under load.
    Follower,
    /// A fresh member joins a full store while writes go on.
    Catchup,
}

impl Section {
    pub async fn run(self, lab: &Lab, report: &mut Report) -> Result<()> {
        let began = std::time::Instant::now();
        say(format_args!("== {self:?}"));
        let outcome = match self {
            Section::Put => throughput::run(lab, report, Work::Put, &[1, 16, 64, 256]).await,
            Section::Get => throughput::run(lab, report, Work::Get, &[1, 16, 64, 256]).await,
            Section::Txn => throughput::run(lab, report, Work::Txn, &[64]).await,
            Section::Watch => watch::run(lab, report).await,
            Section::SlowDisk => slow_disk::run(lab, report).await,
            Section::Memory => memory::run(lab, report).await,
            Section::Scale => scale::run(lab, report).await,
            Section::Restart => restart::run(lab, report).await,
            Section::Failover => failover::run(lab, report).await,
            Section::Follower => follower::run(lab, report).await,
            Section::Catchup => catchup::run(lab, report).await,
        };
        say(format_args!("   {:.0} s", began.elapsed().as_secs_f64()));
        outcome.with_context(|| format!("section {self:?}"))
    }
}

/// Progress for people. Standard output is left to the result.
fn say(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

/// The other members than `leader` of a cluster of `members`.
fn followers(leader: usize, members: usize) -> Vec<usize> {
    (0..members).filter(|&member| member != leader).collect()
}
