//! Watches: no gap, no duplicate, in order, over all failures and resumptions.

use std::collections::HashSet;

use chainfire::kv::{Event, Key, Revision};

use super::truth::Truth;
use super::violation::Violation;

/// One message of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenBatch {
    pub events: Vec<Event>,
    pub next_revision: Revision,
}

/// One watch, from its first message over any number of resumptions at the `next_revision` it had got to.
/// A watcher that was told to list again (compacted, too slow) begins a new run.
#[derive(Debug, Clone)]
pub struct WatchRun {
    /// Who watched where, for messages.
    pub watcher: String,
    pub prefix: Key,
    /// Everything from this revision on is due.
    pub from: Revision,
    pub batches: Vec<SeenBatch>,
}

impl WatchRun {
    /// Everything below this revision has been promised as delivered.
    pub fn covered_to(&self) -> Revision {
        self.batches.last().map_or(self.from, |batch| batch.next_revision)
    }
}

/// Checks one run against itself and against what all watches together have seen.
pub fn check(run: &WatchRun, truth: &Truth, violations: &mut Vec<Violation>) {
    let seen = check_order(run, violations);
    let due = truth.between(run.from, run.covered_to());
    for event in due.filter(|event| event.kv.key.starts_with(&run.prefix)) {
        let (key, revision) = (&event.kv.key, event.kv.mod_revision);
        if !seen.contains(&(revision, key)) {
            violations.push(Violation::WatchGap {
                watcher: run.watcher.clone(),
                key: key.clone(),
                revision,
            });
        }
    }
}

fn check_order<'a>(run: &'a WatchRun, violations: &mut Vec<Violation>) -> HashSet<(Revision, &'a Key)> {
    let mut seen = HashSet::new();
    let mut cursor = run.from;
    let mut order = |detail: String| {
        violations.push(Violation::WatchOrder {
            watcher: run.watcher.clone(),
            detail,
        });
    };
    let mut duplicates = Vec::new();
    for batch in &run.batches {
        let next = batch.next_revision;
        if next < cursor {
            order(format!("went back from next revision {cursor} to {next}"));
        }
        let mut last = 0;
        for event in &batch.events {
            let (key, revision) = (&event.kv.key, event.kv.mod_revision);
            if !seen.insert((revision, key)) {
                duplicates.push((key.clone(), revision));
            } else if revision < cursor {
                order(format!(
                    "was shown revision {revision} of {key:?} after everything below {cursor}"
                ));
            }
            if revision < last {
                order(format!("was shown revision {revision} of {key:?} after {last}"));
            }
            if revision >= next {
                order(format!(
                    "was shown revision {revision} of {key:?} with next revision {next}"
                ));
            }
            if !key.starts_with(&run.prefix) {
                order(format!("was shown {key:?}, which is not under {:?}", run.prefix));
            }
            last = last.max(revision);
        }
        cursor = cursor.max(next);
    }
    violations.extend(duplicates.into_iter().map(|(key, revision)| Violation::WatchDuplicate {
        watcher: run.watcher.clone(),
        key,
        revision,
    }));
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::{delete_event, put_event};

    fn run(watcher: &str, from: Revision, batches: &[(&[Event], Revision)]) -> WatchRun {
        let batch = |(events, next): &(&[Event], Revision)| SeenBatch {
            events: events.to_vec(),
            next_revision: *next,
        };
        WatchRun {
            watcher: watcher.into(),
            prefix: "k".into(),
            from,
            batches: batches.iter().map(batch).collect(),
        }
    }

    /// Checks runs against each other.
    fn judge(runs: &[WatchRun]) -> Vec<Violation> {
        let mut violations = Vec::new();
        let truth = Truth::merge(runs, &mut violations);
        runs.iter().for_each(|run| check(run, &truth, &mut violations));
        violations
    }

    fn events() -> [Event; 3] {
        [put_event("k1", "a", 1), put_event("k2", "b", 2), delete_event("k1", 4)]
    }

    fn whole(watcher: &str) -> WatchRun {
        run(watcher, 1, &[(&events(), 5)])
    }

    #[test]
    fn the_same_changes_in_different_batches() {
        let [a, b, c] = events();
        let resumed = run("w", 1, &[(&[], 1), (&[a], 2), (&[b], 4), (&[], 4), (&[c], 5)]);
        assert_eq!(judge(&[whole("v"), resumed]), []);
    }

    #[test]
    fn a_watch_owes_only_what_it_has_covered() {
        let [_, b, _] = events();
        assert_eq!(judge(&[whole("v"), run("w", 2, &[(&[b], 3)])]), []);
    }

    #[test]
    fn a_skipped_change_is_a_gap() {
        let [a, _, c] = events();
        let found = judge(&[whole("v"), run("w", 1, &[(&[a, c], 5)])]);
        assert!(
            matches!(found.as_slice(), [Violation::WatchGap { revision: 2, .. }]),
            "{found:?}"
        );
        // Also when only a bookmark passed over it.
        let found = judge(&[whole("v"), run("w", 4, &[(&[], 6)])]);
        assert!(
            matches!(found.as_slice(), [Violation::WatchGap { revision: 4, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn a_change_shown_twice_is_a_duplicate() {
        let [a, b, c] = events();
        let found = judge(&[run("w", 1, &[(&[a, b.clone()], 3), (&[b, c], 5)])]);
        assert!(
            matches!(found.as_slice(), [Violation::WatchDuplicate { revision: 2, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn changes_out_of_order_are_named() {
        let [a, b, c] = events();
        let within = judge(&[run("w", 1, &[(&[b.clone(), a.clone(), c.clone()], 5)])]);
        assert!(
            matches!(within.as_slice(), [Violation::WatchOrder { .. }]),
            "{within:?}"
        );
        let across = judge(&[run("w", 1, &[(&[b, c.clone()], 5), (&[a], 6)])]);
        assert!(
            matches!(across.as_slice(), [Violation::WatchOrder { .. }]),
            "{across:?}"
        );
        let ahead = judge(&[run("w", 4, &[(&[c], 4)])]);
        assert!(matches!(ahead.as_slice(), [Violation::WatchOrder { .. }]), "{ahead:?}");
        let back = judge(&[run("w", 4, &[(&[], 6), (&[], 5)])]);
        assert!(matches!(back.as_slice(), [Violation::WatchOrder { .. }]), "{back:?}");
    }

    #[test]
    fn a_change_from_another_prefix_is_named() {
        let found = judge(&[run("w", 1, &[(&[put_event("other", "a", 1)], 2)])]);
        assert!(matches!(found.as_slice(), [Violation::WatchOrder { .. }]), "{found:?}");
    }

    #[test]
    fn watches_that_disagree_on_content_are_named() {
        let found = judge(&[
            run("v", 1, &[(&[put_event("k", "a", 1)], 2)]),
            run("w", 1, &[(&[put_event("k", "b", 1)], 2)]),
        ]);
        assert!(
            matches!(found.as_slice(), [Violation::WatchContent { revision: 1, .. }]),
            "{found:?}"
        );
    }
}
