//! Moving what is stopped: off hosts that are being emptied, and off hosts that cannot start it.
//!
//! Only the word of the host that nothing runs permits it, or that the host has not even claimed the VM: a claim and
//! the move compare each other's keys, so that one of them fails. Or the word of the operator who took the host out as
//! dead, which is that its record is gone.
//!
//! What a host gave up is tried on another one, a few times: the host may be what is wrong with it.

use plasmavmc_types::{HaPolicy, HostMode, Leaving, ObservedState, RestartPolicy, VmId, VmRecord};

use super::finish::is_about;
use super::place::{Choice, Going, Search};
use super::{ControlKind, Planning, is_wanted_on};
use crate::boot;
use crate::change::Part;
use crate::view::{Stored, VmView};
use crate::visible::{HostState, has_lost_host, host, runs_nowhere};

/// As many as one plan may move.
const MAX_MOVED: usize = 64;
/// So often is a VM that failed tried on another host...
const MOST_RETRIES: usize = 3;
/// ...within this time.
const RETRY_WINDOW_MS: u64 = 3_600_000;

impl Planning<'_> {
    pub(super) fn move_stopped(&mut self) {
        let mut left = MAX_MOVED;
        for (id, vm, record) in self.in_boot_order(|vm, _| vm.placement.is_some()) {
            if left == 0 {
                return;
            }
            if self.is_held_back(id, vm, &record.value) {
                continue;
            }
            let is_lost = has_lost_host(self.view, vm);
            let starts = waits_for_start(vm, &record.value) || (is_lost && is_wanted_on(&record.value));
            if let Some(why) = self.why_elsewhere(id, vm, &record.value) {
                left -= usize::from(self.retry_elsewhere(id, vm, record, &why));
                continue;
            }
            match self.why_away(id, vm, starts) {
                Some(why) => left -= usize::from(self.move_away(id, vm, record, starts, &why)),
                None if starts => {
                    if let Some(text) = boot::waits_for(self.view, id, self.now_ms) {
                        self.note_waiting(id, vm, text, Vec::new());
                    }
                }
                None => {}
            }
        }
    }

    /// Why a VM has to leave its host, if it has to and may.
    fn why_away(&self, id: VmId, vm: &VmView, starts: bool) -> Option<String> {
        let placement = vm.placement.as_ref()?;
        if has_lost_host(self.view, vm) {
            return Some(format!("host {} was taken out of the cluster", placement.value.host));
        }
        let is_still = vm.current_status().is_none() || matches!(stopped(vm), Some(ObservedState::Stopped));
        if !(starts || is_still) || self.is_being_ordered(id) {
            return None;
        }
        let owner = placement.value.host;
        let name = self.view.host_name(owner);
        let known = self.view.hosts.get(&owner)?;
        match known.departure().map(|departure| departure.leaving) {
            Some(Leaving::Stay) => return None,
            Some(Leaving::Move) => return starts.then(|| format!("host {name} is being shut down")),
            None => {}
        }
        match known.record.as_ref().map(|record| record.value.mode()) {
            Some(HostMode::Draining) => Some(format!("host {name} is being drained")),
            Some(HostMode::Maintenance) => Some(format!("host {name} is in maintenance")),
            Some(HostMode::Active) if starts => {
                let shown = host(self.view, self.heard, owner);
                (shown.state != HostState::Alive).then(|| format!("host {name}: {}", shown.reason))
            }
            Some(HostMode::Active) | None => None,
        }
    }

    /// Why a VM that its host gave up is worth a try on another one.
    fn why_elsewhere(&self, id: VmId, vm: &VmView, record: &VmRecord) -> Option<String> {
        let spec = record.spec();
        if spec.ha == HaPolicy::Off || spec.restart == RestartPolicy::Never || !is_wanted_on(record) {
            return None;
        }
        let status = &vm.current_status()?.value;
        let ObservedState::Failed { reason } = &status.state else {
            return None;
        };
        let about_it = self
            .view
            .decisions
            .values()
            .filter(|decision| decision.value.vm == Some(id));
        let lately = about_it.filter(|decision| {
            decision.value.kind == ControlKind::Retry.word()
                && decision.value.at_ms.saturating_add(RETRY_WINDOW_MS) >= self.now_ms
        });
        let may =
            status.leased && is_about(status, record) && lately.count() < MOST_RETRIES && !self.is_being_ordered(id);
        let host = self.view.host_name(vm.placement.as_ref()?.value.host);
        may.then(|| format!("it failed on {host}: {reason}"))
    }

    fn retry_elsewhere(&mut self, id: VmId, vm: &VmView, record: &Stored<VmRecord>, why: &str) -> bool {
        let left = vm.placement.as_ref().map(|placement| placement.value.host);
        match self.search(id, |host| Some(host) != left) {
            Search::Found(choice) => self.relocate(ControlKind::Retry, vm, record, choice, why),
            Search::NotYet | Search::Nowhere { .. } => false,
        }
    }

    fn move_away(&mut self, id: VmId, vm: &VmView, record: &Stored<VmRecord>, starts: bool, why: &str) -> bool {
        match self.search(id, |_| true) {
            Search::Found(choice) => return self.relocate(ControlKind::Replace, vm, record, choice, why),
            Search::Nowhere { why: nowhere, facts } if starts => {
                self.note_waiting(id, vm, format!("{why}; {nowhere}"), facts);
            }
            Search::NotYet | Search::Nowhere { .. } => {}
        }
        false
    }

    fn relocate(
        &mut self,
        kind: ControlKind,
        vm: &VmView,
        record: &Stored<VmRecord>,
        choice: Choice,
        why: &str,
    ) -> bool {
        let Some(from) = &vm.placement else { return false };
        let placement = from.value.next_in(self.view.recovery.generation, choice.host);
        let text = format!("moved to {}: {why}, and nothing of it runs there", choice.name);
        let is_lost = has_lost_host(self.view, vm);
        let left = from.value.host;
        let going = Going {
            kind,
            vm,
            record,
            choice,
            text,
        };
        self.go(going, placement, |change| match is_lost {
            true => change.expect(Part::HostRecord(left), 0),
            false => change,
        })
    }
}

fn stopped(vm: &VmView) -> Option<&ObservedState> {
    runs_nowhere(vm).then(|| vm.current_status().map(|status| &status.value.state))?
}

/// Whether it is placed, wanted on, and its host has yet to start it. One that failed waits for a person.
fn waits_for_start(vm: &VmView, record: &VmRecord) -> bool {
    let Some(status) = vm.current_status() else {
        return is_wanted_on(record);
    };
    let is_given_up = matches!(status.value.state, ObservedState::Failed { .. }) && is_about(&status.value, record);
    is_wanted_on(record) && runs_nowhere(vm) && !is_given_up
}
