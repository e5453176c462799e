//! Revisions: one for each write, and never against real time.
//!
//! For two calls of which one ended before the other began, the later one must be shown a revision that is
//! not lower, and higher if it is a write.

use std::collections::HashMap;

use chainfire::kv::Revision;

use super::op::{End, Nanos, Op};
use super::reading::Reading;
use super::violation::Violation;

struct Point {
    invoked: Nanos,
    returned: Nanos,
    revision: Revision,
    writes: bool,
    what: String,
}

impl Point {
    fn describe(&self) -> String {
        let [from, to] = [self.invoked, self.returned].map(|nanos| nanos / 1_000);
        format!("{} (from {from} to {to} us)", self.what)
    }
}

/// Checks all known calls and linearizable readings against each other.
pub fn check(ops: &[Op], readings: &[Reading], violations: &mut Vec<Violation>) {
    check_unique(ops, violations);
    let calls = ops.iter().filter_map(|op| {
        let End::Known { at, revision, .. } = op.end else {
            return None;
        };
        Some(Point {
            invoked: op.invoked,
            returned: at,
            revision,
            writes: op.made_revision().is_some(),
            what: format!("{:?} of {:?} by client {}", op.action, op.key, op.client),
        })
    });
    let listings = readings
        .iter()
        .filter(|reading| reading.linearizable)
        .map(|reading| Point {
            invoked: reading.invoked,
            returned: reading.returned,
            revision: reading.revision,
            writes: false,
            what: format!("a listing by {}", reading.reader),
        });
    check_order(calls.chain(listings).collect(), violations);
}

fn check_unique(ops: &[Op], violations: &mut Vec<Violation>) {
    let mut writers: HashMap<Revision, &Op> = HashMap::new();
    for op in ops {
        let Some(revision) = op.made_revision() else { continue };
        let first = writers.entry(revision).or_insert(op);
        if first.txn != op.txn {
            violations.push(Violation::RevisionReused {
                revision,
                writes: format!(
                    "{:?} of {:?} and {:?} of {:?}",
                    first.action, first.key, op.action, op.key
                ),
            });
        }
    }
}

fn check_order(mut points: Vec<Point>, violations: &mut Vec<Violation>) {
    points.sort_by_key(|point| point.invoked);
    let mut by_return: Vec<usize> = (0..points.len()).collect();
    by_return.sort_by_key(|index| points[*index].returned);
    let mut ended = by_return.into_iter().peekable();
    let mut highest: Option<&Point> = None;
    for later in &points {
        while let Some(index) = ended.next_if(|index| points[*index].returned < later.invoked) {
            let point = &points[index];
            if highest.is_none_or(|highest| highest.revision < point.revision) {
                highest = Some(point);
            }
        }
        let Some(earlier) = highest else { continue };
        let lowest_allowed = earlier.revision + Revision::from(later.writes);
        if later.revision < lowest_allowed {
            violations.push(Violation::RevisionOrder {
                earlier: earlier.revision,
                later: later.revision,
                detail: format!("{}, then {}", earlier.describe(), later.describe()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::{cas, get, put};
    use crate::history::{Guard, reading::Scope};

    fn judge(ops: &[Op], readings: &[Reading]) -> Vec<Violation> {
        let mut violations = Vec::new();
        check(ops, readings, &mut violations);
        violations
    }

    #[test]
    fn revisions_in_real_time_order() {
        assert_eq!(
            judge(&[put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, None, 2)], &[]),
            []
        );
        // What overlaps may go either way.
        assert_eq!(judge(&[put(0, 9, "a", 2), put(1, 8, "b", 1)], &[]), []);
        // The parts of one transaction share a revision, as does a swap that did not happen.
        let both = [
            put(0, 1, "a", 1),
            put(0, 1, "a", 1),
            cas(2, 3, Guard::Revision(9), "b", false, 1),
        ];
        assert_eq!(judge(&both, &[]), []);
    }

    #[test]
    fn a_revision_given_twice_is_named() {
        let found = judge(&[put(0, 5, "a", 1), put(1, 6, "b", 1)], &[]);
        assert!(
            matches!(found.as_slice(), [Violation::RevisionReused { revision: 1, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn going_back_in_time_is_named() {
        for later in [put(2, 3, "b", 4), get(2, 3, None, 4)] {
            let found = judge(&[put(0, 1, "a", 5), later], &[]);
            assert!(
                matches!(
                    found.as_slice(),
                    [Violation::RevisionOrder {
                        earlier: 5,
                        later: 4,
                        ..
                    }]
                ),
                "{found:?}"
            );
        }
    }

    #[test]
    fn linearizable_listings_take_part_and_stale_ones_do_not() {
        let listing = |linearizable| Reading {
            reader: "r".into(),
            invoked: 2,
            returned: 3,
            linearizable,
            scope: Scope::Prefix("k".into()),
            revision: 4,
            rows: vec![],
        };
        assert_eq!(judge(&[put(0, 1, "a", 5)], &[listing(false)]), []);
        let found = judge(&[put(0, 1, "a", 5)], &[listing(true)]);
        assert!(
            matches!(found.as_slice(), [Violation::RevisionOrder { .. }]),
            "{found:?}"
        );
    }
}
