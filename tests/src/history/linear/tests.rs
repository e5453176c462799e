//! Histories made by hand, and the search against a search that knows no shortcut.

use super::*;
use crate::history::op::{Action, Answer, End, Guard};
use crate::history::sample::{cas, delete, get, op, put, put_action, unknown, value};

/// Both judges must agree with `linearizable`.
fn check(ops: &[Op], linearizable: bool) {
    for spec in [Spec::Register, Spec::Revisions] {
        let verdict = check_key(ops, spec);
        assert_eq!(verdict.is_ok(), linearizable, "{spec:?}: {verdict:?}");
    }
}

#[test]
fn calls_one_after_the_other() {
    check(&[], true);
    check(
        &[get(0, 1, None, 0), put(2, 3, "a", 1), get(4, 5, Some(("a", 1)), 1)],
        true,
    );
    check(
        &[
            put(0, 1, "a", 1),
            put(2, 3, "b", 2),
            get(4, 5, Some(("b", 2)), 2),
            delete(6, 7, true, 3),
        ],
        true,
    );
    check(
        &[
            put(0, 1, "a", 1),
            delete(2, 3, true, 2),
            get(4, 5, None, 2),
            delete(6, 7, false, 2),
        ],
        true,
    );
}

#[test]
fn a_read_of_what_was_overwritten_before_it_began_is_stale() {
    check(
        &[put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, Some(("a", 1)), 1)],
        false,
    );
    check(&[put(0, 1, "a", 1), get(2, 3, None, 0)], false);
    check(
        &[put(0, 1, "a", 1), delete(2, 3, true, 2), get(4, 5, Some(("a", 1)), 1)],
        false,
    );
}

#[test]
fn a_read_may_see_either_side_of_a_write_it_overlaps() {
    check(
        &[put(0, 1, "a", 1), put(2, 9, "b", 2), get(3, 4, Some(("a", 1)), 1)],
        true,
    );
    check(
        &[put(0, 1, "a", 1), put(2, 9, "b", 2), get(3, 4, Some(("b", 2)), 2)],
        true,
    );
    // But not go back: what one read has seen, a later one sees too.
    let back = [
        put(0, 1, "a", 1),
        put(2, 9, "b", 2),
        get(3, 4, Some(("b", 2)), 2),
        get(5, 6, Some(("a", 1)), 1),
    ];
    check(&back, false);
}

#[test]
fn overlapping_writes_come_in_the_order_that_reads_show() {
    let writes = [put(0, 9, "a", 2), put(0, 9, "b", 1)];
    let with = |seen| [writes.as_slice(), &[get(10, 11, Some(seen), 2)]].concat();
    check(&with(("a", 2)), true);
    // A plain register could end with b; revisions say that a came last.
    assert!(check_key(&with(("b", 1)), Spec::Register).is_ok());
    assert!(check_key(&with(("b", 1)), Spec::Revisions).is_err());
}

#[test]
fn revisions_must_follow_the_order_of_writes() {
    let ops = [put(0, 1, "a", 5), put(2, 3, "b", 4), get(4, 5, Some(("b", 4)), 5)];
    assert!(check_key(&ops, Spec::Register).is_ok());
    assert!(check_key(&ops, Spec::Revisions).is_err());
}

#[test]
fn a_compare_and_swap_needs_its_guard() {
    let first = put(0, 1, "a", 1);
    for (guard, swapped, right) in [
        (Guard::Revision(1), true, true),
        (Guard::Revision(1), false, false),
        (Guard::Revision(7), true, false),
        (Guard::Revision(7), false, true),
        (Guard::Revision(0), true, false),
        (Guard::Revision(0), false, true),
        (Guard::Value(value("a")), true, true),
        (Guard::Value(value("a")), false, false),
        (Guard::Value(value("z")), true, false),
        (Guard::Value(value("z")), false, true),
    ] {
        check(&[first.clone(), cas(2, 3, guard, "b", swapped, 2)], right);
    }
    check(
        &[
            cas(0, 1, Guard::Revision(0), "b", true, 1),
            get(2, 3, Some(("b", 1)), 1),
        ],
        true,
    );
    check(&[cas(0, 1, Guard::Revision(3), "b", true, 1)], false);
}

#[test]
fn two_swaps_from_one_revision_cannot_both_succeed() {
    let swap = |to, text, revision| cas(2, to, Guard::Revision(1), text, true, revision);
    check(&[put(0, 1, "a", 1), swap(8, "b", 2), swap(9, "c", 3)], false);
}

#[test]
fn an_unknown_write_may_happen_at_any_later_time_or_never() {
    let lost = unknown(2, put_action("b"));
    let base = [put(0, 1, "a", 1), lost];
    let with = |more: &[Op]| [base.as_slice(), more].concat();
    check(&with(&[get(3, 4, Some(("a", 1)), 1)]), true);
    check(&with(&[get(3, 4, Some(("b", 2)), 2)]), true);
    check(
        &with(&[get(3, 4, Some(("a", 1)), 1), get(5, 6, Some(("b", 2)), 2)]),
        true,
    );
    check(
        &with(&[get(3, 4, Some(("b", 2)), 2), get(5, 6, Some(("a", 1)), 1)]),
        false,
    );
    // Not before it was asked for.
    check(
        &[
            put(0, 1, "a", 1),
            get(2, 3, Some(("b", 2)), 2),
            unknown(4, put_action("b")),
        ],
        false,
    );
}

#[test]
fn an_unknown_write_that_was_read_happened_once_at_the_revision_shown() {
    let twice = [
        unknown(0, put_action("a")),
        get(1, 2, Some(("a", 1)), 1),
        get(3, 4, Some(("a", 2)), 2),
    ];
    check(&twice, false);
    let guarded = |expected, swapped| {
        let swap = cas(3, 4, Guard::Revision(expected), "b", swapped, 6);
        [unknown(0, put_action("a")), get(1, 2, Some(("a", 5)), 5), swap]
    };
    check(&guarded(5, true), true);
    check(&guarded(4, true), false);
    check(&guarded(5, false), false);
}

#[test]
fn an_unknown_delete_and_an_unknown_swap() {
    let gone = [put(0, 1, "a", 1), unknown(2, Action::Delete), get(3, 4, None, 2)];
    check(&gone, true);
    check(&[gone.as_slice(), &[get(5, 6, Some(("a", 1)), 2)]].concat(), false);
    let swap = |expected| Action::Cas {
        guard: Guard::Revision(expected),
        value: value("b"),
    };
    check(
        &[put(0, 1, "a", 1), unknown(2, swap(1)), get(3, 4, Some(("b", 2)), 2)],
        true,
    );
    check(
        &[put(0, 1, "a", 1), unknown(2, swap(9)), get(3, 4, Some(("b", 2)), 2)],
        false,
    );
}

#[test]
fn a_lost_acknowledged_write_is_a_stale_read() {
    let ops = [
        put(0, 1, "a", 1),
        put(2, 3, "b", 2),
        get(100, 101, Some(("a", 1)), 1),
        get(102, 103, Some(("a", 1)), 1),
    ];
    check(&ops, false);
}

/// Runs random clients against a register that is right, for histories that are linearizable.
fn honest(clients: u64, calls: usize, unknown_every: u64, mut random: impl FnMut(u64) -> u64) -> Vec<Op> {
    let (mut ops, mut revision, mut now) = (Vec::new(), 0, 0);
    let mut register: Option<(String, Revision)> = None;
    // Effects happen in sequence, a few ticks apart; invocations and returns reach out around them.
    for number in 0..calls {
        now += 1 + random(3);
        let (from, to) = (now.saturating_sub(random(clients * 2)), now + random(clients * 2));
        let text = format!("v{number}");
        let seen = register.clone();
        let current = register.as_ref().map_or(0, |(_, at)| *at);
        let mut change = |to: Option<String>, register: &mut Option<(String, Revision)>| {
            revision += 1;
            *register = to.map(|text| (text, revision));
        };
        let (action, answer) = match random(8) {
            0..3 => {
                let row = seen.map(|(text, at)| crate::history::sample::row("k", &text, at, at, 1));
                (Action::Get, Answer::Row(row))
            }
            3..5 => {
                change(Some(text.clone()), &mut register);
                (put_action(&text), Answer::Written)
            }
            5 => {
                let existed = register.is_some();
                if existed {
                    change(None, &mut register);
                }
                (Action::Delete, Answer::Deleted { existed })
            }
            _ => {
                let expected = if random(2) == 0 {
                    current
                } else {
                    current.saturating_sub(1)
                };
                let swapped = expected == current;
                if swapped {
                    change(Some(text.clone()), &mut register);
                }
                let guard = Guard::Revision(expected);
                let value = value(&text);
                (Action::Cas { guard, value }, Answer::Swapped(swapped))
            }
        };
        let mut call = op(from, to, action, revision, answer);
        if call.is_write() && random(unknown_every) == 0 {
            call.end = End::Unknown;
        }
        ops.push(call);
    }
    ops
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    use rand::{RngExt, SeedableRng};
    let mut generator = rand::rngs::StdRng::seed_from_u64(seed);
    move |below| generator.random_range(0..below.max(1))
}

#[test]
fn honest_histories_of_thousands_of_calls_are_accepted_quickly() {
    let started = std::time::Instant::now();
    for seed in 0..5 {
        check(&honest(10, 5_000, u64::MAX, random(seed)), true);
        // Unknown outcomes that no list of changes has settled: the plain judge is slower there.
        check(&honest(10, 200, 20, random(seed)), true);
        let long = honest(10, 3_000, 100, random(seed));
        assert_eq!(check_key(&long, Spec::Revisions), Ok(()), "seed {seed}");
    }
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "50,000 calls took {took:?}");
}

/// The specification once more, as directly as it can be said: try every order of every subset.
fn brute_force(ops: &[Op], spec: Spec) -> bool {
    let ops = settle(ops);
    let search = Search::prepare(&ops, spec);
    let calls: Vec<&Call<'_>> = search.known.iter().chain(&search.unknown).collect();
    let register = Register {
        value: ABSENT,
        revision: 0,
        floor: 0,
    };
    try_all(&calls, &mut vec![false; calls.len()], register, spec)
}

fn try_all(calls: &[&Call<'_>], placed: &mut [bool], register: Register, spec: Spec) -> bool {
    let left = || calls.iter().enumerate().filter(|(index, _)| !placed[*index]);
    if left().all(|(_, call)| call.op.is_unknown()) {
        return true;
    }
    let options: Vec<usize> = left()
        .filter(|(_, call)| left().all(|(_, other)| other.returned >= call.invoked))
        .map(|(index, _)| index)
        .collect();
    options.into_iter().any(|index| {
        plain_effects(calls[index], register, spec).into_iter().any(|next| {
            placed[index] = true;
            let found = try_all(calls, placed, next, spec);
            placed[index] = false;
            found
        })
    })
}

/// Every register that this call may leave behind, with its answer being right.
fn plain_effects(call: &Call<'_>, before: Register, spec: Spec) -> Vec<Register> {
    let write = |value| {
        let revision = call.revision.unwrap_or(0);
        let in_order = spec == Spec::Register || revision == 0 || revision > before.floor;
        let after = Register {
            value,
            revision: if value == ABSENT { 0 } else { revision },
            floor: if spec == Spec::Revisions {
                before.floor.max(revision)
            } else {
                0
            },
        };
        if in_order { vec![after] } else { vec![] }
    };
    let unless = |wrong: bool, after: Vec<Register>| if wrong { vec![] } else { after };
    let present = before.value != ABSENT;
    match call.step {
        Step::Get { value, revision } => {
            let wrong = value != before.value || (before.revision != 0 && revision != before.revision);
            unless(wrong, vec![before])
        }
        Step::Put { value } => write(value),
        Step::Delete { existed } => {
            let after = if present { write(ABSENT) } else { vec![before] };
            unless(existed.is_some_and(|existed| existed != present), after)
        }
        Step::CasRevision {
            expected,
            value,
            swapped,
        } => {
            let mut after = Vec::new();
            let open = present && before.revision == 0 && expected != 0;
            let holds = if present {
                expected == before.revision && expected != 0
            } else {
                expected == 0
            };
            if (open || holds) && swapped != Some(false) {
                after.extend(write(value));
            }
            if (open || !holds) && swapped != Some(true) {
                after.push(before);
            }
            after
        }
        Step::CasValue {
            expected,
            value,
            swapped,
        } => {
            let holds = expected == before.value;
            let after = if holds { write(value) } else { vec![before] };
            unless(swapped.is_some_and(|swapped| swapped != holds), after)
        }
    }
}

#[test]
fn the_search_agrees_with_trying_everything() {
    let mut verdicts = [0, 0];
    for seed in 0..3_000 {
        let mut random = random(seed);
        let mut ops = honest(3, 6, 4, &mut random);
        // Often spoil one answer, so that both verdicts are met.
        let (victim, other) = (random(6) as usize, random(6) as usize);
        if random(3) != 0 {
            let stolen = ops[other].end.clone();
            if ops[victim].action == Action::Get && ops[other].action == Action::Get {
                ops[victim].end = stolen;
            } else if let End::Known {
                answer: Answer::Swapped(swapped),
                ..
            } = &mut ops[victim].end
            {
                *swapped = !*swapped;
            } else if let End::Known {
                answer: Answer::Row(row),
                ..
            } = &mut ops[victim].end
            {
                *row = None;
            }
        }
        for spec in [Spec::Register, Spec::Revisions] {
            let expected = brute_force(&ops, spec);
            assert_eq!(
                check_key(&ops, spec).is_ok(),
                expected,
                "seed {seed}, {spec:?}: {ops:#?}"
            );
            verdicts[usize::from(expected)] += 1;
        }
    }
    assert!(
        verdicts.iter().all(|count| *count > 300),
        "both verdicts must be met often: {verdicts:?}"
    );
}
