//! Linearizability of the calls on one key, after Wing and Gong, with Lowe's memory of configurations.
//!
//! The search looks for an order of the calls that agrees with real time and in which every answer is
//! what a single-copy register would have said. Calls of unknown outcome may be placed anywhere after
//! their invocation, or left out. Two specifications:
//!
//! - [`Spec::Register`] is the plain judge: values, and revisions only where two answers name them.
//! - [`Spec::Revisions`] knows besides that every change of a key has a higher revision than the one
//!   before. Whatever it accepts, the plain judge accepts (its legal orders are a subset of the plain
//!   ones), and the store promises it; so it may refuse more, never less. It is fast, because of all
//!   writes with known revisions only the lowest can come next: any other would make that one illegal
//!   for good.
//!
//! Prunings that are used under both, and why they lose nothing:
//! - An answer that is explained now and changes nothing is placed at once: if some order completes, the
//!   same order with this call moved to the front completes too.
//! - A call of unknown outcome that would change nothing is not placed: leaving it out is the same.
//! - An unknown write whose value some read shows has happened, at the revision shown: values are unique.
//! - Unknown puts whose values nothing shows cannot be told apart, nor can unknown deletions: of each kind
//!   only the first asked for that is left is tried, as it can stand wherever another can.

mod call;

use std::collections::HashSet;

use chainfire::kv::Revision;

use self::call::{ABSENT, Call, Step, UNSEEN, ValueId, call, intern, settle};
use super::op::{Nanos, Op};
use super::violation::Violation;

/// Which register the calls are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    Register,
    Revisions,
}

/// Configurations after which the search gives up.
const STEPS: usize = 2_000_000;

/// Judges the calls on one key, which was not there at first.
pub fn check_key(ops: &[Op], spec: Spec) -> Result<(), Violation> {
    let Some(key) = ops.first().map(|op| op.key.clone()) else {
        return Ok(());
    };
    let ops = settle(ops);
    let search = Search::prepare(&ops, spec);
    match search.run() {
        Outcome::Linearizable => Ok(()),
        Outcome::Stuck(config) => Err(Violation::NotLinearizable {
            key,
            stuck_at: search.describe(&config),
        }),
        Outcome::GaveUp => Err(Violation::Undecided { key, steps: STEPS }),
    }
}

enum Outcome {
    Linearizable,
    Stuck(Config),
    GaveUp,
}

/// What a single-copy register knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Register {
    value: ValueId,
    /// Of the last change, as far as it is known; 0 where it is not.
    revision: Revision,
    /// The highest revision any change so far is known to have.
    floor: Revision,
}

/// How far an order has got.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Config {
    register: Register,
    /// Every known call before this one is placed.
    first: usize,
    /// Known calls after `first` that are placed, ascending.
    ahead: Vec<usize>,
    /// Unknown calls that are placed, ascending.
    taken: Vec<usize>,
}

/// What placing a call would do.
enum Effect {
    Illegal,
    Nothing,
    Change(Register),
}

struct Search<'a> {
    spec: Spec,
    known: Vec<Call<'a>>,
    unknown: Vec<Call<'a>>,
    /// Revisions that known calls made, ascending.
    made: Vec<Revision>,
}

impl<'a> Search<'a> {
    fn prepare(ops: &'a [Op], spec: Spec) -> Self {
        let ids = intern(ops);
        let mut calls: Vec<Call<'a>> = ops.iter().map(|op| call(op, &ids)).collect();
        calls.sort_by_key(|call| call.invoked);
        let mut made: Vec<Revision> = calls.iter().filter_map(|call| call.revision).collect();
        made.sort_unstable();
        let (unknown, known) = calls.into_iter().partition(|call| call.op.is_unknown());
        Self {
            spec,
            known,
            unknown,
            made,
        }
    }

    fn run(&self) -> Outcome {
        let mut stack = vec![Config {
            register: Register {
                value: ABSENT,
                revision: 0,
                floor: 0,
            },
            first: 0,
            ahead: Vec::new(),
            taken: Vec::new(),
        }];
        let mut seen = HashSet::new();
        let mut furthest: Option<Config> = None;
        while let Some(mut config) = stack.pop() {
            self.place_what_changes_nothing(&mut config);
            if config.first == self.known.len() {
                return Outcome::Linearizable;
            }
            if !seen.insert(config.clone()) {
                continue;
            }
            if seen.len() > STEPS {
                return Outcome::GaveUp;
            }
            let progress = |config: &Config| config.first + config.ahead.len();
            if furthest.as_ref().is_none_or(|best| progress(best) < progress(&config)) {
                furthest = Some(config.clone());
            }
            self.push_successors(&config, &mut stack);
        }
        furthest.map_or(Outcome::Linearizable, Outcome::Stuck)
    }

    fn place_what_changes_nothing(&self, config: &mut Config) {
        loop {
            let (candidates, _) = self.candidates(config);
            let mut placed = false;
            for index in candidates {
                if matches!(self.effect(&self.known[index], &config.register), Effect::Nothing) {
                    self.place(config, index);
                    placed = true;
                }
            }
            if !placed {
                return;
            }
        }
    }

    /// The stack is popped from its end: known calls are tried before unknown ones.
    fn push_successors(&self, config: &Config, stack: &mut Vec<Config>) {
        let (mut candidates, horizon) = self.candidates(config);
        let (mut put_tried, mut delete_tried) = (false, false);
        for (index, call) in self.unknown.iter().enumerate() {
            if call.invoked > horizon {
                break;
            }
            let Err(slot) = config.taken.binary_search(&index) else {
                continue;
            };
            let twin_tried = match call.step {
                Step::Put { value: UNSEEN } => std::mem::replace(&mut put_tried, true),
                Step::Delete { .. } => std::mem::replace(&mut delete_tried, true),
                _ => false,
            };
            if twin_tried {
                continue;
            }
            if let Effect::Change(register) = self.effect(call, &config.register) {
                let mut next = config.clone();
                next.register = register;
                next.taken.insert(slot, index);
                stack.push(next);
            }
        }
        // What must come soonest is tried first.
        candidates.sort_by_key(|index| std::cmp::Reverse(self.known[*index].returned));
        for index in candidates {
            if let Effect::Change(register) = self.effect(&self.known[index], &config.register) {
                let mut next = config.clone();
                next.register = register;
                self.place(&mut next, index);
                stack.push(next);
            }
        }
    }

    /// The known calls that can be next: those invoked before every call that is not placed returned.
    /// Also answers that earliest return.
    fn candidates(&self, config: &Config) -> (Vec<usize>, Nanos) {
        let mut candidates = Vec::new();
        let mut horizon = Nanos::MAX;
        for (index, call) in self.known.iter().enumerate().skip(config.first) {
            // Calls are in order of invocation, and return after it: none further on returned before.
            if call.invoked > horizon {
                break;
            }
            if config.ahead.binary_search(&index).is_err() {
                horizon = horizon.min(call.returned);
                candidates.push(index);
            }
        }
        candidates.retain(|index| self.known[*index].invoked <= horizon);
        (candidates, horizon)
    }

    fn place(&self, config: &mut Config, index: usize) {
        if let Err(slot) = config.ahead.binary_search(&index) {
            config.ahead.insert(slot, index);
        }
        let run = config
            .ahead
            .iter()
            .zip(config.first..)
            .take_while(|(placed, expected)| *placed == expected);
        let run = run.count();
        config.ahead.drain(..run);
        config.first += run;
    }

    fn effect(&self, call: &Call<'_>, register: &Register) -> Effect {
        let present = register.value != ABSENT;
        let write = |value| self.write(call, register, value);
        match call.step {
            Step::Get { value, revision } => {
                let same = value == register.value && (revision == register.revision || register.revision == 0);
                if same { Effect::Nothing } else { Effect::Illegal }
            }
            Step::Put { value } => write(value),
            Step::Delete { existed } => match (existed, present) {
                (Some(true) | None, true) => write(ABSENT),
                (Some(false) | None, false) => Effect::Nothing,
                _ => Effect::Illegal,
            },
            Step::CasRevision {
                expected,
                value,
                swapped,
            } => {
                let holds = match (present, register.revision) {
                    (false, _) => Some(expected == 0),
                    // A change of unknown revision: both answers can be right, unless it must be absent.
                    (true, 0) => (expected == 0).then_some(false),
                    (true, revision) => Some(expected == revision),
                };
                match (holds.or(swapped).unwrap_or(true), swapped) {
                    (true, Some(true) | None) => write(value),
                    (false, Some(false) | None) => Effect::Nothing,
                    _ => Effect::Illegal,
                }
            }
            Step::CasValue {
                expected,
                value,
                swapped,
            } => match (expected == register.value, swapped) {
                (true, Some(true) | None) => write(value),
                (false, Some(false) | None) => Effect::Nothing,
                _ => Effect::Illegal,
            },
        }
    }

    fn write(&self, call: &Call<'_>, register: &Register, value: ValueId) -> Effect {
        let mut floor = register.floor;
        if let (Spec::Revisions, Some(revision)) = (self.spec, call.revision) {
            let next = self.made.partition_point(|made| *made <= floor);
            if self.made.get(next) != Some(&revision) {
                return Effect::Illegal;
            }
            floor = revision;
        }
        Effect::Change(Register {
            value,
            revision: if value == ABSENT { 0 } else { call.revision.unwrap_or(0) },
            floor,
        })
    }

    fn describe(&self, config: &Config) -> String {
        let (candidates, _) = self.candidates(config);
        let calls: Vec<String> = candidates
            .iter()
            .take(6)
            .map(|index| format!("{:?}", self.known[*index].op))
            .collect();
        format!(
            "register {:?}, {} calls placed, then {}",
            config.register,
            config.first,
            calls.join("; ")
        )
    }
}

#[cfg(test)]
mod tests;
