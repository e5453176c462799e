//! Holding still, and the two proofs before a guest goes on: a read that a majority confirmed after a beat of this
//! epoch, and a deadline that the guard finds ahead at that very moment.

use plasmavmc_types::{Epoch, PauseCause, VmId};

use crate::breaks::Break;
use crate::host::Run;
use crate::world::{Event, ThawOrder, World};

impl World {
    /// QEMU has done what `stop` says.
    pub fn qmp_stopped(&mut self, site: usize, vm: VmId, life: u64, number: u64) {
        let skips = self.breaks(Break::NoQmpStop);
        let name = self.sites[site].name.clone();
        let mut is_new = false;
        if let Some(qemu) = self.sites[site]
            .qemus
            .get_mut(&vm)
            .filter(|qemu| qemu.run == Run::Running && !skips)
        {
            qemu.run = Run::Paused(PauseCause::Asked);
            qemu.freeze_mark = true;
            is_new = !qemu.stopped;
        }
        if is_new {
            self.counts.freezes += 1;
            let vm_name = self.vm_name(vm);
            self.fact(|| format!("{vm_name} holds still on {name}"));
        }
        self.holding_over(site, life, vm, number);
    }

    fn holding_over(&mut self, site: usize, life: u64, vm: VmId, number: u64) {
        if self.sites[site].server_of(life).is_none() {
            return;
        }
        if let Some(entry) = self.entry(site, vm)
            && entry.holding.is_some_and(|(_, it)| it == number)
        {
            entry.holding = None;
            entry.thawing = None;
        }
        self.look_soon(site, 1);
    }

    pub fn thaw_ended(&mut self, site: usize, life: u64, vm: VmId, number: u64) {
        self.holding_over(site, life, vm, number);
    }

    pub fn thaw_read(&mut self, site: usize, life: u64, (vm, number): (VmId, u64), index: usize) {
        let host = self.sites[site].host;
        let view = self.store.at(index).view.clone();
        let wanted = self.entry(site, vm).and_then(|entry| entry.thawing);
        let placement = view
            .vms
            .get(&vm)
            .and_then(|vm| vm.placement.as_ref())
            .map(|placement| placement.value);
        let is_ours = placement.zip(wanted).is_some_and(|(placement, (incarnation, _, _))| {
            placement.host == host && placement.incarnation == incarnation
        });
        if is_ours {
            self.thaw_proven(site, life, vm, number);
        } else {
            self.holding_over(site, life, vm, number);
        }
    }

    /// The first proof is there: the guard has the second. The order may be late, as everything may.
    pub fn thaw_proven(&mut self, site: usize, life: u64, vm: VmId, number: u64) {
        let Some(entry) = self.entry(site, vm) else { return };
        let is_it = entry.holding.is_some_and(|(_, it)| it == number);
        let Some((_, epoch, attempt)) = entry.thawing.filter(|_| is_it) else {
            return;
        };
        let mut takes = self.rng.within(self.setup.delays.act) / 4;
        let (percent, late) = if self.breaks(Break::ThawOrderWithoutEpoch) {
            (60, (3000, 13_000))
        } else {
            (self.setup.delays.late_percent, self.setup.delays.late)
        };
        if !self.healed && self.rng.percent(percent) {
            takes += self.rng.within(late);
        }
        let order = ThawOrder {
            vm,
            life,
            number,
            epoch,
            attempt,
        };
        self.after(takes, Event::ThawOrder { site, order });
    }

    /// The order arrives at the guard, whatever became of the server that sent it.
    pub fn thaw_ordered(&mut self, site: usize, order: ThawOrder) {
        let there = self.sites[site].living(order.vm);
        let is_same = there.is_some_and(|qemu| qemu.attempt == order.attempt);
        if is_same || self.breaks(Break::ClaimWithoutAttempt) {
            self.thaw_now(site, order.vm, order.epoch);
        }
        self.holding_over(site, order.life, order.vm, order.number);
    }

    fn thaw_now(&mut self, site: usize, vm: VmId, epoch: Epoch) {
        if !self.guard_thaws(site, vm, epoch) {
            return;
        }
        let name = self.sites[site].name.clone();
        if let Some(qemu) = self.sites[site].qemus.get_mut(&vm).filter(|qemu| qemu.lives()) {
            if qemu.freeze_mark && matches!(qemu.run, Run::Paused(_)) {
                qemu.run = Run::Running;
            }
            qemu.freeze_mark = false;
            self.counts.thaws += 1;
            let vm_name = self.vm_name(vm);
            self.fact(|| format!("{vm_name} thawed on {name}"));
        }
        self.check_thaw(site, vm);
        self.guard_wakes(site);
    }
}
