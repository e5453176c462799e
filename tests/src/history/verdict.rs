//! Everything that was seen in one stretch of time, and the judgement of it.

use std::collections::BTreeMap;

use chainfire::kv::{Key, Revision};

use super::linear::Spec;
use super::op::Op;
use super::reading::Reading;
use super::truth::Truth;
use super::violation::Violation;
use super::watching::WatchRun;
use super::{linear, lost, reading, revisions, watching};

/// What all clients saw of a set of keys that were not there at first.
#[derive(Debug, Default)]
pub struct History {
    /// The lowest revision that any of these calls can have made.
    pub from: Revision,
    pub ops: Vec<Op>,
    pub readings: Vec<Reading>,
    /// Together they must cover everything from the first write to the last reading.
    pub watches: Vec<WatchRun>,
    /// A linearizable listing of all the keys after everything was mended and all clients had stopped.
    pub last: Option<Reading>,
}

/// The judgement.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// Calls and readings that were judged.
    pub operations: usize,
}

/// Judges a history.
pub fn judge(history: &History) -> Verdict {
    let mut violations = Vec::new();
    let truth = Truth::merge(&history.watches, &mut violations);
    for run in &history.watches {
        watching::check(run, &truth, &mut violations);
    }
    let uncovered = history
        .last
        .as_ref()
        .and_then(|last| first_uncovered(history, last.revision));
    match uncovered {
        Some((from, to)) => violations.push(Violation::NotCovered { from, to }),
        None => truth.explain(&history.ops, &mut violations),
    }
    // Only a list of changes without a flaw may settle what calls of unknown outcome did.
    let complete = violations.is_empty() && history.last.is_some();

    let mut readings: Vec<Reading> = history.readings.clone();
    readings.extend(history.last.clone());
    revisions::check(&history.ops, &readings, &mut violations);
    if let Some(last) = &history.last {
        lost::check(&history.ops, &last.rows, &mut violations);
        readings.extend(history.ops.iter().filter_map(Reading::of));
        if uncovered.is_none() {
            reading::check(&readings, &truth, last.revision, &mut violations);
        }
    }

    let mut by_key: BTreeMap<Key, Vec<Op>> = BTreeMap::new();
    for op in truth.resolve(&history.ops, complete) {
        by_key.entry(op.key.clone()).or_default().push(op);
    }
    for ops in by_key.values() {
        violations.extend(linear::check_key(ops, Spec::Revisions).err());
    }
    Verdict {
        violations,
        operations: history.ops.len() + history.readings.len(),
    }
}

/// The first revisions up to `to` that no watch has covered.
fn first_uncovered(history: &History, to: Revision) -> Option<(Revision, Revision)> {
    let mut runs: Vec<&WatchRun> = history.watches.iter().collect();
    runs.sort_by_key(|run| run.from);
    let mut next = history.from;
    for run in runs {
        if next <= to && run.from > next {
            return Some((next, run.from - 1));
        }
        next = next.max(run.covered_to());
    }
    (next <= to).then_some((next, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::reading::Scope;
    use crate::history::sample::{get, put, put_action, put_event, row, unknown};
    use crate::history::{SeenBatch, ViolationKind};

    fn history(ops: Vec<Op>) -> History {
        let events = vec![put_event("k", "a", 1), chained("b", 2)];
        let watch = |watcher: &str| WatchRun {
            watcher: watcher.into(),
            prefix: "k".into(),
            from: 1,
            batches: vec![SeenBatch {
                events: events.clone(),
                next_revision: 3,
            }],
        };
        History {
            from: 1,
            ops,
            readings: Vec::new(),
            watches: vec![watch("v"), watch("w")],
            last: Some(Reading {
                reader: "the last".into(),
                invoked: 100,
                returned: 101,
                linearizable: true,
                scope: Scope::Prefix("k".into()),
                revision: 2,
                rows: vec![row("k", "b", 1, 2, 2)],
            }),
        }
    }

    fn chained(text: &str, at: u64) -> chainfire::kv::Event {
        let mut event = put_event("k", text, at);
        event.kv.create_revision = 1;
        event.kv.version = at;
        event
    }

    fn kinds(history: &History) -> Vec<ViolationKind> {
        let mut kinds: Vec<_> = judge(history).violations.iter().map(Violation::kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    #[test]
    fn an_honest_history_passes() {
        let honest = history(vec![
            put(0, 1, "a", 1),
            unknown(2, put_action("b")),
            unknown(3, put_action("c")),
        ]);
        assert_eq!(kinds(&honest), []);
        assert_eq!(judge(&honest).operations, 3);
    }

    #[test]
    fn a_stale_read_is_found_twice() {
        let ops = vec![put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, Some(("a", 1)), 1)];
        assert_eq!(
            kinds(&history(ops)),
            [ViolationKind::Linearizability, ViolationKind::Revisions]
        );
    }

    #[test]
    fn a_lost_write_is_found_though_watches_saw_it() {
        let mut lossy = history(vec![put(0, 1, "a", 1), put(2, 3, "b", 2)]);
        lossy.last.as_mut().expect("a last reading").rows = vec![row("k", "a", 1, 1, 1)];
        let found = kinds(&lossy);
        assert!(found.contains(&ViolationKind::LostWrite), "{found:?}");
        assert!(found.contains(&ViolationKind::WrongRead), "{found:?}");
    }

    #[test]
    fn revisions_that_no_watch_covers_are_named() {
        let mut short = history(vec![put(0, 1, "a", 1), put(2, 3, "b", 2)]);
        for watch in &mut short.watches {
            watch.from = 2;
            watch.batches[0].events.remove(0);
        }
        assert_eq!(judge(&short).violations, [Violation::NotCovered { from: 1, to: 1 }]);
        short.watches.clear();
        assert_eq!(judge(&short).violations, [Violation::NotCovered { from: 1, to: 2 }]);
    }

    #[test]
    fn a_watch_with_a_gap_is_found() {
        let mut gap = history(vec![put(0, 1, "a", 1), put(2, 3, "b", 2)]);
        gap.watches[1].batches[0].events.remove(0);
        assert_eq!(kinds(&gap), [ViolationKind::Watch]);
    }
}
