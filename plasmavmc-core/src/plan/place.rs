//! Finding a host for what is wanted on and is nowhere, in boot order: higher priority first, then older first.

use plasmavmc_types::{Placement, VmId, VmRecord};

use super::{ControlKind, Planning, is_wanted_on, living};
use crate::boot;
use crate::change::{Change, Part, Put};
use crate::placement::{Verdict, choose, verdicts_with, why_nowhere};
use crate::view::{Stored, VmView};

/// As many as one plan may place: the rest comes a moment later, on a view that has these.
const MAX_PLACED: usize = 256;

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
            let verdicts = verdicts_with(self.view, self.heard, &self.roll, &self.loads, id);
            match choose(&verdicts) {
                Some(chosen) if self.is_too_early(chosen) => {}
                Some(chosen) => {
                    self.place(vm, record, chosen, &verdicts);
                    left -= 1;
                }
                None => {
                    let facts = Self::facts_of_verdicts(&verdicts);
                    self.note_waiting(id, vm, why_nowhere(&verdicts), facts);
                }
            }
        }
    }

    /// Whether a host will be heard, or another one that fits, if we wait for a beat: a VM that is put on a host which
    /// died with the leader before us would wait there for as long as it takes to give that host up.
    pub(super) fn is_too_early(&self, chosen: &Verdict) -> bool {
        chosen.is_doubtful && self.heard.is_new_leader(&self.view.timings)
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
        vms.sort_by_key(|(id, _, record)| {
            let record = &record.value;
            (u8::MAX - record.spec().priority, record.created_at_ms(), *id)
        });
        vms
    }

    fn place(&mut self, vm: &VmView, record: &Stored<VmRecord>, chosen: &Verdict, verdicts: &[Verdict]) {
        let id = record.value.id();
        let text = format!("placed on {}", chosen.host_name);
        // There is no generation after the last; no cluster lives to see it.
        let Some(placement) = Placement::first_in(self.view.recovery.generation, chosen.host) else {
            return;
        };
        let change = self.place_change(vm, record, placement, &text);
        let mut decision = self.decision(ControlKind::Place, id, Some(chosen.host), text);
        decision.evidence = self.facts_of_vm(vm);
        decision.evidence.push(self.facts_of_host(chosen.host));
        decision.evidence.extend(Self::facts_of_verdicts(verdicts));
        self.loads.place(&record.value, chosen.host);
        self.act(ControlKind::Place, Some(id), change.because(decision));
    }

    /// Puts a VM somewhere, provided that nothing has changed about it and that the host may still write.
    pub(super) fn place_change(
        &mut self,
        vm: &VmView,
        record: &Stored<VmRecord>,
        placement: Placement,
        step: &str,
    ) -> Change {
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
