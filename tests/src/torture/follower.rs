//! `torture follower`: a follower goes and comes back, again and again, under writes to the leader. Nobody
//! may notice: no term may change and no write may fail.
//!
//! What comes back after an absence has heard of no leader for longer than any election takes. Without its
//! own asking first whether it could win, it would depose the healthy leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chainfire::kv::{Key, Value};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::hosts::{DiskPlan, Lab, LabPlan};
use crate::members::{Expectation, Fleet, MemberClient};

const MEMBERS: usize = 3;
const DISK_MIB: u32 = 512;
const WRITERS: usize = 16;
const KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 256;
/// After which a write counts as failed.
const WRITE: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(4);
/// How long is watched after a follower is back: longer than any election takes.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Between two looks at whether writes have begun.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a follower is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// Killed and started again.
    Restart,
    /// Stopped by SIGSTOP for 4 s.
    Pause,
    /// Cut off from the other members, both ways.
    Cut,
}

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often a follower goes and comes back, in each way.
    #[arg(long, default_value_t = 30)]
    pub times: u32,
    /// How long a follower is cut off.
    #[arg(long, default_value_t = 10.0)]
    pub cut_s: f64,
    /// The ways to be away.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["restart", "pause", "cut"])]
    pub only: Vec<Absence>,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub absences: BTreeMap<Absence, u32>,
    pub term_changes: u64,
    pub failed_writes: u64,
    pub acknowledged_writes: u64,
    pub longest_write_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.term_changes == 0 && self.failed_writes == 0 && self.acknowledged_writes > 0
    }
}

/// Builds a lab and does all absences in turn.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let lab = Lab::build(LabPlan {
        hosts: MEMBERS,
        disk: DiskPlan::Limited { mib: DISK_MIB },
    })?;
    lab.run(torment(&lab, options))
}

async fn torment(lab: &Lab, options: &Options) -> anyhow::Result<Report> {
    let fleet = Fleet::found(lab, MEMBERS, Vec::new()).await?;
    let mut report = Report::default();
    for turn in 0..options.times {
        for absence in &options.only {
            leave_and_return(&fleet, *absence, turn, options, &mut report)
                .await
                .with_context(|| format!("{absence:?} {turn}"))?;
            eprintln!(
                "follower {absence:?} {}: {} term changes, {} failed of {} writes, the longest took {:.0} ms",
                turn + 1,
                report.term_changes,
                report.failed_writes,
                report.acknowledged_writes + report.failed_writes,
                report.longest_write_ms
            );
        }
    }
    Ok(report)
}

async fn leave_and_return(
    fleet: &Fleet<'_>,
    absence: Absence,
    turn: u32,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let whole = Expectation {
        voters: MEMBERS,
        same_state: false,
    };
    fleet.await_whole(whole, WHOLE).await?;
    let leader = fleet.leader().await.context("nobody leads")?;
    let term = term(fleet, leader).await?;
    let follower = (leader + 1 + turn as usize % (MEMBERS - 1)) % MEMBERS;
    let writers = Writers::start(fleet, leader)?;
    writers.await_writing().await?;

    match absence {
        Absence::Restart => {
            fleet.kill(follower);
            fleet.restart(follower)?;
        }
        Absence::Pause => {
            fleet.pause(follower);
            tokio::time::sleep(PAUSE).await;
            fleet.resume(follower);
        }
        Absence::Cut => {
            let others: Vec<usize> = (0..MEMBERS).filter(|host| *host != follower).collect();
            fleet.lab().partition(&[&[follower], &others])?;
            tokio::time::sleep(Duration::from_secs_f64(options.cut_s)).await;
            fleet.lab().heal()?;
        }
    }
    fleet.await_whole(whole, WHOLE).await?;
    tokio::time::sleep(AFTERMATH).await;

    let seen = writers.end().await;
    report.term_changes += self::term(fleet, leader).await? - term;
    report.failed_writes += seen.failed;
    report.acknowledged_writes += seen.acknowledged;
    report.longest_write_ms = report.longest_write_ms.max(seen.longest.as_secs_f64() * 1e3);
    report.first_error = report.first_error.take().or(seen.first_error);
    *report.absences.entry(absence).or_default() += 1;
    Ok(())
}

async fn term(fleet: &Fleet<'_>, host: usize) -> anyhow::Result<u64> {
    let status = fleet.client(host, WRITE)?.status().await;
    Ok(status.map_err(|failure| anyhow::anyhow!("{failure}"))?.term)
}

#[derive(Debug, Default)]
struct Seen {
    acknowledged: u64,
    failed: u64,
    longest: Duration,
    first_error: Option<String>,
}

/// Clients that write through the leader, each on its own connection, until they are ended.
struct Writers {
    seen: Arc<Mutex<Seen>>,
    running: JoinSet<()>,
}

impl Writers {
    fn start(fleet: &Fleet<'_>, leader: usize) -> anyhow::Result<Self> {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut running = JoinSet::new();
        for place in 0..WRITERS as u64 {
            running.spawn(write(fleet.client(leader, WRITE)?, place, Arc::clone(&seen)));
        }
        Ok(Self { seen, running })
    }

    async fn await_writing(&self) -> anyhow::Result<()> {
        let writing = async {
            while self.seen.lock().acknowledged == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(WHOLE, writing).await.context("nothing is written")
    }

    async fn end(mut self) -> Seen {
        self.running.shutdown().await;
        std::mem::take(&mut *self.seen.lock())
    }
}

async fn write(client: MemberClient, place: u64, seen: Arc<Mutex<Seen>>) {
    let value = Value::from(vec![b'v'; VALUE_BYTES]);
    for number in (place..).step_by(WRITERS) {
        let key = Key::from(format!("/follower/{}", number % KEYS));
        let begun = Instant::now();
        let outcome = client.put(&key, &value).await;
        let mut seen = seen.lock();
        seen.longest = seen.longest.max(begun.elapsed());
        match outcome {
            Ok(_) => seen.acknowledged += 1,
            Err(failure) => {
                seen.failed += 1;
                seen.first_error.get_or_insert_with(|| failure.to_string());
            }
        }
    }
}
