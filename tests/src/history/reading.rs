//! Listings and reads: each must show exactly the state at the revision it names, stale ones too.

use chainfire::kv::{Key, KeyValue, Revision};

use super::op::{Answer, End, Nanos, Op};
use super::truth::{Replay, Truth};
use super::violation::Violation;

/// What one read of some keys showed. The pages of one listing are one reading.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Who read where, for messages.
    pub reader: String,
    pub invoked: Nanos,
    pub returned: Nanos,
    /// Whether it promised to be up to date. A stale read may be old, but never wrong.
    pub linearizable: bool,
    /// One key, or every key under a prefix.
    pub scope: Scope,
    pub revision: Revision,
    pub rows: Vec<KeyValue>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Key(Key),
    Prefix(Key),
}

impl Reading {
    /// The reading that a get is; `None` for other calls and unknown ends.
    pub fn of(op: &Op) -> Option<Self> {
        let End::Known {
            at,
            revision,
            answer: Answer::Row(row),
        } = &op.end
        else {
            return None;
        };
        Some(Self {
            reader: format!("client {}", op.client),
            invoked: op.invoked,
            returned: *at,
            linearizable: true,
            scope: Scope::Key(op.key.clone()),
            revision: *revision,
            rows: row.iter().cloned().collect(),
        })
    }
}

/// Compares every reading with the changes replayed to its revision. `end` is the last revision that the
/// changes reach; no read can honestly show a later one.
pub fn check(readings: &[Reading], truth: &Truth, end: Revision, violations: &mut Vec<Violation>) {
    let mut in_order: Vec<&Reading> = readings.iter().collect();
    in_order.sort_by_key(|reading| reading.revision);
    let mut replay = Replay::default();
    let mut replayed = 0;
    for reading in in_order {
        if reading.revision > end {
            violations.push(wrong(reading, format!("a revision above {end}, the last there is")));
            continue;
        }
        for event in truth.between(replayed, reading.revision + 1) {
            replay.apply(event);
        }
        replayed = replayed.max(reading.revision + 1);
        if let Some(detail) = difference(reading, &replay) {
            violations.push(wrong(reading, detail));
        }
    }
}

fn wrong(reading: &Reading, detail: String) -> Violation {
    let (Scope::Key(key) | Scope::Prefix(key)) = &reading.scope;
    Violation::WrongRead {
        key: key.clone(),
        revision: reading.revision,
        detail: format!("{detail} ({})", reading.reader),
    }
}

fn difference(reading: &Reading, replay: &Replay) -> Option<String> {
    let expected: Vec<&KeyValue> = match &reading.scope {
        Scope::Key(key) => replay.rows.get(key).into_iter().collect(),
        Scope::Prefix(prefix) => {
            let from_prefix = replay.rows.range(prefix.clone()..);
            from_prefix
                .map(|(_, row)| row)
                .take_while(|row| row.key.starts_with(prefix))
                .collect()
        }
    };
    let shown: Vec<&KeyValue> = reading.rows.iter().collect();
    if shown == expected {
        return None;
    }
    let missing = expected.iter().find(|row| !shown.contains(row));
    let extra = shown.iter().find(|row| !expected.contains(row));
    Some(match (missing, extra) {
        (Some(right), Some(wrong)) => format!("{wrong:?} where {right:?} is right"),
        (Some(right), None) => format!("nothing where {right:?} is right"),
        (None, Some(wrong)) => format!("{wrong:?}, which is not there"),
        (None, None) => "the right rows in a wrong order or twice".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::{delete_event, put_event, row};
    use crate::history::{SeenBatch, WatchRun};

    /// How a reading of all keys at a revision fares against: a=1@1, b=2@2, a deleted @3.
    fn judge(revision: Revision, rows: Vec<KeyValue>) -> Vec<Violation> {
        let events = vec![put_event("a", "1", 1), put_event("b", "2", 2), delete_event("a", 3)];
        let watch = WatchRun {
            watcher: "w".into(),
            prefix: Key::new(),
            from: 1,
            batches: vec![SeenBatch {
                events,
                next_revision: 4,
            }],
        };
        let mut violations = Vec::new();
        let truth = Truth::merge(&[watch], &mut violations);
        let reading = Reading {
            reader: "r".into(),
            invoked: 0,
            returned: 1,
            linearizable: false,
            scope: Scope::Prefix(Key::new()),
            revision,
            rows,
        };
        check(&[reading], &truth, 3, &mut violations);
        violations
    }

    #[test]
    fn a_listing_of_one_revision_is_right() {
        let (a, b) = (row("a", "1", 1, 1, 1), row("b", "2", 2, 2, 1));
        assert_eq!(judge(0, vec![]), []);
        assert_eq!(judge(1, vec![a.clone()]), []);
        assert_eq!(judge(2, vec![a, b.clone()]), []);
        assert_eq!(judge(3, vec![b]), []);
    }

    #[test]
    fn a_listing_mixed_of_two_revisions_is_wrong() {
        let (a, b) = (row("a", "1", 1, 1, 1), row("b", "2", 2, 2, 1));
        for (revision, rows) in [
            (1, vec![a.clone(), b.clone()]),
            (2, vec![b.clone()]),
            (3, vec![a.clone(), b.clone()]),
            (2, vec![b.clone(), a.clone()]),
            (2, vec![a.clone(), b.clone(), b.clone()]),
            (2, vec![a, row("b", "2", 2, 2, 7)]),
            (4, vec![b]),
        ] {
            let found = judge(revision, rows);
            assert!(
                matches!(found.as_slice(), [Violation::WrongRead { .. }]),
                "{revision}: {found:?}"
            );
        }
    }
}
