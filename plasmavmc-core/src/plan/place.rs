//! Finding a host for what is wanted on and is nowhere, in boot order: higher priority first, then older first.

use plasmavmc_types::{HostId, Placement, VmId, VmRecord};

use super::{ControlKind, Planning, is_wanted_on, living};
use crate::boot;
use crate::change::{Change, Part, Put};
use crate::view::{Stored, VmView};

/// As many as one plan may place: the rest comes a moment later, on a view that has these.
const MAX_PLACED: usize = 256;

/// What comes of looking for a host.
pub(super) enum Search {
    Found(Choice),
    /// One fits that may not be taken now: in a moment it may, or another one.
    NotYet,
    Nowhere {
        why: String,
        facts: Vec<String>,
    },
}

/// The host that was found, and what all of them said.
pub(super) struct Choice {
    pub host: HostId,
    pub name: String,
    facts: Vec<String>,
}

/// A VM on its way to a host, the first one or another.
pub(super) struct Going<'a> {
    pub kind: ControlKind,
    pub vm: &'a VmView,
    pub record: &'a Stored<VmRecord>,
    pub choice: Choice,
    pub text: String,
}

impl<'a> Planning<'a> {
    pub(super) fn place_all(&mut self) {
        let mut left = MAX_PLACED;
        for (id, vm, record) in self.in_boot_order(|vm, record| vm.placement.is_none() && is_wanted_on(record)) {
            if left == 0 {
                return;
            }
            if self.is_held_back(id, vm, &record.value) {
                continue;
            }
            if let Some(text) = boot::waits_for(self.view, id, self.now_ms) {
                self.note_waiting(id, vm, text, Vec::new());
                continue;
            }
            match self.search(id, |_| true) {
                Search::Found(choice) => {
                    let text = format!("placed on {}", choice.name);
                    let placement = Placement::first_in(self.view.recovery.generation, choice.host);
                    let kind = ControlKind::Place;
                    let going = Going {
                        kind,
                        vm,
                        record,
                        choice,
                        text,
                    };
                    left -= usize::from(self.go(going, placement, |change| change));
                }
                Search::NotYet => {}
                Search::Nowhere { why, facts } => self.note_waiting(id, vm, why, facts),
            }
        }
    }

    /// Looks for a host among those that pass.
    pub(super) fn search(&self, vm: VmId, passes: impl Fn(HostId) -> bool) -> Search {
        let Some(asked) = self.roll.ask(&self.loads, vm) else {
            return Search::NotYet;
        };
        match asked.choose_where(passes) {
            // It will be heard, or another one that fits, if we wait for a beat: a VM that is put on a host which died
            // with the leader before us would wait there for as long as it takes to give that host up.
            Some(chosen) if chosen.is_doubtful && self.heard.is_new_leader(&self.view.timings) => Search::NotYet,
            Some(chosen) => Search::Found(Choice {
                host: chosen.host,
                name: chosen.name.to_owned(),
                facts: Self::facts_of_hosts(&asked),
            }),
            None if asked.choose().is_some() => Search::NotYet,
            None => Search::Nowhere {
                why: asked.why_nowhere(),
                facts: Self::facts_of_hosts(&asked),
            },
        }
    }

    /// The living VMs that pass, in the order in which they start.
    pub(super) fn in_boot_order(
        &self,
        passes: impl Fn(&VmView, &VmRecord) -> bool,
    ) -> Vec<(VmId, &'a VmView, &'a Stored<VmRecord>)> {
        let mut vms: Vec<_> = self
            .view
            .vms
            .iter()
            .filter_map(|(id, vm)| Some((*id, vm, living(vm)?)))
            .filter(|(_, vm, record)| passes(vm, &record.value))
            .collect();
        vms.sort_by_key(|(_, _, record)| boot::order(&record.value));
        vms
    }

    /// Puts a VM where it goes; `also` is what else has to hold. Whether it went.
    pub(super) fn go(
        &mut self,
        going: Going<'_>,
        placement: Option<Placement>,
        also: impl FnOnce(Change) -> Change,
    ) -> bool {
        let Going {
            kind,
            vm,
            record,
            choice,
            text,
        } = going;
        // There is no incarnation and no generation after the last; no cluster lives to see it.
        let Some(placement) = placement else { return false };
        let id = record.value.id();
        let change = also(self.place_change(vm, record, placement, &text));
        let mut decision = self.decision(kind, id, Some(choice.host), text);
        decision.evidence = self.facts_of_vm(vm);
        let left = vm.placement.as_ref().map(|from| from.value.host);
        for host in left.into_iter().chain([choice.host]) {
            decision.evidence.push(self.facts_of_host(host));
        }
        decision.evidence.extend(choice.facts);
        self.loads.place(&record.value, choice.host);
        self.act(kind, Some(id), change.because(decision));
        true
    }

    /// Puts a VM somewhere, provided that nothing has changed about it and that the host may still write.
    fn place_change(&mut self, vm: &VmView, record: &Stored<VmRecord>, placement: Placement, step: &str) -> Change {
        let (id, host) = (record.value.id(), placement.host);
        let mut change = Change::new()
            .expect(Part::VmRecord(id), record.revision)
            .expect_seen(Part::Placement(id), vm.placement.as_ref())
            .expect_seen(Part::Status(id), vm.status.as_ref());
        if let Some(known) = self.view.hosts.get(&host) {
            change = change
                .expect_seen(Part::HostRecord(host), known.record.as_ref())
                .expect_seen(Part::Session(host), known.session.as_ref());
        }
        for operation in self.starts_of(id) {
            let state = operation.value.state.clone();
            change = change.replace_operation(operation, operation.value.moved(state, step, self.now_ms));
            self.touched.insert(operation.value.id);
        }
        change.put(Put::Placement(id, placement))
    }
}
