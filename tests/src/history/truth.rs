//! Every change under a prefix, put together from all watches: what the store says has happened.
//!
//! No single watch is trusted. Changes are merged from all of them, and two that show different things
//! for one key and revision are a violation. Whether the merged list explains what clients were told is
//! asked by [`Truth::explain`]; it also gives calls of unknown outcome the one they had.

use std::collections::{BTreeMap, HashMap, HashSet};

use chainfire::kv::{Event, EventKind, Key, KeyValue, Revision, Value};

use super::op::{Action, Answer, End, Nanos, Op};
use super::violation::Violation;
use super::watching::WatchRun;

/// Changes by revision and key.
#[derive(Debug, Default)]
pub struct Truth {
    changes: BTreeMap<Revision, BTreeMap<Key, Event>>,
}

impl Truth {
    /// Merges what all watches saw.
    pub fn merge(watches: &[WatchRun], violations: &mut Vec<Violation>) -> Self {
        let mut truth = Self::default();
        for watch in watches {
            for event in watch.batches.iter().flat_map(|batch| &batch.events) {
                let (revision, key) = (event.kv.mod_revision, event.kv.key.clone());
                let known = truth.changes.entry(revision).or_default().entry(key.clone());
                if known.or_insert_with(|| event.clone()) != event {
                    violations.push(Violation::WatchContent {
                        watcher: watch.watcher.clone(),
                        key,
                        revision,
                    });
                }
            }
        }
        truth
    }

    pub fn event(&self, revision: Revision, key: &Key) -> Option<&Event> {
        self.changes.get(&revision)?.get(key)
    }

    /// Changes with `from <= revision < to`, in order.
    pub fn between(&self, from: Revision, to: Revision) -> impl Iterator<Item = &Event> {
        let range = if from < to { from..to } else { from..from };
        self.changes.range(range).flat_map(|(_, changes)| changes.values())
    }

    /// The changes made at one revision.
    pub fn at(&self, revision: Revision) -> impl Iterator<Item = &Event> {
        self.changes.get(&revision).into_iter().flat_map(BTreeMap::values)
    }

    /// The revisions with changes, ascending.
    pub fn revisions(&self) -> impl Iterator<Item = Revision> {
        self.changes.keys().copied()
    }

    /// Checks that every acknowledged write was delivered to somebody, and that every delivered change
    /// was written by somebody; all parts of a transaction at one revision.
    pub fn explain(&self, ops: &[Op], violations: &mut Vec<Violation>) {
        let mut writers: HashMap<(&Key, &Value), &Op> = HashMap::new();
        let mut deleted: HashSet<(&Key, Revision)> = HashSet::new();
        let mut unknown_deletes: HashMap<&Key, usize> = HashMap::new();
        for op in ops {
            if let Some(revision) = op.made_revision() {
                self.check_delivered(op, revision, violations);
                if op.action == Action::Delete {
                    deleted.insert((&op.key, revision));
                }
            } else if op.is_unknown() && op.action == Action::Delete {
                *unknown_deletes.entry(&op.key).or_default() += 1;
            }
            if let Some(value) = op.value() {
                writers.insert((&op.key, value), op);
            }
        }
        for event in self.changes.values().flat_map(BTreeMap::values) {
            let (key, revision) = (&event.kv.key, event.kv.mod_revision);
            let explained = match event.kind {
                EventKind::Put => writers
                    .get(&(key, &event.kv.value))
                    .is_some_and(|op| could_make(op, revision)),
                EventKind::Delete if deleted.contains(&(key, revision)) => true,
                EventKind::Delete => match unknown_deletes.get_mut(key) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        true
                    }
                    _ => false,
                },
            };
            if !explained {
                violations.push(Violation::Phantom {
                    key: key.clone(),
                    revision,
                });
            }
        }
        self.check_whole(ops, violations);
    }

    fn check_delivered(&self, op: &Op, revision: Revision, violations: &mut Vec<Violation>) {
        let matches = self.event(revision, &op.key).is_some_and(|event| match op.value() {
            Some(value) => event.kind == EventKind::Put && event.kv.value == value,
            None => event.kind == EventKind::Delete,
        });
        if !matches {
            violations.push(Violation::WatchGap {
                watcher: "every watch".into(),
                key: op.key.clone(),
                revision,
            });
        }
    }

    /// A transaction of puts of unknown outcome has happened as a whole or not at all.
    fn check_whole(&self, ops: &[Op], violations: &mut Vec<Violation>) {
        let mut transactions: HashMap<u64, Vec<&Op>> = HashMap::new();
        for op in ops.iter().filter(|op| op.is_unknown() && op.value().is_some()) {
            transactions.entry(op.txn).or_default().push(op);
        }
        let written = self.written();
        for parts in transactions.values().filter(|parts| parts.len() > 1) {
            let place = |op: &Op| op.value().and_then(|value| written.get(&(&op.key, value))).copied();
            let Some(revision) = parts.iter().find_map(|op| place(op)) else {
                continue;
            };
            for part in parts.iter().filter(|op| place(op) != Some(revision)) {
                violations.push(Violation::TornTransaction {
                    revision,
                    key: part.key.clone(),
                });
            }
        }
    }

    fn written(&self) -> HashMap<(&Key, &Value), Revision> {
        let events = self.changes.values().flat_map(BTreeMap::values);
        let puts = events.filter(|event| event.kind == EventKind::Put);
        puts.map(|event| ((&event.kv.key, &event.kv.value), event.kv.mod_revision))
            .collect()
    }

    /// Gives calls of unknown outcome the outcome that the changes show. If the changes are `complete`,
    /// calls that made none of them are left out: they had no effect before the end of this history.
    pub fn resolve(&self, ops: &[Op], complete: bool) -> Vec<Op> {
        let written = self.written();
        let mut deletions = self.unexplained_deletions(ops);
        let mut in_order: Vec<&Op> = ops.iter().collect();
        in_order.sort_by_key(|op| op.invoked);
        let resolve = |op: &Op| {
            if !op.is_unknown() {
                return Some(op.clone());
            }
            let outcome = match &op.action {
                Action::Get => return None,
                Action::Put { value } => written.get(&(&op.key, value)).map(|at| (*at, Answer::Written)),
                Action::Cas { value, .. } => written.get(&(&op.key, value)).map(|at| (*at, Answer::Swapped(true))),
                // Any unknown deletion could have been any of these. If there is a right way to pair them,
                // then pairing the first asked for with the first done is one.
                Action::Delete => {
                    let next = deletions.get_mut(&op.key).and_then(|revisions| revisions.next());
                    next.map(|at| (at, Answer::Deleted { existed: true }))
                }
            };
            match outcome {
                Some((revision, answer)) => Some(Op {
                    end: End::Known {
                        at: Nanos::MAX,
                        revision,
                        answer,
                    },
                    ..op.clone()
                }),
                None => (!complete).then(|| op.clone()),
            }
        };
        in_order.into_iter().filter_map(resolve).collect()
    }

    fn unexplained_deletions(&self, ops: &[Op]) -> HashMap<Key, std::vec::IntoIter<Revision>> {
        let known: HashSet<(&Key, Revision)> = ops
            .iter()
            .filter_map(|op| Some((&op.key, op.made_revision()?)))
            .collect();
        let mut left: HashMap<Key, Vec<Revision>> = HashMap::new();
        for event in self.changes.values().flat_map(BTreeMap::values) {
            let at = (&event.kv.key, event.kv.mod_revision);
            if event.kind == EventKind::Delete && !known.contains(&at) {
                left.entry(at.0.clone()).or_default().push(at.1);
            }
        }
        left.into_iter()
            .map(|(key, revisions)| (key, revisions.into_iter()))
            .collect()
    }
}

/// Whether this call may have made this revision.
fn could_make(op: &Op, revision: Revision) -> bool {
    op.is_unknown() || op.made_revision() == Some(revision)
}

/// The rows after a series of changes.
#[derive(Debug, Default, Clone)]
pub struct Replay {
    pub rows: BTreeMap<Key, KeyValue>,
}

impl Replay {
    pub fn apply(&mut self, event: &Event) {
        match event.kind {
            EventKind::Put => self.rows.insert(event.kv.key.clone(), event.kv.clone()),
            EventKind::Delete => self.rows.remove(&event.kv.key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SeenBatch;
    use crate::history::sample::{delete, delete_event, put, put_action, put_event, unknown};

    fn truth(events: &[Event]) -> Truth {
        let run = WatchRun {
            watcher: "w".into(),
            prefix: Key::new(),
            from: 1,
            batches: vec![SeenBatch {
                events: events.to_vec(),
                next_revision: 100,
            }],
        };
        Truth::merge(&[run], &mut Vec::new())
    }

    fn explain(events: &[Event], ops: &[Op]) -> Vec<Violation> {
        let mut violations = Vec::new();
        truth(events).explain(ops, &mut violations);
        violations
    }

    #[test]
    fn writes_and_changes_explain_each_other() {
        let ops = [put(0, 1, "a", 1), delete(2, 3, true, 2), unknown(4, put_action("b"))];
        let events = [put_event("k", "a", 1), delete_event("k", 2)];
        assert_eq!(explain(&events, &ops), []);
        assert_eq!(
            explain(&[events.as_slice(), &[put_event("k", "b", 3)]].concat(), &ops),
            []
        );
    }

    #[test]
    fn an_acknowledged_write_that_nobody_was_shown_is_a_gap() {
        let ops = [put(0, 1, "a", 1), put(2, 3, "b", 2)];
        let found = explain(&[put_event("k", "b", 2)], &ops);
        assert!(
            matches!(found.as_slice(), [Violation::WatchGap { revision: 1, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn a_change_that_nobody_made_is_a_phantom() {
        let ops = [put(0, 1, "a", 1)];
        let real = put_event("k", "a", 1);
        for phantom in [put_event("k", "z", 2), delete_event("k", 2), put_event("k", "a", 2)] {
            let found = explain(&[real.clone(), phantom], &ops);
            assert!(
                matches!(found.as_slice(), [Violation::Phantom { revision: 2, .. }]),
                "{found:?}"
            );
        }
    }

    #[test]
    fn half_a_transaction_is_torn() {
        let half = |key: &'static str| Op {
            key: key.into(),
            ..unknown(0, put_action("both"))
        };
        let ops = [half("k"), half("l")];
        assert_eq!(
            explain(&[put_event("k", "both", 1), put_event("l", "both", 1)], &ops),
            []
        );
        let found = explain(&[put_event("k", "both", 1)], &ops);
        assert!(
            matches!(found.as_slice(), [Violation::TornTransaction { revision: 1, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn unknown_calls_get_the_outcome_that_changes_show() {
        let ops = [
            unknown(0, put_action("a")),
            unknown(1, put_action("b")),
            unknown(2, Action::Delete),
        ];
        let truth = truth(&[put_event("k", "b", 7), delete_event("k", 9)]);
        let resolved = truth.resolve(&ops, true);
        let made: Vec<_> = resolved.iter().map(Op::made_revision).collect();
        assert_eq!(made, [Some(7), Some(9)]);
        assert_eq!(truth.resolve(&ops, false).len(), 3);
    }
}
