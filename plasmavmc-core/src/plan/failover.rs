//! Starting elsewhere what ran leased on a host that was fenced (item 5 of the design).
//!
//! ```text
//!   claimed as leased, host fenced, wanted on --a host fits--> placed there, incarnation + 1
//!                                             --none fits----> waits, visibly, until one does
//!   claimed as leased, host fenced, wanted off --------------> incarnation + 1, so that it is killed, never thawed
//! ```
//! In boot order, and only so many at a time on one host and in all: a host that is given fifty VMs at once starts
//! none of them soon.
//!
//! Must never: move what was not claimed as leased, or what its owner wants left where it is (ha = off); move on a
//! fence that was not read.

use std::collections::BTreeMap;

use plasmavmc_types::{
    HaPolicy, HostId, ObservedState, Operation, OperationKind, OperationState, Session, VmId, VmRecord,
};

use super::place::{Choice, Going, Search};
use super::{ControlKind, Planning, is_wanted_on};
use crate::boot;
use crate::change::{Change, OPERATIONS_AT_ONCE, Part, Put};
use crate::view::{ClusterView, Stored, VmView};
use crate::visible::{is_fenced, runs_nowhere};

/// VMs that one host may be starting at a time because of a failover.
pub const STARTS_PER_HOST: usize = 16;
/// In all of the cluster.
pub const STARTS_IN_ALL: usize = 64;

impl<'a> Planning<'a> {
    pub(super) fn fail_over(&mut self) {
        if !self.view.hosts.keys().any(|host| is_fenced(self.view, *host)) {
            return;
        }
        let mut starting = self.starting_by_host();
        let mut in_all: usize = starting.values().sum();
        for (id, vm, record) in self.in_boot_order(|vm, _| may_be_reassigned(self.view, vm)) {
            if !is_wanted_on(&record.value) {
                self.disown(id, vm, record);
                continue;
            }
            if record.value.spec().ha == HaPolicy::Off {
                let text = "its host was fenced, and its policy is ha = off: it waits for its host".to_owned();
                self.note_waiting(id, vm, text, Vec::new());
                continue;
            }
            if let Some(text) = boot::waits_for(self.view, id, self.now_ms) {
                self.note_waiting(id, vm, text, Vec::new());
                continue;
            }
            if in_all >= STARTS_IN_ALL {
                continue;
            }
            let is_free = |host: HostId| starting.get(&host).is_none_or(|count| *count < STARTS_PER_HOST);
            match self.search(id, is_free) {
                Search::Found(choice) => {
                    let host = choice.host;
                    if self.move_from_fenced(vm, record, choice) {
                        *starting.entry(host).or_default() += 1;
                        in_all += 1;
                    }
                }
                Search::NotYet => {}
                Search::Nowhere { why, facts } => {
                    self.note_waiting(id, vm, format!("its host was fenced; {why}"), facts);
                }
            }
        }
    }

    /// How many VMs each host has yet to start.
    fn starting_by_host(&self) -> BTreeMap<HostId, usize> {
        let mut starting = BTreeMap::new();
        for vm in self.view.vms.values() {
            let Some(placement) = &vm.placement else { continue };
            let is_over = |vm: &VmView| vm.record.as_ref().is_none_or(|record| !is_wanted_on(&record.value));
            let has_begun = match vm.current_status() {
                None => true,
                Some(status) => status.value.state == ObservedState::Starting && status.value.conditions.is_empty(),
            };
            if has_begun && !is_over(vm) && !is_fenced(self.view, placement.value.host) {
                *starting.entry(placement.value.host).or_default() += 1;
            }
        }
        starting
    }

    fn move_from_fenced(&mut self, vm: &VmView, record: &Stored<VmRecord>, choice: Choice) -> bool {
        let Some(from) = &vm.placement else { return false };
        let placement = from.value.next_in(self.view.recovery.generation, choice.host);
        let left = from.value.host;
        let (name, left_name) = (&choice.name, self.view.host_name(left));
        let text = format!("started on {name}: it ran leased on {left_name}, which was fenced");
        let session = self.session_of(left);
        let going = Going {
            kind: ControlKind::Failover,
            vm,
            record,
            choice,
            text,
        };
        self.go(going, placement, |change| {
            change.expect_seen(Part::Session(left), session)
        })
    }

    /// What is wanted off is not started anywhere, and must not be thawed either: a higher incarnation on the same host
    /// is the proof on which that host kills it.
    fn disown(&mut self, id: VmId, vm: &'a VmView, record: &Stored<VmRecord>) {
        let Some(from) = &vm.placement else { return };
        let Some(placement) = from.value.next_in(self.view.recovery.generation, from.value.host) else {
            return;
        };
        let name = self.view.host_name(from.value.host);
        let text = format!("it is wanted off and {name} was fenced: it is killed there, not thawed");
        let mut change = Change::new()
            .expect(Part::VmRecord(id), record.revision)
            .expect_seen(Part::Placement(id), vm.placement.as_ref())
            .expect_seen(Part::Status(id), vm.status.as_ref())
            .put(Put::Placement(id, placement));
        let session = self.session_of(from.value.host);
        change = change.expect_seen(Part::Session(from.value.host), session);
        change = self.end_stops(change, id, &name);
        let mut decision = self.decision(ControlKind::Failover, id, Some(from.value.host), text);
        decision.evidence = self.facts_of_vm(vm);
        decision.evidence.push(self.facts_of_host(from.value.host));
        self.act(ControlKind::Failover, Some(id), change.because(decision));
    }

    /// For comparing that the fence that was read still stands: a host that has come back since is asked instead.
    fn session_of(&self, host: HostId) -> Option<&'a Stored<Session>> {
        self.view.hosts.get(&host)?.session.as_ref()
    }

    fn end_stops(&mut self, change: Change, vm: VmId, host: &str) -> Change {
        let open = self.open.get(&vm).cloned().unwrap_or_default();
        let is_stop = |operation: &&&Stored<Operation>| {
            matches!(operation.value.kind, OperationKind::Stop { .. }) && !self.touched.contains(&operation.value.id)
        };
        let stops: Vec<_> = open.iter().filter(is_stop).take(OPERATIONS_AT_ONCE).copied().collect();
        stops.into_iter().fold(change, |change, operation| {
            let step = format!("its host {host} was fenced: nothing of it executes, and it is not thawed");
            self.touched.insert(operation.value.id);
            change.replace_operation(
                operation,
                operation.value.moved(OperationState::Done, step, self.now_ms),
            )
        })
    }
}

/// Whether the claim says that it may be started elsewhere, and its host was fenced since.
pub(super) fn may_be_reassigned(view: &ClusterView, vm: &VmView) -> bool {
    let Some(placement) = &vm.placement else { return false };
    vm.is_leased() && !runs_nowhere(vm) && is_fenced(view, placement.value.host)
}
