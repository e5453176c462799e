//! `torture kv`: phases of faults until the time is over, and the report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::faults::{Fault, Sabotage, Schedule, Tally};
use super::phase::{self, Outcome, Plan};
use crate::history::ViolationKind;
use crate::hosts::{DiskPlan, Lab, LabPlan};
use crate::members::Fleet;

/// Hosts of every lab: five voters, or three and two spare.
const HOSTS: usize = 5;
/// Room for the data of a run; a member that keeps more would meet "disk full" by itself.
const DISK_MIB: u32 = 512;
/// More of them are only counted.
const SHOWN_VIOLATIONS: usize = 20;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How long to torture. Every fault is met once, even if that takes longer.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    #[arg(long, value_enum, default_value_t = Members::Both)]
    pub members: Members,
    /// Repeats the faults of an earlier run (what they meet differs all the same).
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run members with this defect, and succeed if it is caught.
    #[arg(long = "break", value_enum)]
    pub sabotage: Option<Sabotage>,
    /// Every fault once on three members.
    #[arg(long)]
    pub quick: bool,
}

/// How many voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Members {
    #[value(name = "3")]
    Three,
    #[value(name = "5")]
    Five,
    Both,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub kills: u64,
    /// Kinds of faults that were never met.
    pub missed: Vec<Fault>,
    pub faults: BTreeMap<Fault, u64>,
    pub operations: usize,
    pub violations: usize,
    pub lost_writes: usize,
    pub watch_gaps: usize,
    pub seed: u64,
    pub phases: u64,
    pub unknown_outcomes: usize,
    pub compacted_replays: usize,
    pub slowest_recovery_s: f64,
    pub minutes: f64,
    pub violation_kinds: BTreeMap<ViolationKind, usize>,
    #[serde(rename = "break", skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught: Option<bool>,
}

impl Report {
    /// Whether the run shows what it is run for.
    pub fn is_success(&self) -> bool {
        match self.caught {
            Some(caught) => caught,
            None => self.violations == 0 && self.missed.is_empty(),
        }
    }

    fn has_proof(&self) -> bool {
        self.violation_kinds.keys().any(|kind| kind.is_proof())
    }

    fn add(&mut self, outcome: &Outcome) {
        self.phases += 1;
        self.operations += outcome.verdict.operations;
        self.unknown_outcomes += outcome.unknown;
        self.compacted_replays += outcome.compacted_replays;
        self.slowest_recovery_s = self.slowest_recovery_s.max(outcome.recovered_in.as_secs_f64());
        for violation in &outcome.verdict.violations {
            if self.violations < SHOWN_VIOLATIONS {
                eprintln!("VIOLATION: {violation}");
            }
            self.violations += 1;
            *self.violation_kinds.entry(violation.kind()).or_default() += 1;
        }
        let count = |kind| self.violation_kinds.get(&kind).copied().unwrap_or(0);
        self.lost_writes = count(ViolationKind::LostWrite);
        self.watch_gaps = count(ViolationKind::Watch);
    }
}

/// Runs it all.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let seed = options
        .seed
        .unwrap_or_else(|| rand::rng().random_range(0..u64::from(u32::MAX)));
    let started = Instant::now();
    let mut report = Report {
        seed,
        sabotage: options.sabotage,
        ..Report::default()
    };
    let mut tally = Tally::default();
    let sizes: &[usize] = match options.members {
        _ if options.quick || options.sabotage.is_some() => &[3],
        Members::Three => &[3],
        Members::Five => &[5],
        Members::Both => &[3, 5],
    };
    let minutes = if options.quick { 0.0 } else { options.minutes };
    let share = Duration::from_secs_f64(minutes * 60.0 / sizes.len() as f64);
    for voters in sizes {
        eprintln!("{voters} members, seed {seed}");
        // The names in the lab are free again: each size has a lab of its own.
        let lab = Lab::build(LabPlan {
            hosts: HOSTS,
            disk: DiskPlan::Limited { mib: DISK_MIB },
        })?;
        lab.run(torture(&lab, options, *voters, share, &mut report, &mut tally))?;
        if report.violations > 0 {
            eprintln!(
                "logs of members: set {}=1 to keep the lab's folder",
                crate::hosts::KEEP_ENV
            );
            break;
        }
    }
    report.kills = tally.kills;
    report.missed = if options.sabotage.is_some() {
        Vec::new()
    } else {
        tally.missed()
    };
    report.faults = tally.faults;
    report.minutes = started.elapsed().as_secs_f64() / 60.0;
    report.caught = options.sabotage.map(|_| report.has_proof());
    Ok(report)
}

async fn torture(
    lab: &Lab,
    options: &Options,
    voters: usize,
    share: Duration,
    report: &mut Report,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let env = options.sabotage.map(Sabotage::env).unwrap_or_default();
    let fleet = Fleet::found(lab, voters, env).await?;
    let mut schedule = Schedule::new(options.sabotage, StdRng::seed_from_u64(report.seed ^ voters as u64));
    let length = Duration::from_secs(if options.quick { 3 } else { 7 });
    let end = Instant::now() + share;
    let mut struck = Tally::default();
    // Without time left, the faults that are still missing are met all the same.
    while Instant::now() < end || (options.sabotage.is_none() && !struck.missed().is_empty()) {
        let plan = Plan {
            number: report.phases,
            seed: report.seed,
            mix: schedule.next(),
            length,
            voters,
        };
        let started = Instant::now();
        let outcome = phase::run(&fleet, &plan).await?;
        struck.add(&outcome.tally);
        tally.add(&outcome.tally);
        report.add(&outcome);
        eprintln!(
            "phase {}: {:?}: {} operations, {} unknown, {} kills, recovered in {:.1?}, {:.1?} in all, {} violations",
            plan.number,
            plan.mix,
            outcome.verdict.operations,
            outcome.unknown,
            outcome.tally.kills,
            outcome.recovered_in,
            started.elapsed(),
            outcome.verdict.violations.len()
        );
        // Nothing that comes after a violation can be trusted to be another one.
        if report.violations > 0 {
            break;
        }
    }
    Ok(())
}
