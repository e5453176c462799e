//! What is done with QEMUs: locks, claims and signals as they are.

use plasmavmc_core::code::Code;
use plasmavmc_core::reconcile::{Doing, Ended, LaunchFailure, LaunchFailureKind, Order};
use plasmavmc_types::{AttemptId, PauseCause, VmId};

use crate::host::{Qemu, Run, Work};
use crate::world::{Event, World};

const STOPPED_AGAIN_MS: u64 = 200;

impl World {
    /// What is under way with a machine comes to its end, if nothing overtook it.
    pub fn work_done(&mut self, site: usize, life: u64, vm: VmId, number: u64) {
        if self.sites[site].server_of(life).is_none() {
            return;
        }
        let Some(entry) = self
            .entry(site, vm)
            .filter(|entry| entry.doing.is_some_and(|(_, it)| it == number))
        else {
            return;
        };
        let Some(work) = entry.work.take() else { return };
        if let Work::Order(ordered) = &work {
            let ordered = ordered.clone();
            return self.carry_order(site, vm, &ordered);
        }
        entry.doing = None;
        let went_well = match &work {
            Work::Launch { attempt, .. } => {
                let attempt = *attempt;
                match self.spawn_qemu(site, vm, &work) {
                    Ok(()) => {
                        if let Some(entry) = self.entry(site, vm) {
                            entry.has_machine = Some(attempt);
                        }
                        true
                    }
                    Err(text) => {
                        self.launch_failed(site, vm, attempt, text);
                        true
                    }
                }
            }
            Work::Cont { attempt } => self.cont(site, vm, *attempt),
            Work::Kill { attempt } => {
                if self.sites[site].living(vm).is_some_and(|qemu| qemu.attempt == *attempt)
                    || self.breaks(crate::breaks::Break::ClaimWithoutAttempt)
                {
                    self.kill_qemu(site, vm, Ended::Killed);
                }
                true
            }
            Work::Order(_) | Work::Leave | Work::Clear => true,
        };
        if !went_well {
            self.rest(site, vm);
        }
        self.look_soon(site, 1);
    }

    fn launch_failed(&mut self, site: usize, vm: VmId, attempt: AttemptId, text: String) {
        let vm_name = self.vm_name(vm);
        let name = self.sites[site].name.clone();
        self.fact(|| format!("{vm_name} not started on {name}: {text}"));
        let kind = if text.starts_with("broken") {
            LaunchFailureKind::Broke
        } else {
            LaunchFailureKind::Waits
        };
        if let Some(entry) = self.entry(site, vm) {
            entry.launch_failed = Some(LaunchFailure { attempt, kind, text });
        }
    }

    /// A process comes to be, held still, unless something else has what it needs.
    pub fn spawn_qemu(&mut self, site: usize, vm: VmId, work: &Work) -> Result<(), String> {
        let Work::Launch {
            attempt,
            incarnation,
            leased,
            shared,
        } = work
        else {
            return Ok(());
        };
        let here = &self.sites[site];
        if here.guard.is_none() {
            return Err("the guard is not there".to_owned());
        }
        if self.broken.contains(&(site, vm)) {
            return Err("broken: QEMU ended with code 1".to_owned());
        }
        if here.living(vm).is_some() {
            return Err("a QEMU of it has the folder".to_owned());
        }
        if *shared {
            self.claim_beside(site, vm, *incarnation)?;
            let expires = self.pool.held_until.get(&vm).copied().unwrap_or(0);
            let is_held = self
                .sites
                .iter()
                .any(|other| other.living(vm).is_some_and(|qemu| qemu.shared));
            if is_held || expires > self.now_ms {
                return Err("somebody else has the lock of its disk".to_owned());
            }
        }
        self.pids += 1;
        let qemu = Qemu {
            attempt: *attempt,
            incarnation: *incarnation,
            leased: *leased,
            run: Run::Prelaunch,
            stopped: false,
            freeze_mark: false,
            shared: *shared,
            pid: self.pids,
        };
        let here = &mut self.sites[site];
        here.qemus.insert(vm, qemu);
        if let Some(guard) = &mut here.guard {
            guard.leased.remove(&vm);
            if *leased {
                guard.leased.insert(vm);
            }
        }
        self.guard_wakes(site);
        Ok(())
    }

    /// `<vm>.claims/<incarnation>`: made exclusively, never overwritten, and the highest wins.
    fn claim_beside(&mut self, site: usize, vm: VmId, incarnation: plasmavmc_types::Incarnation) -> Result<(), String> {
        let mine = (self.sites[site].host, self.sites[site].instance);
        let claims = self.pool.claims.entry(vm).or_default();
        if claims.keys().next_back().is_some_and(|highest| *highest > incarnation) {
            return Err("a higher claim lies beside its disk".to_owned());
        }
        let claimed = *claims.entry(incarnation).or_insert(mine);
        // The same host in a later boot goes on: what it had ended with that boot.
        if claimed.0 != mine.0 {
            return Err("somebody else has this claim".to_owned());
        }
        Ok(())
    }

    /// The guest executes for the first time: what is leased only with the deadline ahead.
    fn cont(&mut self, site: usize, vm: VmId, attempt: AttemptId) -> bool {
        let local = self.local_ms(site);
        let no_guard = self.breaks(crate::breaks::Break::NoGuard);
        let here = &mut self.sites[site];
        let is_ahead = here.guard.as_ref().is_some_and(|guard| guard.deadman.may_thaw(local));
        let Some(qemu) = here
            .qemus
            .get_mut(&vm)
            .filter(|qemu| qemu.attempt == attempt && qemu.lives())
        else {
            return false;
        };
        if (qemu.leased && !is_ahead && !no_guard) || qemu.stopped {
            return false;
        }
        if qemu.run == Run::Prelaunch {
            qemu.run = Run::Running;
            self.counts.starts += 1;
            let incarnation = qemu.incarnation;
            let (vm_name, name) = (self.vm_name(vm), self.sites[site].name.clone());
            self.fact(|| format!("{vm_name} executes on {name} (incarnation {incarnation})"));
        }
        true
    }

    fn carry_order(&mut self, site: usize, vm: VmId, ordered: &plasmavmc_core::reconcile::Ordered) {
        let is_it = |qemu: &&mut Qemu| qemu.attempt == ordered.attempt && qemu.lives();
        let Some(qemu) = self.sites[site].qemus.get_mut(&vm).filter(is_it) else {
            return self.order_ended(site, vm, Ok(()));
        };
        match (&ordered.order, qemu.run) {
            (Order::Stop { .. }, _) => {
                let error =
                    Code::DeadlineExceeded.error("GUEST_DID_NOT_POWER_OFF", "the guest did not power off in time");
                return self.order_ended(site, vm, Err(error));
            }
            (Order::Pause, Run::Running) => qemu.run = Run::Paused(PauseCause::Asked),
            (Order::Resume, Run::Paused(_)) if !qemu.freeze_mark => qemu.run = Run::Running,
            _ => {}
        }
        self.order_ended(site, vm, Ok(()));
    }

    /// The guest powers itself off: first the guest, then the process. What is stopped waits.
    pub fn powers_off(&mut self, site: usize, vm: VmId, attempt: AttemptId) {
        let Some(qemu) = self.sites[site]
            .qemus
            .get_mut(&vm)
            .filter(|qemu| qemu.attempt == attempt)
        else {
            return;
        };
        let takes = self.setup.delays.act;
        match qemu.run {
            Run::Running if !qemu.stopped => {
                qemu.run = Run::Shutdown;
                let (vm_name, name) = (self.vm_name(vm), self.sites[site].name.clone());
                self.fact(|| format!("{vm_name} powers off on {name}"));
                let takes = 200 + self.rng.within(takes);
                self.after(takes, Event::PowersOff { site, vm, attempt });
            }
            Run::Shutdown if !qemu.stopped => {
                let is_asked = self
                    .entry(site, vm)
                    .is_some_and(|entry| matches!(entry.doing, Some((Doing::Order(_) | Doing::Leave, _))));
                let how = if is_asked {
                    Ended::Stopped
                } else {
                    Ended::GuestPoweredOff
                };
                self.kill_qemu(site, vm, how);
                self.order_ended(site, vm, Ok(()));
            }
            Run::Gone(_) | Run::Prelaunch => {}
            _ => return self.after(STOPPED_AGAIN_MS, Event::PowersOff { site, vm, attempt }),
        }
        self.look_soon(site, 2);
    }
}
