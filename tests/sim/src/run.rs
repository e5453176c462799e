//! Many seeds on all cores, and what came of them.
//!
//! A seed decides everything: the cluster, the delays, the faults and the clients.

mod random;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::breaks::Break;
use crate::check::Violation;
use crate::log::Level;
use crate::world::{Counts, World};

pub use random::{Profile, setup_of};

const REST_LOOK_MS: u64 = 500;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Lived {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub counts: Counts,
    pub rested_after_ms: u64,
}

/// Plays one seed to its end.
pub fn live(seed: u64, broken: Option<Break>, keeps: Option<Level>) -> (Lived, World) {
    let (setup, events) = setup_of(seed, broken);
    let (heal_at_ms, rest_within_ms) = (setup.heal_at_ms, setup.rest_within_ms);
    let mut world = World::new(setup, keeps);
    let all_are_well = random::all_are_well(broken, seed);
    for (at_ms, what) in events {
        world.at(at_ms, crate::world::Event::Outside(what));
    }
    world.run_until(heal_at_ms);
    let mut rested_after_ms = 0;
    while world.check.violations.is_empty() {
        let missing = world.unsettled();
        if missing.is_empty() {
            world.check_lost();
            break;
        }
        if rested_after_ms >= rest_within_ms {
            world.violated("it comes to rest", missing.join("; "));
            break;
        }
        rested_after_ms += REST_LOOK_MS;
        world.run_until(heal_at_ms + rested_after_ms);
    }
    if all_are_well && world.counts.fences > 0 {
        let fences = world.counts.fences;
        world.violated("false fence", format!("{fences} hosts were fenced that were well"));
    }
    let lived = Lived {
        seed,
        violations: world.check.violations.clone(),
        counts: world.counts,
        rested_after_ms,
    };
    (lived, world)
}

/// One seed, told in full if asked.
pub fn one(seed: u64, broken: Option<Break>, trace: bool) -> bool {
    let keeps = trace.then_some(Level::Detail);
    let (lived, world) = live(seed, broken, keeps);
    for line in &world.log.lines {
        println!("{:>9.3}  {}", line.at_ms as f64 / 1000.0, line.text);
    }
    for violation in &lived.violations {
        eprintln!(
            "seed {seed}: {:.3} s: {}: {}",
            violation.at_ms as f64 / 1000.0,
            violation.rule,
            violation.text
        );
    }
    let summary = Summary {
        seeds: 1,
        violations: lived.violations.len() as u64,
        max_rest_ms: lived.rested_after_ms,
        ..Summary::of(lived.counts)
    };
    print_json(&summary);
    lived.violations.is_empty() != broken.is_some()
}

/// What all lives of a run came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    seeds: u64,
    steps: u64,
    violations: u64,
    seeds_per_s: f64,
    pub fences: u64,
    pub failovers: u64,
    false_fences: u64,
    freezes: u64,
    pub thaws: u64,
    starts: u64,
    elections: u64,
    max_rest_ms: u64,
}

impl Summary {
    fn of(counts: Counts) -> Self {
        Self {
            steps: counts.steps,
            fences: counts.fences,
            failovers: counts.failovers,
            false_fences: counts.false_fences,
            freezes: counts.freezes,
            thaws: counts.thaws,
            starts: counts.starts,
            elections: counts.elections,
            ..Self::default()
        }
    }

    fn add(&mut self, lived: &Lived) {
        let one = Self::of(lived.counts);
        self.seeds += 1;
        self.steps += one.steps;
        self.violations += lived.violations.len() as u64;
        self.fences += one.fences;
        self.failovers += one.failovers;
        self.false_fences += one.false_fences;
        self.freezes += one.freezes;
        self.thaws += one.thaws;
        self.starts += one.starts;
        self.elections += one.elections;
        self.max_rest_ms = self.max_rest_ms.max(lived.rested_after_ms);
    }
}

/// Whether a break was noticed, by what and where.
#[derive(Debug, Clone, Serialize)]
pub struct Caught {
    pub caught: bool,
    seed: Option<u64>,
    seeds: u64,
    with: Vec<&'static str>,
    pub rule: Option<&'static str>,
    /// Hosts that were fenced though they were well, in all seeds.
    pub false_fences: u64,
}

/// What all threads of a run share.
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<(Summary, BTreeMap<u64, Vec<Violation>>)>,
}

/// Plays seeds on all cores. With a break it stops at the first that notices it; without, it goes on.
pub fn play(from: u64, seeds: u64, broken: Option<Break>) -> (Summary, BTreeMap<u64, Vec<Violation>>) {
    let began = Instant::now();
    let shared = Shared {
        next: AtomicU64::new(from),
        stop: AtomicBool::new(false),
        sum: Mutex::new((Summary::default(), BTreeMap::new())),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| work(&shared, from + seeds, broken, began));
        }
    });
    let (mut sum, failed) = shared.sum.into_inner().unwrap_or_default();
    sum.seeds_per_s = (sum.seeds as f64 / began.elapsed().as_secs_f64().max(1e-9) * 10.0).round() / 10.0;
    (sum, failed)
}

fn work(shared: &Shared, end: u64, broken: Option<Break>, began: Instant) {
    loop {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (lived, _) = live(seed, broken, None);
        let Ok(mut sum) = shared.sum.lock() else { return };
        sum.0.add(&lived);
        if !lived.violations.is_empty() {
            if broken.is_some() {
                shared.stop.store(true, Ordering::Relaxed);
            } else {
                for violation in &lived.violations {
                    eprintln!(
                        "seed {seed}: {} ms: {}: {}",
                        violation.at_ms, violation.rule, violation.text
                    );
                }
            }
            sum.1.insert(seed, lived.violations);
        }
        if broken.is_none() && sum.0.seeds.is_multiple_of(500) {
            let rate = sum.0.seeds as f64 / began.elapsed().as_secs_f64().max(1e-9);
            eprintln!(
                "{} seeds, {rate:.0} a second, {} violations",
                sum.0.seeds, sum.0.violations
            );
        }
    }
}

pub fn many(from: u64, seeds: u64, broken: Option<Break>) -> bool {
    let Some(broken) = broken else {
        let (sum, _) = play(from, seeds, None);
        print_json(&sum);
        return sum.violations == 0;
    };
    let caught = catch(from, seeds, broken);
    print_json(&caught);
    caught.caught
}

pub fn catch(from: u64, seeds: u64, broken: Break) -> Caught {
    let (sum, failed) = play(from, seeds, Some(broken));
    let first = failed.iter().next();
    Caught {
        caught: first.is_some(),
        seed: first.map(|(seed, _)| *seed),
        seeds: sum.seeds,
        with: broken.with().iter().map(|it| it.word()).collect(),
        false_fences: sum.false_fences,
        rule: first.and_then(|(_, violations)| Some(violations.first()?.rule)),
    }
}

/// Every rule in turn.
pub fn all_breaks(seeds: u64) -> bool {
    let mut missed = Vec::new();
    let mut table = BTreeMap::new();
    for broken in Break::ALL.iter().copied().filter(|it| !it.is_helper()) {
        let caught = catch(1, seeds, broken);
        let seed = caught.seed.map_or("-".to_owned(), |seed| seed.to_string());
        let with = if caught.with.is_empty() {
            "alone".to_owned()
        } else {
            format!("with {}", caught.with.join(", "))
        };
        println!(
            "{:<26} {:<8} seed {:>6}  {:<24} {}",
            broken.word(),
            if caught.caught { "caught" } else { "MISSED" },
            seed,
            caught.rule.unwrap_or("-"),
            with
        );
        if !caught.caught {
            missed.push(broken.word());
        }
        table.insert(broken.word(), caught);
    }
    #[derive(Serialize)]
    struct All<'a> {
        breaks: usize,
        caught: usize,
        missed: Vec<&'a str>,
        table: BTreeMap<&'a str, Caught>,
    }
    let is_well = missed.is_empty();
    let all = All {
        breaks: table.len(),
        caught: table.len() - missed.len(),
        missed,
        table,
    };
    print_json(&all);
    is_well
}

fn print_json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        println!("{text}");
    }
}
