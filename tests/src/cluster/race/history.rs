//! What clients saw of VMs they fought for, and whether one cluster could have shown it to all of them.
//!
//! Every call has a moment of asking and one of the answer; what it did happened between the two. So of each VM it
//! is known when it existed for certain (from the answer of its creation to the first asking for its deletion),
//! and when it may have (from the asking for its creation to the first proof that it was gone). An answer that
//! fits neither is a violation.

use std::collections::{BTreeMap, BTreeSet};

/// One call and its answer.
#[derive(Debug, Clone)]
pub struct Event {
    pub call_ns: u64,
    pub return_ns: u64,
    pub ask: Ask,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Create { name: String, vmid: u32 },
    GetName { name: String },
    GetId { id: String },
    Update { id: String, generation: u64, priority: u32 },
    Delete { id: String },
    Power { id: String },
    List,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Vm(Seen),
    Vms(Vec<Seen>),
    Done,
    NotFound,
    Exists,
    Refused(String),
}

/// What was shown of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub vmid: u32,
    pub generation: u64,
    pub priority: u32,
    pub power_on: bool,
    pub deleting: bool,
}

/// Bounds of a VM's existence.
#[derive(Debug, Clone)]
struct Existence {
    name: String,
    vmid: u32,
    asked_ns: u64,
    created_ns: u64,
    /// The first moment at which somebody asked for its end.
    ending_ns: u64,
    /// The first moment at which it was proven gone.
    gone_ns: u64,
}

impl Existence {
    fn certainly_throughout(&self, event: &Event) -> bool {
        self.created_ns < event.call_ns && event.return_ns < self.ending_ns
    }

    fn possibly_during(&self, event: &Event) -> bool {
        self.asked_ns <= event.return_ns && event.call_ns <= self.gone_ns
    }
}

/// Every answer that does not fit.
pub fn judge(events: &[Event]) -> Vec<String> {
    let (existences, mut violations) = existences(events);
    let judge = Judge { existences };
    violations.extend(events.iter().filter_map(|event| judge.existence(event)));
    violations.extend(contents(events));
    violations.extend(order(events));
    violations.extend(guarded_updates(events));
    violations
}

fn existences(events: &[Event]) -> (BTreeMap<String, Existence>, Vec<String>) {
    let mut found: BTreeMap<String, Existence> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in events {
        let (Ask::Create { name, .. }, Answer::Vm(seen)) = (&event.ask, &event.answer) else {
            continue;
        };
        let existence = Existence {
            name: name.clone(),
            vmid: seen.vmid,
            asked_ns: event.call_ns,
            created_ns: event.return_ns,
            ending_ns: u64::MAX,
            gone_ns: u64::MAX,
        };
        if found.insert(seen.id.clone(), existence).is_some() {
            violations.push(format!("two creations were answered with {}", seen.id));
        }
    }
    for event in events {
        let (Ask::Delete { id } | Ask::GetId { id } | Ask::Update { id, .. } | Ask::Power { id }) = &event.ask else {
            continue;
        };
        let Some(existence) = found.get_mut(id) else { continue };
        let is_delete = matches!(event.ask, Ask::Delete { .. });
        if is_delete {
            existence.ending_ns = existence.ending_ns.min(event.call_ns);
        }
        if event.answer == Answer::NotFound || (is_delete && event.answer == Answer::Done) {
            existence.gone_ns = existence.gone_ns.min(event.return_ns);
        }
    }
    (found, violations)
}

struct Judge {
    existences: BTreeMap<String, Existence>,
}

impl Judge {
    /// Whether an answer fits what exists.
    fn existence(&self, event: &Event) -> Option<String> {
        let problem = match (&event.ask, &event.answer) {
            (Ask::Create { name, vmid }, Answer::Vm(seen)) => self.not_alone(event, name, *vmid, &seen.id),
            (Ask::Create { name, vmid }, Answer::Exists) => self.nothing_there(event, name, *vmid),
            (Ask::GetName { name }, Answer::NotFound) => {
                let there = self
                    .existences
                    .values()
                    .find(|vm| vm.name == *name && vm.certainly_throughout(event));
                there.map(|vm| format!("it was there all the time: {vm:?}"))
            }
            (Ask::GetId { id } | Ask::Update { id, .. } | Ask::Delete { id } | Ask::Power { id }, Answer::NotFound) => {
                let there = self.existences.get(id).filter(|vm| vm.certainly_throughout(event));
                there.map(|vm| format!("it was there all the time: {vm:?}"))
            }
            (_, Answer::Vm(seen)) => self.gone(event, seen),
            (_, Answer::Vms(listed)) => self.list(event, listed),
            _ => None,
        };
        problem.map(|problem| format!("{event:?}: {problem}"))
    }

    fn not_alone(&self, event: &Event, name: &str, vmid: u32, id: &str) -> Option<String> {
        let others = self.existences.iter().filter(|(other, _)| *other != id);
        let clashes =
            |vm: &Existence| (vm.name == name || (vmid != 0 && vm.vmid == vmid)) && vm.certainly_throughout(event);
        let mut clashing = others.filter(|(_, vm)| clashes(vm));
        clashing
            .next()
            .map(|(other, vm)| format!("{other} had its name or number all the time: {vm:?}"))
    }

    fn nothing_there(&self, event: &Event, name: &str, vmid: u32) -> Option<String> {
        let holds = |vm: &Existence| (vm.name == name || (vmid != 0 && vm.vmid == vmid)) && vm.possibly_during(event);
        let nobody = !self.existences.values().any(holds);
        nobody.then(|| "nobody had that name or number".to_owned())
    }

    fn gone(&self, event: &Event, seen: &Seen) -> Option<String> {
        let existence = self.existences.get(&seen.id)?;
        (event.call_ns > existence.gone_ns).then(|| format!("it was gone before: {existence:?}"))
    }

    fn list(&self, event: &Event, listed: &[Seen]) -> Option<String> {
        let ids: BTreeSet<&String> = listed.iter().map(|seen| &seen.id).collect();
        if ids.len() != listed.len() {
            return Some("one VM is listed twice".to_owned());
        }
        let missing = self
            .existences
            .iter()
            .find(|(id, vm)| vm.certainly_throughout(event) && !ids.contains(id));
        if let Some((id, vm)) = missing {
            return Some(format!("{id} is missing, which was there all the time: {vm:?}"));
        }
        let names: BTreeSet<&String> = listed.iter().map(|seen| &seen.name).collect();
        if names.len() != listed.len() {
            return Some("two VMs with one name are listed".to_owned());
        }
        listed.iter().find_map(|seen| self.gone(event, seen))
    }
}

fn all_seen(event: &Event) -> Vec<&Seen> {
    match &event.answer {
        Answer::Vm(seen) => vec![seen],
        Answer::Vms(listed) => listed.iter().collect(),
        _ => Vec::new(),
    }
}

/// What is wanted is a function of the generation.
fn contents(events: &[Event]) -> Vec<String> {
    let mut known: BTreeMap<(&str, u64), &Seen> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in events {
        for seen in all_seen(event) {
            let first = *known.entry((&seen.id, seen.generation)).or_insert(seen);
            if first != seen {
                violations.push(format!("one generation, two contents: {first:?} and {seen:?}"));
            }
        }
    }
    violations
}

/// What was answered before a call began is not older than what that call answers.
fn order(events: &[Event]) -> Vec<String> {
    let mut by_vm: BTreeMap<&str, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for event in events {
        for seen in all_seen(event) {
            let told = (event.call_ns, event.return_ns, seen.generation);
            by_vm.entry(&seen.id).or_default().push(told);
        }
    }
    let mut violations = Vec::new();
    for (id, told) in by_vm {
        let mut by_call = told.clone();
        by_call.sort_unstable();
        let mut by_return = told;
        by_return.sort_unstable_by_key(|(_, returned, _)| *returned);
        let mut answered = by_return.iter().peekable();
        let mut newest = 0;
        for (call, _, generation) in by_call {
            while let Some((_, _, before)) = answered.next_if(|(_, returned, _)| *returned < call) {
                newest = newest.max(*before);
            }
            if generation < newest {
                violations.push(format!("{id}: generation {generation} was shown after {newest}"));
            }
        }
    }
    violations
}

/// An update of one generation makes the next one, once.
fn guarded_updates(events: &[Event]) -> Vec<String> {
    let mut made: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut violations = Vec::new();
    for event in events {
        let (
            Ask::Update {
                id,
                generation,
                priority,
            },
            Answer::Vm(seen),
        ) = (&event.ask, &event.answer)
        else {
            continue;
        };
        let is_next = *generation == 0 || seen.generation == generation + 1 || seen.generation == *generation;
        if !is_next || seen.priority != *priority {
            violations.push(format!("{event:?}: it was answered with something else"));
        }
        // An update to what is there already changes nothing.
        if seen.generation != *generation && *generation != 0 && !made.insert((id, seen.generation)) {
            violations.push(format!("{id}: two updates made generation {}", seen.generation));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(call_ns: u64, return_ns: u64, ask: Ask, answer: Answer) -> Event {
        Event {
            call_ns,
            return_ns,
            ask,
            answer,
        }
    }

    fn seen(id: &str, generation: u64, priority: u32) -> Seen {
        Seen {
            id: id.to_owned(),
            name: "n".to_owned(),
            vmid: 7,
            generation,
            priority,
            power_on: false,
            deleting: false,
        }
    }

    fn create(call_ns: u64, return_ns: u64, id: &str) -> Event {
        let ask = Ask::Create {
            name: "n".to_owned(),
            vmid: 0,
        };
        event(call_ns, return_ns, ask, Answer::Vm(seen(id, 1, 0)))
    }

    fn get(call_ns: u64, return_ns: u64, answer: Answer) -> Event {
        event(call_ns, return_ns, Ask::GetId { id: "a".to_owned() }, answer)
    }

    fn delete(call_ns: u64, return_ns: u64) -> Event {
        event(call_ns, return_ns, Ask::Delete { id: "a".to_owned() }, Answer::Done)
    }

    fn update(call_ns: u64, return_ns: u64, of: u64, made: u64) -> Event {
        let ask = Ask::Update {
            id: "a".to_owned(),
            generation: of,
            priority: 9,
        };
        event(call_ns, return_ns, ask, Answer::Vm(seen("a", made, 9)))
    }

    fn check(events: &[Event], violations: usize) {
        assert_eq!(judge(events).len(), violations, "{events:?}: {:?}", judge(events));
    }

    #[test]
    fn a_vm_is_there_from_its_creation_to_its_deletion() {
        check(
            &[create(0, 1, "a"), get(2, 3, Answer::Vm(seen("a", 1, 0))), delete(4, 5)],
            0,
        );
        check(&[create(0, 1, "a"), get(2, 3, Answer::NotFound)], 1);
        // While it is being made or deleted, both answers fit.
        check(&[create(0, 5, "a"), get(2, 3, Answer::NotFound)], 0);
        check(&[create(0, 1, "a"), get(2, 5, Answer::NotFound), delete(4, 9)], 0);
        check(
            &[create(0, 1, "a"), delete(2, 3), get(4, 5, Answer::Vm(seen("a", 1, 0)))],
            1,
        );
    }

    #[test]
    fn two_vms_never_have_one_name() {
        check(&[create(0, 1, "a"), create(2, 3, "b")], 1);
        check(&[create(0, 1, "a"), delete(2, 4), create(3, 5, "b")], 0);
        let ask = Ask::Create {
            name: "n".to_owned(),
            vmid: 0,
        };
        let exists = |call, end| event(call, end, ask.clone(), Answer::Exists);
        check(&[create(0, 1, "a"), exists(2, 3)], 0);
        check(&[exists(2, 3)], 1);
        check(&[create(0, 1, "a"), delete(2, 3), exists(4, 5)], 1);
    }

    #[test]
    fn a_list_has_everything_once() {
        let list = |vms| event(2, 3, Ask::List, Answer::Vms(vms));
        check(&[create(0, 1, "a"), list(vec![seen("a", 1, 0)])], 0);
        check(&[create(0, 1, "a"), list(vec![])], 1);
        check(&[create(0, 1, "a"), list(vec![seen("a", 1, 0), seen("a", 1, 0)])], 1);
    }

    #[test]
    fn a_generation_is_made_once_shown_alike_and_never_after_a_later_one() {
        check(&[create(0, 1, "a"), update(2, 3, 1, 2), update(4, 5, 2, 3)], 0);
        check(&[create(0, 1, "a"), update(2, 5, 1, 2), update(3, 6, 1, 2)], 1);
        check(&[create(0, 1, "a"), update(2, 3, 1, 3)], 1);
        check(
            &[
                create(0, 1, "a"),
                update(2, 3, 1, 2),
                get(4, 5, Answer::Vm(seen("a", 1, 0))),
            ],
            1,
        );
        check(
            &[
                create(0, 1, "a"),
                update(2, 3, 1, 2),
                get(4, 5, Answer::Vm(seen("a", 2, 1))),
            ],
            1,
        );
    }
}
