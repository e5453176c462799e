//! One life written down, with the log that is expected of it.
//!
//! The log is compared line by line: what is not expected fails as much as what is missing. Times are bounds.
//!
//! Must never happen: a file that passes though something in it was not understood.

mod parse;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::log::{Level, Line};
use crate::world::{Event, World};

pub use parse::{Expected, Scenario, Unreadable, parse};

/// Around what happened, when a log is written into a file.
const SLACK_MS: u64 = 300;

/// What came of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    pub log: Vec<Line>,
    /// The first difference; nothing: all is as expected.
    pub problem: Option<String>,
}

pub fn play(scenario: &Scenario) -> Played {
    let mut world = World::new(scenario.setup.clone(), Some(Level::Fact));
    for (at_ms, what) in &scenario.events {
        world.at(*at_ms, Event::Outside(what.clone()));
    }
    world.run_until(scenario.end_ms);
    let ends = ends(&world);
    for text in ends {
        world.fact(|| text);
    }
    let log: Vec<Line> = world
        .log
        .facts()
        .filter(|line| line.at_ms >= scenario.from_ms)
        .cloned()
        .collect();
    let violation = world
        .check
        .violations
        .first()
        .map(|it| format!("{}: {}", it.rule, it.text));
    let problem = violation.or_else(|| difference(&log, &scenario.expected));
    Played { log, problem }
}

/// Where each VM is at the end.
fn ends(world: &World) -> Vec<String> {
    let count = world.setup.vms.len() as u64;
    let ids = (1..=count).map(crate::ids::vm);
    let told = ids.map(|vm| {
        let at: Vec<&str> = world
            .sites
            .iter()
            .filter(|site| site.executes(vm))
            .map(|site| site.name.as_str())
            .collect();
        let held: Vec<String> = world
            .sites
            .iter()
            .filter(|site| site.powered && !site.executes(vm))
            .filter_map(|site| Some(format!("{} on {}", how(site.living(vm)?), site.name)))
            .collect();
        let executes = if at.is_empty() {
            "nowhere".to_owned()
        } else {
            format!("on {}", at.join(" and "))
        };
        let held = if held.is_empty() {
            String::new()
        } else {
            format!("; {}", held.join(", "))
        };
        format!("end: {} executes {executes}{held}", world.vm_name(vm))
    });
    told.collect()
}

fn how(qemu: &crate::host::Qemu) -> &'static str {
    use crate::host::Run;
    match qemu.run {
        _ if qemu.stopped || qemu.freeze_mark => "frozen",
        Run::Prelaunch => "prepared",
        Run::Paused(_) => "paused",
        Run::Shutdown => "powered off",
        Run::Running => "held still",
        Run::Gone(_) => "gone",
    }
}

fn difference(log: &[Line], expected: &[Expected]) -> Option<String> {
    for (index, line) in log.iter().enumerate() {
        let Some(wanted) = expected.get(index) else {
            return Some(format!("unexpected: {}", told(line)));
        };
        let in_time = (wanted.from_ms..=wanted.to_ms).contains(&line.at_ms);
        if wanted.text != line.text || !in_time {
            return Some(format!("expected: {}\n     found: {}", wanted_told(wanted), told(line)));
        }
    }
    let missing = expected.get(log.len())?;
    Some(format!("missing: {}", wanted_told(missing)))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn told(line: &Line) -> String {
    format!("{:>8}  {}", seconds(line.at_ms), line.text)
}

fn wanted_told(wanted: &Expected) -> String {
    format!("{}-{}  {}", seconds(wanted.from_ms), seconds(wanted.to_ms), wanted.text)
}

/// The log as it stands in a file.
pub fn as_expected(scenario: &Scenario, log: &[Line]) -> String {
    let mut text = scenario.head.trim_end().to_owned();
    if !text.lines().any(|line| line.trim() == "expect") {
        text.push_str("\n\nexpect");
    }
    text.push('\n');
    let tenths = |ms: u64| format!("{}.{}", ms / 1000, ms % 1000 / 100);
    for line in log {
        let is_exact = line.text.starts_with("> ") || line.text.starts_with("end: ");
        let slack = if is_exact { 0 } else { SLACK_MS };
        let (from, to) = (
            line.at_ms.saturating_sub(slack),
            (line.at_ms + slack).next_multiple_of(100),
        );
        let bounds = format!("{}-{}", tenths(from), tenths(to));
        let _ = writeln!(text, "  {bounds:<13} {}", line.text);
    }
    text
}

/// The files meant by a path, in the order of their names.
pub fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|it| it == "scenario"))
        .collect();
    found.sort();
    found
}

#[derive(Serialize)]
struct Summary {
    passed: u64,
    failed: u64,
}

pub fn play_all(paths: &[PathBuf], shows_log: bool, writes: bool) -> bool {
    let mut summary = Summary { passed: 0, failed: 0 };
    for file in paths.iter().flat_map(|path| files(path)) {
        match play_file(&file, shows_log, writes) {
            Ok(()) => summary.passed += 1,
            Err(problem) => {
                summary.failed += 1;
                println!("{}: {problem}", file.display());
            }
        }
    }
    if let Ok(text) = serde_json::to_string(&summary) {
        println!("{text}");
    }
    summary.failed == 0 && summary.passed > 0
}

fn play_file(file: &Path, shows_log: bool, writes: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let scenario = parse(&text).map_err(|problem| problem.to_string())?;
    let played = play(&scenario);
    if shows_log {
        println!("{}", file.display());
        played.log.iter().for_each(|line| println!("{}", told(line)));
    }
    if writes {
        let violated = played.log.iter().find(|line| line.text.starts_with("VIOLATION"));
        if let Some(line) = violated {
            return Err(told(line));
        }
        let text = as_expected(&scenario, &played.log);
        return std::fs::write(file, text).map_err(|error| format!("it cannot be written: {error}"));
    }
    match played.problem {
        None => Ok(()),
        Some(problem) => {
            let mut text = format!("{problem}\n  the log, next to what was expected:\n");
            for index in 0..played.log.len().max(scenario.expected.len()) {
                let found = played.log.get(index).map_or(String::new(), told);
                let wanted = scenario.expected.get(index).map_or(String::new(), wanted_told);
                let _ = writeln!(text, "  {found:<80} | {wanted}");
            }
            Err(text)
        }
    }
}
