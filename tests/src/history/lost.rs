//! Acknowledged writes that are not there at the end.
//!
//! This asks no watch and no search: it compares the highest acknowledged revision of every key with a
//! listing made after everything was mended. A later write by a call of unknown outcome excuses.

use std::collections::HashMap;

use chainfire::kv::{Key, KeyValue, Revision};

use super::op::{Action, Op};
use super::violation::Violation;

/// Checks the rows that are there at the end against all acknowledged writes.
pub fn check(ops: &[Op], rows: &[KeyValue], violations: &mut Vec<Violation>) {
    let rows: HashMap<&Key, &KeyValue> = rows.iter().map(|row| (&row.key, row)).collect();
    let mut last: HashMap<&Key, (Revision, &Op)> = HashMap::new();
    for op in ops {
        let Some(revision) = op.made_revision() else { continue };
        let entry = last.entry(&op.key).or_insert((revision, op));
        if entry.0 < revision {
            *entry = (revision, op);
        }
    }
    for (key, (revision, op)) in last {
        let row = rows.get(key).copied();
        if !is_kept(op, revision, row, ops) {
            violations.push(Violation::LostWrite {
                key: key.clone(),
                revision,
                found: format!("{row:?}"),
            });
        }
    }
}

fn is_kept(write: &Op, revision: Revision, row: Option<&KeyValue>, ops: &[Op]) -> bool {
    let unknown = |test: &dyn Fn(&Op) -> bool| ops.iter().any(|op| op.key == write.key && op.is_unknown() && test(op));
    match (row, write.value()) {
        (Some(row), Some(value)) if row.mod_revision == revision => row.value == value,
        (Some(row), _) => row.mod_revision > revision && unknown(&|op| op.value() == Some(&row.value)),
        (None, None) => true,
        (None, Some(_)) => unknown(&|op| op.action == Action::Delete),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::{delete, put, put_action, row, unknown};

    fn lost(ops: &[Op], row: Option<KeyValue>) -> bool {
        let mut violations = Vec::new();
        check(ops, row.as_slice(), &mut violations);
        !violations.is_empty()
    }

    #[test]
    fn the_last_acknowledged_write_is_there() {
        let ops = [put(0, 1, "a", 1), put(2, 3, "b", 2)];
        assert!(!lost(&ops, Some(row("k", "b", 1, 2, 2))));
        assert!(!lost(&[put(0, 1, "a", 1), delete(2, 3, true, 2)], None));
    }

    #[test]
    fn anything_else_is_a_loss() {
        let ops = [put(0, 1, "a", 1), put(2, 3, "b", 2)];
        assert!(lost(&ops, None));
        assert!(lost(&ops, Some(row("k", "a", 1, 1, 1))));
        assert!(lost(&ops, Some(row("k", "z", 1, 2, 2))));
        assert!(lost(&ops, Some(row("k", "z", 1, 3, 3))));
        assert!(lost(
            &[put(0, 1, "a", 1), delete(2, 3, true, 2)],
            Some(row("k", "a", 1, 1, 1))
        ));
    }

    #[test]
    fn a_call_of_unknown_outcome_excuses_what_it_could_have_done() {
        let ops = |action| [put(0, 1, "a", 1), unknown(2, action)];
        assert!(!lost(&ops(put_action("b")), Some(row("k", "b", 1, 2, 2))));
        assert!(!lost(&ops(Action::Delete), None));
        assert!(lost(&ops(put_action("b")), None));
    }
}
