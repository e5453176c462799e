//! `torture corrupt`: one member of three has a damaged file. It must never answer wrongly, and must end
//! repaired, seeded anew under another id, or refusing with a reason; no acknowledged write may be lost.
//!
//! Every third case is thin: the damaged member holds one of only two copies of the last writes, and comes
//! back with the one member that lacks them, while the one that has them is away. If it forgot what
//! it had acknowledged and still voted, those two would elect a leader without these writes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use chainfire::kv::{Key, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::damage::{self, Damage};
use super::writes::Writes;
use crate::history::Guard;
use crate::members::{Listing, Local, disagreement};

const MEMBERS: usize = 3;
const KEYS: u64 = 40;
const PREFIX: &str = "/corrupt/";
/// How long a damaged member may take to be whole again, or to refuse.
const HEALING: Duration = Duration::from_secs(60);
/// How long the thin pair is watched without the third member.
const THIN: Duration = Duration::from_millis(2500);
const GLANCE: Duration = Duration::from_millis(500);
const WRITE: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 300)]
    pub cases: u64,
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub cases: u64,
    /// Serves again under its own id (also where the damage touched nothing that mattered).
    pub repaired: u64,
    /// Serves again under a new id.
    pub reseeded: u64,
    /// Ended with a reason; a fresh member took its place.
    pub refused: u64,
    pub wrong_answers: u64,
    pub lost_writes: u64,
    /// Neither served nor refused in time, or refused without a word.
    pub stuck: u64,
    pub thin_cases: u64,
    pub answers_checked: u64,
    pub slowest_healing_s: f64,
    /// Cases by kind of file.
    pub by_file: BTreeMap<String, u64>,
    pub seed: u64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.wrong_answers + self.lost_writes + self.stuck == 0
    }
}

/// How a damaged member ended up.
enum Fate {
    Serves { id: u64 },
    Refused { reason: String },
    Stuck { detail: String },
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serves { id } => write!(f, "serves as member {id}"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Stuck { detail } => write!(f, "STUCK: {detail}"),
        }
    }
}

/// Runs all cases.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let seed = options
        .seed
        .unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    let mut bench = Bench {
        local: Local::found(MEMBERS, Vec::new()).await?,
        random: StdRng::seed_from_u64(seed),
        writes: Writes::default(),
        report: Report {
            seed,
            ..Report::default()
        },
    };
    for case in 0..options.cases {
        let before = (bench.report.wrong_answers, bench.report.lost_writes, bench.report.stuck);
        bench
            .case(case)
            .await
            .with_context(|| format!("case {case} of seed {seed}"))?;
        if before != (bench.report.wrong_answers, bench.report.lost_writes, bench.report.stuck) {
            // The next case needs a cluster that is whole.
            break;
        }
    }
    Ok(bench.report)
}

struct Bench {
    local: Local,
    random: StdRng,
    writes: Writes,
    report: Report,
}

impl Bench {
    async fn case(&mut self, case: u64) -> anyhow::Result<()> {
        let victim = self.random.random_range(0..MEMBERS);
        self.write(20, None).await?;
        if case % 4 == 3 {
            self.local.client(victim)?.snapshot().await?;
            self.write(10, None).await?;
        }
        let id = self
            .local
            .client(victim)?
            .status()
            .await?
            .member
            .context("a member")?
            .id;
        let thin = case % 3 == 2;
        let started;
        let damage;
        if thin {
            let (away, lagging) = ((victim + 1) % MEMBERS, (victim + 2) % MEMBERS);
            self.local.kill(lagging);
            // The victim and the one that will be away hold these, and nobody else.
            self.write(10, Some(away)).await?;
            damage = self.spoil(victim)?;
            self.local.kill(away);
            self.local.launch(lagging, false)?;
            self.launch(victim)?;
            started = Instant::now();
            self.observe_pair(victim, lagging).await?;
            self.local.launch(away, false)?;
            self.report.thin_cases += 1;
        } else {
            damage = self.spoil(victim)?;
            if self.random.random() {
                self.write(10, Some((victim + 1) % MEMBERS)).await?;
            }
            self.launch(victim)?;
            started = Instant::now();
        }
        let fate = self.heal(victim, started).await?;
        let healing = started.elapsed();
        self.report.slowest_healing_s = self.report.slowest_healing_s.max(healing.as_secs_f64());
        eprintln!(
            "case {case}{}: {damage}: {fate}, after {healing:.1?}",
            if thin { " (thin)" } else { "" }
        );
        self.settle(victim, id, fate).await?;
        self.report.cases += 1;
        Ok(())
    }

    fn spoil(&mut self, victim: usize) -> anyhow::Result<Damage> {
        self.local.kill(victim);
        let folder = self.local.members[victim].dir.clone();
        let damage = damage::inflict(&folder, &mut self.random)?.context("a member without files")?;
        *self.report.by_file.entry(damage::kind(&damage.file)).or_default() += 1;
        Ok(damage)
    }

    fn launch(&mut self, victim: usize) -> anyhow::Result<()> {
        self.local.launch(victim, false)
    }

    /// Writes through a given member or any, and learns the revision of every write.
    async fn write(&mut self, count: u64, through: Option<usize>) -> anyhow::Result<()> {
        let end = Instant::now() + WRITE;
        for _ in 0..count {
            let key = Key::from(format!("{PREFIX}{}", self.random.random_range(0..KEYS)));
            let number = self.writes.made.len();
            let padding = "=".repeat(self.random.random_range(0..1500));
            let value = Value::from(format!("write {number} {padding}"));
            let member = through.unwrap_or_else(|| self.random.random_range(0..MEMBERS));
            let client = self.local.client(member)?;
            // Guarded by what is there now, so that a write tried again is made once at most.
            let guard = Guard::Revision(self.writes.last_change(&key));
            let revision = loop {
                let outcome = client.swap(&key, &guard, &value).await;
                if let Ok((revision, true)) = outcome {
                    break revision;
                }
                if let Ok((_, Some(row))) = client.get(&key, false).await
                    && row.value == value
                {
                    break row.mod_revision;
                }
                if Instant::now() > end {
                    anyhow::bail!("not written with a quorum within {WRITE:?}: {outcome:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            self.writes.made.insert(revision, (key, value));
        }
        Ok(())
    }

    /// Watches a pair of which one member may have forgotten writes and the other never had them. Together
    /// they may serve, if the damaged one still has everything; a linearizable listing tells.
    async fn observe_pair(&mut self, victim: usize, lagging: usize) -> anyhow::Result<()> {
        let end = Instant::now() + THIN;
        while Instant::now() < end {
            self.check_stale(victim).await?;
            if let Some(listing) = self.glance(lagging, false).await? {
                let last = self.writes.last_revision();
                if let Some(fault) = self.writes.fault(last, &listing.rows) {
                    // Whether they are gone for good is seen when the third member is back.
                    eprintln!("WRONG: the pair serves without acknowledged writes: {fault}");
                    self.report.wrong_answers += 1;
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// All keys, if the member answers soon.
    async fn glance(&self, member: usize, stale: bool) -> anyhow::Result<Option<Listing>> {
        let (client, prefix) = (self.local.client(member)?, Key::from(PREFIX));
        let listing = tokio::time::timeout(GLANCE, client.list(&prefix, 0, stale)).await;
        Ok(listing.ok().and_then(Result::ok))
    }

    /// A stale listing of a member, if it serves any: it may be old, but must have been true once.
    async fn check_stale(&mut self, member: usize) -> anyhow::Result<()> {
        if let Some(listing) = self.glance(member, true).await? {
            self.report.answers_checked += 1;
            if let Some(fault) = self.writes.fault(listing.revision, &listing.rows) {
                eprintln!("WRONG: a stale listing: {fault}");
                self.report.wrong_answers += 1;
            }
        }
        Ok(())
    }

    async fn heal(&mut self, victim: usize, started: Instant) -> anyhow::Result<Fate> {
        let mut detail = String::new();
        while started.elapsed() < HEALING {
            let process = self.local.members[victim].process.clone().context("it was started")?;
            if let Some(status) = process.exit() {
                let reason = process.log_tail(1);
                let silent = status.success() || reason.trim().is_empty();
                return Ok(match silent {
                    true => Fate::Stuck {
                        detail: format!("ended with {status} and no reason"),
                    },
                    false => Fate::Refused { reason },
                });
            }
            self.check_stale(victim).await?;
            match self.local.await_whole(MEMBERS, true, Duration::ZERO).await {
                Ok(()) => {
                    let status = self.local.client(victim)?.status().await?;
                    return Ok(Fate::Serves {
                        id: status.member.context("a member")?.id,
                    });
                }
                Err(error) => detail = format!("{error:#}"),
            }
            self.check_digests().await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Fate::Stuck { detail })
    }

    async fn check_digests(&mut self) -> anyhow::Result<()> {
        let mut statuses = Vec::new();
        for member in 0..MEMBERS {
            statuses.extend(self.local.client(member)?.status().await.ok());
        }
        if let Some(detail) = disagreement(&statuses) {
            eprintln!("WRONG: {detail}");
            self.report.wrong_answers += 1;
        }
        Ok(())
    }

    /// Counts the fate, makes the cluster whole, and looks for every acknowledged write at every member.
    async fn settle(&mut self, victim: usize, old_id: u64, fate: Fate) -> anyhow::Result<()> {
        match fate {
            Fate::Serves { id } if id == old_id => self.report.repaired += 1,
            Fate::Serves { .. } => self.report.reseeded += 1,
            Fate::Refused { .. } => {
                self.report.refused += 1;
                self.replace(victim, old_id).await?;
            }
            Fate::Stuck { .. } => {
                self.report.stuck += 1;
                return Ok(());
            }
        }
        for member in 0..MEMBERS {
            let listing = self.local.client(member)?.list(&Key::from(PREFIX), 7, false).await?;
            let last = self.writes.last_revision();
            self.report.answers_checked += 1;
            if let Some(fault) = self.writes.fault(last, &listing.rows) {
                eprintln!("LOST: {fault}");
                self.report.lost_writes += 1;
            }
        }
        self.check_digests().await
    }

    async fn replace(&mut self, victim: usize, old_id: u64) -> anyhow::Result<()> {
        self.local.kill(victim);
        let other = self.local.client((victim + 1) % MEMBERS)?;
        let end = Instant::now() + WRITE;
        loop {
            // The other one may have been started a moment ago.
            let failure = match other.status().await {
                // A member that was about to seed itself anew may have left already.
                Ok(status) if status.members.iter().all(|member| member.id != old_id) => break,
                Ok(_) => other.remove_member(old_id).await.err(),
                Err(failure) => Some(failure),
            };
            if let Some(failure) = failure {
                anyhow::ensure!(Instant::now() < end, "removing member {old_id}: {failure}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        std::fs::remove_dir_all(&self.local.members[victim].dir)?;
        self.local.launch(victim, true)?;
        self.local.await_whole(MEMBERS, true, HEALING).await
    }
}
