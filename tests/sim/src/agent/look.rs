//! The situation on a host, and what is decided on it.

use std::collections::BTreeSet;

use plasmavmc_core::reconcile::{Ended, Here, Local, Machine, Observed, OwnLease, OwnSession, reconcile};
use plasmavmc_types::{AgentHealth, HaPolicy, QemuProcess, VmId};

use crate::breaks::Break;
use crate::host::{Entry, Qemu};
use crate::world::{Event, World};

impl World {
    /// The agent looks in a moment, unless it is about to.
    pub fn look_soon(&mut self, site: usize, in_ms: u64) {
        let at_ms = self.now_ms + in_ms;
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        if server.looks_at.is_some_and(|at| at <= at_ms && at > self.now_ms) {
            return;
        }
        server.looks_at = Some(at_ms);
        let life = server.life;
        self.at(at_ms, Event::Look { site, life });
    }

    pub fn look(&mut self, site: usize, life: u64) {
        let now_ms = self.now_ms;
        let is_witness = self.sites[site].witness;
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.looks_at != Some(now_ms) || !server.ready || is_witness {
            return;
        }
        server.looks_at = None;
        let view = self
            .store
            .at(self.sites[site].server.as_ref().map_or(0, |server| server.applied))
            .view
            .clone();
        let host = self.sites[site].host;
        let is_here = |vm: &plasmavmc_core::view::VmView| vm.placement.as_ref().is_some_and(|at| at.value.host == host);
        let placed = view.vms.iter().filter(|(_, vm)| is_here(vm)).map(|(id, _)| *id);
        let known = self.sites[site]
            .server
            .iter()
            .flat_map(|server| server.entries.keys().copied());
        let ids: BTreeSet<VmId> = placed.chain(known).collect();
        if ids.is_empty() {
            return;
        }
        self.withdraw_leases(site, &view);
        let ids: Vec<VmId> = ids.into_iter().filter(|vm| !self.rests(site, *vm)).collect();
        let mut locals = std::collections::BTreeMap::new();
        for vm in &ids {
            locals.insert(*vm, self.local_of(site, *vm, &view));
        }
        let here = self.here(site, &view, locals);
        for action in reconcile(&here) {
            self.act(site, life, action, &here);
        }
        self.kill_unknown(site, &view);
        self.forget_idle(site, &here);
    }

    fn here(
        &self,
        site: usize,
        view: &plasmavmc_core::view::ClusterView,
        mut locals: std::collections::BTreeMap<VmId, Local>,
    ) -> Here {
        let local_ms = self.local_ms(site);
        let here = &self.sites[site];
        let heart = here.server.as_ref().map(|server| &server.heart);
        let held = heart.and_then(|heart| heart.held);
        let session = held.map(|held| OwnSession {
            epoch: held.epoch,
            revision: held.revision,
        });
        // The lease of an earlier session proves nothing about this one.
        let is_of_it = |heart: &&crate::host::Heart| held.is_none_or(|held| heart.lease_epoch == Some(held.epoch));
        let lease = OwnLease {
            left_ms: heart
                .filter(is_of_it)
                .map_or(0, |heart| heart.until_ms.saturating_sub(local_ms)),
            voters: self.voters(),
        };
        let ids: Vec<VmId> = locals.keys().copied().collect();
        let now_ms = self.wall_ms(site);
        let mut seen = Here::of(view, here.host, (session, lease), now_ms, ids, |vm| {
            locals
                .remove(&vm)
                .unwrap_or_else(|| Local::empty(crate::ids::attempt(0)))
        });
        if self.breaks(Break::SessionNotMatched) {
            seen.session = session;
        }
        seen
    }

    fn rests(&self, site: usize, vm: VmId) -> bool {
        let server = self.sites[site].server.as_ref();
        let entry = server.and_then(|server| server.entries.get(&vm));
        // A freeze is never put off.
        let is_leased = self.sites[site].living(vm).is_some_and(|qemu| qemu.leased);
        entry.is_some_and(|entry| entry.rests_until > self.now_ms) && !is_leased
    }

    fn local_of(&mut self, site: usize, vm: VmId, view: &plasmavmc_core::view::ClusterView) -> Local {
        let known = self.sites[site]
            .server
            .as_ref()
            .and_then(|server| server.entries.get(&vm))
            .cloned();
        let entry = match known {
            Some(entry) => entry,
            None => {
                let entry = Entry::new(self.fresh_attempt());
                if let Some(server) = &mut self.sites[site].server {
                    server.entries.insert(vm, entry.clone());
                }
                entry
            }
        };
        let machine = entry.has_machine.and_then(|attempt| {
            let qemu = self.sites[site].qemus.get(&vm).filter(|qemu| qemu.attempt == attempt)?;
            Some(self.machine_of(vm, qemu, view))
        });
        let mut claimed = entry.claimed;
        let status = view.vms.get(&vm).and_then(|vm| vm.current_status());
        if let Some(status) = status.filter(|_| self.breaks(Break::ClaimWithoutAttempt)) {
            claimed = Some(status.value.attempt);
        }
        Local {
            machine,
            left_alone: None,
            doing: entry.doing.map(|(doing, _)| doing),
            is_writing: entry.writing.is_some(),
            claimed,
            launch_failed: entry.launch_failed.clone(),
            taken: entry.taken,
            outcome: entry.outcome.clone(),
            new_attempt: entry.new_attempt,
            seen_revision: entry.seen_revision,
            holding: entry.holding.map(|(holding, _)| holding),
        }
    }

    fn machine_of(&self, vm: VmId, qemu: &Qemu, view: &plasmavmc_core::view::ClusterView) -> Machine {
        let mut observed = qemu.observed();
        let mut attempt = qemu.attempt;
        if self.breaks(Break::PowerOffMeansGone) && observed == Observed::PoweredOff {
            observed = Observed::Gone(Ended::GuestPoweredOff);
        }
        let claimed = view.vms.get(&vm).and_then(|vm| vm.status.as_ref());
        if let Some(claimed) = claimed.filter(|_| self.breaks(Break::ClaimWithoutAttempt)) {
            attempt = claimed.value.attempt;
        }
        Machine {
            attempt,
            observed,
            process: qemu.lives().then_some(QemuProcess {
                pid: qemu.pid,
                start_time_ticks: 1,
            }),
            qemu: None,
            agent: AgentHealth::NotAsked,
            conditions: Vec::new(),
            last_words: String::new(),
            leased: qemu.leased,
        }
    }

    /// The break: what is switched off counts at once, and not only for the next claim.
    fn withdraw_leases(&mut self, site: usize, view: &plasmavmc_core::view::ClusterView) {
        if !self.breaks(Break::LeaseWithdrawn) {
            return;
        }
        let here = &mut self.sites[site];
        for (vm, qemu) in &mut here.qemus {
            let record = view.vms.get(vm).and_then(|vm| vm.record.as_ref());
            if record.is_some_and(|record| record.value.spec().ha == HaPolicy::Off) {
                qemu.leased = false;
                if let Some(guard) = &mut here.guard {
                    guard.leased.remove(vm);
                }
            }
        }
    }

    /// The break: nothing is stored of it, so it is nobody's.
    fn kill_unknown(&mut self, site: usize, view: &plasmavmc_core::view::ClusterView) {
        if !self.breaks(Break::MissingRecordAsProof) {
            return;
        }
        let is_unknown = |vm: &VmId| view.vms.get(vm).is_none_or(|vm| vm.record.is_none());
        let here = &self.sites[site];
        let unknown: Vec<VmId> = here.qemus.keys().copied().filter(is_unknown).collect();
        for vm in unknown {
            if self.sites[site].living(vm).is_some() {
                self.check_kill(site, vm, "nothing is stored of it");
                self.kill_qemu(site, vm, Ended::Killed);
            }
        }
    }

    fn forget_idle(&mut self, site: usize, here: &Here) {
        let host = self.sites[site].host;
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        for (vm, seen) in &here.vms {
            let is_here = seen.stored.placement.as_ref().is_some_and(|at| at.value.host == host);
            if !is_here && server.entries.get(vm).is_some_and(Entry::is_idle) {
                server.entries.remove(vm);
            }
        }
    }
}
