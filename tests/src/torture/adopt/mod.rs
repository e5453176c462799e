//! `torture adopt`: the owner of a VM, or the guard, or both, are killed at a random moment of the VM's life,
//! and another process takes over what is there.
//!
//! ```text
//!  this process ── starts ──▶ owner ── guard ── QEMU
//!       │ kills owner, guard or both, after a random time of its script
//!       ├─ starts ──▶ heir: inherits, says what it found, ends every VM
//!       └─ compares: what the heir said, what ran before, and that nothing is left
//! ```
//! True means: a VM whose QEMU lived when the heir came is told as living, with the process that it has; one
//! whose QEMU did not is not; and in the end there is no QEMU, socket, folder or descriptor.

mod heir;
mod owner;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plasmavmc_guard::wire::Phase;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

pub use heir::run as run_heir;
pub use owner::run as run_owner;

use crate::vms::Place;

/// How long an owner's script takes at most; kills come at any moment of it.
const SCRIPT: Duration = Duration::from_millis(900);
const HEIR: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(20);
/// An heir that takes longer is told of.
const SLOW: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 200)]
    pub cycles: u32,
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Where the two processes work. Not for people: `torture adopt` starts them.
#[derive(Debug, Clone, clap::Args)]
pub struct At {
    #[arg(long)]
    pub dir: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub script: u32,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Victim {
    Owner,
    Guard,
    Both,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub cycles: u32,
    pub victims: std::collections::BTreeMap<&'static str, u32>,
    /// What the heirs found.
    pub prepared: u32,
    pub running: u32,
    pub stopping: u32,
    pub ended: u32,
    pub cleared: u32,
    pub nothing: u32,
    /// What was not as the heir said, or not as it should be.
    pub wrong: u32,
    pub leaked: u32,
    pub leaked_fds: i64,
    /// From the kill of its guard, if it lived on.
    pub slowest_owner_ms: u128,
    pub slowest_heir_ms: u128,
    pub seed: u64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.wrong + self.leaked == 0 && self.leaked_fds <= 0 && self.prepared > 0 && self.running > 0
    }
}

/// What an heir says it found and did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Testimony {
    /// Phase and process of each VM that runs.
    pub machines: Vec<(String, i32)>,
    pub ended: usize,
    pub cleared: usize,
    pub left_alone: Vec<String>,
    pub inherit_ms: u128,
    pub end_ms: u128,
}

pub async fn run(options: &Options) -> Result<Report> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new().await?;
    let mut report = Report {
        seed,
        ..Report::default()
    };
    // Starts the guard that the whole run uses, unless it is killed.
    place.host().keeper.list().await?;
    let mut fds_at_first = None;
    for cycle in 0..options.cycles {
        let victim = [Victim::Owner, Victim::Guard, Victim::Both][random.random_range(0..3)];
        // Squared: the start is short, and has the most moments at which something can be torn.
        let after = SCRIPT.mul_f64(random.random::<f64>().powi(2));
        let complaint = one_cycle(&place, cycle, victim, after, &mut report).await;
        report.cycles += 1;
        let name = match victim {
            Victim::Owner => "owner",
            Victim::Guard => "guard",
            Victim::Both => "both",
        };
        *report.victims.entry(name).or_default() += 1;
        if let Err(error) = complaint {
            report.wrong += 1;
            eprintln!("cycle {cycle} ({victim:?} after {after:?}, seed {seed}): {error:#}");
        }
        let left = leftovers(&place).await;
        if !left.is_empty() {
            report.leaked += 1;
            eprintln!("cycle {cycle} ({victim:?} after {after:?}, seed {seed}): left: {left:?}");
            clear(&place);
        }
        let fds = own_fds();
        let first = *fds_at_first.get_or_insert(fds);
        report.leaked_fds = fds - first;
        if cycle % 20 == 19 {
            eprintln!("{} cycles: {} wrong, {} leaked", cycle + 1, report.wrong, report.leaked);
        }
    }
    Ok(report)
}

async fn one_cycle(place: &Place, cycle: u32, victim: Victim, after: Duration, report: &mut Report) -> Result<()> {
    let mut owner = start("vm-owner", place.folder(), cycle)?;
    tokio::time::sleep(after).await;
    if victim != Victim::Owner
        && let Some(guard) = guard_pid(place).await
    {
        // An error means that it is gone already.
        let _ = kill_process(guard, Signal::KILL);
    }
    if victim != Victim::Guard {
        let _ = owner.start_kill();
    }
    // An owner that survives its guard goes on with its script, and ends by itself at its end.
    let waited = Instant::now();
    if tokio::time::timeout(HEIR, owner.wait()).await.is_err() {
        owner.start_kill()?;
        let output = owner.wait_with_output().await?;
        let steps = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
        bail!("the owner hangs after these steps: {steps}");
    }
    report.slowest_owner_ms = report.slowest_owner_ms.max(waited.elapsed().as_millis());
    settled(place).await?;
    let before = Living {
        qemus: place.qemus(),
        all: place.processes(),
    };

    let begun = Instant::now();
    let heir = start("vm-heir", place.folder(), cycle)?;
    let output = tokio::time::timeout(HEIR, heir.wait_with_output())
        .await
        .context("the heir hangs")??;
    let took = begun.elapsed();
    report.slowest_heir_ms = report.slowest_heir_ms.max(took.as_millis());
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the heir failed: {said}");
    let testimony: Testimony = serde_json::from_str(said.lines().last().unwrap_or_default()).context("its words")?;
    if took > SLOW {
        eprintln!("cycle {cycle} ({victim:?}): the heir took {took:?}: {testimony:?}");
    }
    judge(&testimony, &before, report)
}

/// What runs before an heir comes.
struct Living {
    qemus: Vec<Pid>,
    /// With what is about to become one: without a guard nobody says when it has.
    all: Vec<Pid>,
}

/// Waits for the starts that a guard has under way: an order counts also when who gave it is dead.
async fn settled(place: &Place) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    while let Ok(guard) = plasmavmc_guard::client::Client::connect(&place.guard_folder()) {
        // An error means that the guard is gone.
        let Ok(held) = guard.list().await else { break };
        let is_under_way = |phase: &Phase| matches!(phase, Phase::Preparing | Phase::Registered | Phase::Ending);
        if !held.iter().any(|held| is_under_way(&held.phase)) {
            break;
        }
        ensure!(Instant::now() < deadline, "a start takes for ever: {held:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn judge(testimony: &Testimony, before: &Living, report: &mut Report) -> Result<()> {
    let raw = |pids: &[Pid]| -> Vec<i32> { pids.iter().map(|pid| pid.as_raw_pid()).collect() };
    let (living, all) = (raw(&before.qemus), raw(&before.all));
    let told: Vec<i32> = testimony.machines.iter().map(|(_, pid)| *pid).collect();
    for (phase, _) in &testimony.machines {
        match phase.as_str() {
            "Prepared" => report.prepared += 1,
            "Running" => report.running += 1,
            _ => report.stopping += 1,
        }
    }
    report.ended += testimony.ended as u32;
    report.cleared += testimony.cleared as u32;
    if testimony.machines.is_empty() && testimony.ended + testimony.cleared == 0 {
        report.nothing += 1;
    }
    ensure!(
        testimony.left_alone.is_empty(),
        "left alone: {:?}",
        testimony.left_alone
    );
    // One that was on its way out may be told as ended.
    ensure!(
        told.iter().all(|pid| all.contains(pid)),
        "{told:?} is told, {living:?} lived, with {all:?}"
    );
    let missed = living.iter().filter(|pid| !told.contains(pid)).count();
    ensure!(
        missed <= testimony.ended,
        "{living:?} lived, {told:?} is told: {testimony:?}"
    );
    Ok(())
}

fn start(what: &str, dir: &Path, script: u32) -> Result<Child> {
    Ok(Command::new(std::env::current_exe()?)
        .arg(what)
        .arg("--dir")
        .arg(dir)
        .args(["--script", &script.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?)
}

async fn guard_pid(place: &Place) -> Option<Pid> {
    let client = plasmavmc_guard::client::Client::connect(&place.guard_folder()).ok()?;
    Pid::from_raw(client.status().await.ok()?.pid)
}

/// What an heir should not have left. What is about to go may take a moment.
async fn leftovers(place: &Place) -> Vec<String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let mut left: Vec<String> = place.qemus().iter().map(|pid| format!("QEMU {pid}")).collect();
        let folders = std::fs::read_dir(&place.host().vms).into_iter().flatten().flatten();
        left.extend(folders.map(|entry| entry.path().display().to_string()));
        match place.host().keeper.list().await {
            Ok(held) => left.extend(held.iter().map(|held| format!("held: {held:?}"))),
            Err(error) => left.push(format!("the guard: {error}")),
        }
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// So that one failed cycle does not fail those after it.
fn clear(place: &Place) {
    for pid in place.qemus() {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = std::fs::remove_dir_all(&place.host().vms);
}

fn own_fds() -> i64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64)
}
