//! The guard of a host, QEMU's signals and the claims beside the disks.
//!
//! Must never happen: SIGCONT without a deadline ahead; a kill without a higher claim.

use plasmavmc_core::reconcile::Ended;
use plasmavmc_types::{AttemptId, Epoch, VmId};

use super::{Event, World};
use crate::breaks::Break;
use crate::host::{Guard, Run};

impl World {
    pub(super) fn start_guard(&mut self, site: usize) {
        if !self.sites[site].powered || self.sites[site].guard.is_some() {
            return;
        }
        let life = self.life();
        let here = &mut self.sites[site];
        let leased = here.qemus.iter().filter(|(_, qemu)| qemu.leased && qemu.lives());
        let guard = Guard {
            life,
            leased: leased.map(|(vm, _)| *vm).collect(),
            ..Guard::default()
        };
        here.guard = Some(guard);
        // The server tells it the deadline that it knows.
        let heart = here.server.as_ref().map(|server| &server.heart);
        let told = heart.and_then(|heart| Some((heart.held?.epoch, heart.until_ms)));
        self.guard_wakes(site);
        if let Some((epoch, until_ms)) = told {
            self.extend_lease(site, epoch, until_ms);
        }
    }

    /// Sleeps no longer than the rule says.
    pub fn guard_wakes(&mut self, site: usize) {
        let local = self.local_ms(site);
        let here = &mut self.sites[site];
        let Some(guard) = &mut here.guard else { return };
        let mut held = guard
            .leased
            .iter()
            .filter_map(|vm| here.qemus.get(vm))
            .filter(|qemu| qemu.lives());
        let (any, frozen) = (held.clone().next().is_some(), held.any(|qemu| qemu.stopped));
        if guard.ticking {
            return;
        }
        let Some(sleep_ms) = guard.deadman.next_tick_ms(local, any, frozen) else {
            return;
        };
        guard.ticking = true;
        let (life, clock) = (guard.life, here.clock);
        let late = self.rng.within(self.setup.delays.guard_late);
        self.after(clock.real(sleep_ms) + late, Event::GuardTick { site, life });
    }

    pub(super) fn guard_tick(&mut self, site: usize, life: u64) {
        let local = self.local_ms(site);
        let is_off = self.breaks(Break::NoGuard);
        let here = &mut self.sites[site];
        let Some(guard) = here.guard.as_mut().filter(|guard| guard.life == life) else {
            return;
        };
        guard.ticking = false;
        let is_over = guard.deadman.is_over(local) && !is_off;
        let held: Vec<VmId> = guard.leased.iter().copied().collect();
        for vm in held {
            let Some(qemu) = self.sites[site].qemus.get_mut(&vm).filter(|qemu| qemu.lives()) else {
                continue;
            };
            if is_over && !qemu.stopped {
                qemu.stopped = true;
                self.counts.freezes += 1;
                let name = self.sites[site].name.clone();
                let vm_name = self.vm_name(vm);
                self.fact(|| format!("{vm_name} frozen on {name}"));
                self.look_soon(site, 5);
            }
            self.look_at_claims(site, vm);
        }
        self.guard_wakes(site);
    }

    /// A child that may hang looks whether somebody claimed the VM after us.
    fn look_at_claims(&mut self, site: usize, vm: VmId) {
        let Some(qemu) = self.sites[site].qemus.get(&vm) else {
            return;
        };
        if !qemu.stopped || !qemu.shared {
            return;
        }
        let claims = self.pool.claims.get(&vm);
        let highest = claims.and_then(|claims| claims.keys().next_back().copied());
        if highest.is_some_and(|highest| highest > qemu.incarnation) {
            let attempt = qemu.attempt;
            let takes = self.rng.within(self.setup.delays.act);
            self.after(takes, Event::GuardKills { site, vm, attempt });
        }
    }

    pub(super) fn guard_kills(&mut self, site: usize, vm: VmId, attempt: AttemptId) {
        let is_it = self.sites[site].living(vm).is_some_and(|qemu| qemu.attempt == attempt);
        if self.sites[site].guard.is_some() && is_it {
            self.check_kill(site, vm, "a higher claim");
            self.kill_qemu(site, vm, Ended::Killed);
        }
    }

    pub fn kill_qemu(&mut self, site: usize, vm: VmId, how: Ended) {
        let Some(qemu) = self.sites[site].qemus.get_mut(&vm).filter(|qemu| qemu.lives()) else {
            return;
        };
        qemu.run = Run::Gone(how);
        qemu.stopped = false;
        let (name, vm_name) = (self.sites[site].name.clone(), self.vm_name(vm));
        self.fact(|| format!("{vm_name} ended on {name}: QEMU {}", how.text()));
        self.look_soon(site, 2);
    }

    /// A beat counted: the deadline moves, and nothing else.
    pub fn extend_lease(&mut self, site: usize, epoch: Epoch, until_ms: u64) {
        let Some(guard) = &mut self.sites[site].guard else {
            return;
        };
        if guard.deadman.extend(epoch, until_ms).is_err() {
            return;
        }
        self.guard_wakes(site);
        if self.breaks(Break::GuardThawsByItself) {
            let held: Vec<VmId> = self.sites[site]
                .guard
                .iter()
                .flat_map(|guard| guard.leased.clone())
                .collect();
            for vm in held {
                self.signal_cont(site, vm, false);
            }
        }
    }

    /// The server's order to thaw. Whether the guard did it.
    pub fn guard_thaws(&mut self, site: usize, vm: VmId, epoch: Epoch) -> bool {
        let local = self.local_ms(site);
        let checks_epoch = !self.breaks(Break::ThawReadBeforeReopen) && !self.breaks(Break::ThawOrderWithoutEpoch);
        let Some(guard) = &self.sites[site].guard else {
            return false;
        };
        let is_held = guard.deadman.epoch() == Some(epoch) || !checks_epoch;
        let may = guard.deadman.may_thaw(local) && is_held && guard.leased.contains(&vm);
        if may {
            self.signal_cont(site, vm, true);
        }
        may
    }

    fn signal_cont(&mut self, site: usize, vm: VmId, is_ordered: bool) {
        let local = self.local_ms(site);
        let here = &mut self.sites[site];
        let is_ahead = here.guard.as_ref().is_some_and(|guard| guard.deadman.may_thaw(local));
        let Some(qemu) = here.qemus.get_mut(&vm).filter(|qemu| qemu.lives() && qemu.stopped) else {
            return;
        };
        if is_ahead {
            qemu.stopped = false;
            self.detail(|| format!("SIGCONT ({})", if is_ordered { "ordered" } else { "by itself" }));
        }
    }
}
