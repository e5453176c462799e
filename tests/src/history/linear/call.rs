//! Calls in the form in which the search compares them: values as small numbers, known times and revisions.

use std::collections::HashMap;

use chainfire::kv::{Revision, Value};

use crate::history::op::{Action, Answer, End, Guard, Nanos, Op};

/// Interned values: 0 is "not there", 1 every value that nobody asks for.
pub(super) type ValueId = u32;
pub(super) const ABSENT: ValueId = 0;
pub(super) const UNSEEN: ValueId = 1;

/// A call, made cheap to compare.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Get {
        value: ValueId,
        revision: Revision,
    },
    Put {
        value: ValueId,
    },
    Delete {
        existed: Option<bool>,
    },
    CasRevision {
        expected: Revision,
        value: ValueId,
        swapped: Option<bool>,
    },
    CasValue {
        expected: ValueId,
        value: ValueId,
        swapped: Option<bool>,
    },
}

#[derive(Debug)]
pub(super) struct Call<'a> {
    pub op: &'a Op,
    pub step: Step,
    /// The revision it is known to have made.
    pub revision: Option<Revision>,
    pub invoked: Nanos,
    pub returned: Nanos,
}

/// Gives unknown writes whose values were read the outcome that the reads show.
pub(super) fn settle(ops: &[Op]) -> Vec<Op> {
    let shown = ops.iter().filter_map(|op| match &op.end {
        End::Known {
            answer: Answer::Row(Some(row)),
            ..
        } => Some((&row.value, row.mod_revision)),
        _ => None,
    });
    let shown: HashMap<&Value, Revision> = shown.collect();
    let settled = ops.iter().map(|op| {
        let mut op = op.clone();
        if let (true, Some(revision)) = (op.is_unknown(), op.value().and_then(|value| shown.get(value))) {
            let swapped = matches!(op.action, Action::Cas { .. });
            op.end = End::Known {
                at: Nanos::MAX,
                revision: *revision,
                answer: if swapped {
                    Answer::Swapped(true)
                } else {
                    Answer::Written
                },
            };
        }
        op
    });
    settled.collect()
}

/// Numbers the values that some answer or guard names.
pub(super) fn intern(ops: &[Op]) -> HashMap<&Value, ValueId> {
    let named = ops.iter().flat_map(|op| {
        let guard = match &op.action {
            Action::Cas {
                guard: Guard::Value(value),
                ..
            } => Some(value),
            _ => None,
        };
        let row = match &op.end {
            End::Known {
                answer: Answer::Row(Some(row)),
                ..
            } => Some(&row.value),
            _ => None,
        };
        guard.into_iter().chain(row)
    });
    let mut ids = HashMap::new();
    for value in named {
        let next = UNSEEN + 1 + ValueId::try_from(ids.len()).unwrap_or(ValueId::MAX / 2);
        ids.entry(value).or_insert(next);
    }
    ids
}

pub(super) fn call<'a>(op: &'a Op, ids: &HashMap<&'a Value, ValueId>) -> Call<'a> {
    let id = |value: &Value| ids.get(value).copied().unwrap_or(UNSEEN);
    let answer = match &op.end {
        End::Known { answer, .. } => Some(answer),
        End::Unknown => None,
    };
    let swapped = match answer {
        Some(Answer::Swapped(swapped)) => Some(*swapped),
        _ => None,
    };
    let step = match (&op.action, answer) {
        (Action::Get, Some(Answer::Row(Some(row)))) => Step::Get {
            value: id(&row.value),
            revision: row.mod_revision,
        },
        (Action::Get, _) => Step::Get {
            value: ABSENT,
            revision: 0,
        },
        (Action::Put { value }, _) => Step::Put { value: id(value) },
        (Action::Delete, Some(Answer::Deleted { existed })) => Step::Delete {
            existed: Some(*existed),
        },
        (Action::Delete, _) => Step::Delete { existed: None },
        (Action::Cas { guard, value }, _) => {
            let value = id(value);
            match guard {
                Guard::Revision(expected) => Step::CasRevision {
                    expected: *expected,
                    value,
                    swapped,
                },
                Guard::Value(expected) => Step::CasValue {
                    expected: id(expected),
                    value,
                    swapped,
                },
            }
        }
    };
    Call {
        op,
        step,
        revision: op.made_revision(),
        invoked: op.invoked,
        returned: match op.end {
            End::Known { at, .. } => at,
            End::Unknown => Nanos::MAX,
        },
    }
}
