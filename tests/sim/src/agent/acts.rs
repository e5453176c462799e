//! Decisions carried out, and what came of them.

use plasmavmc_core::change::Part;
use plasmavmc_core::reconcile::{AgentAction, Doing, Here, HereWrite, Holding, KillWhy, Order, Outcome as Ended, Why};
use plasmavmc_types::{AttemptId, Disk, DiskLocation, VmId};

use crate::breaks::Break;
use crate::host::Work;
use crate::store::{By, Outcome, ReadFor, Reply, Txn};
use crate::world::{Event, World};

const WRITE_WITHIN_MS: u64 = 3000;
const THAW_WITHIN_MS: u64 = 2000;
const LONGEST_ORDER_MS: u64 = 30_000;

impl World {
    pub fn act(&mut self, site: usize, life: u64, action: AgentAction, here: &Here) {
        let name = self.sites[site].name.clone();
        if !matches!(action, AgentAction::Retry { .. } | AgentAction::Write(_)) {
            let vm_name = self.vm_name(action.vm());
            self.detail(|| format!("{name}: {vm_name}: {}", word(&action)));
        }
        match action {
            AgentAction::Write(write) => self.write(site, life, *write),
            AgentAction::Launch {
                vm,
                incarnation,
                attempt,
                leased,
                ..
            } => {
                let record = here.vms.get(&vm).and_then(|vm| vm.stored.record.as_ref());
                let is_shared = |disk: &Disk| matches!(&disk.location, DiskLocation::Volume { pool, .. } if pool.as_str() == "shared");
                let shared = record.is_some_and(|record| record.value.spec().disks.iter().any(is_shared));
                let work = Work::Launch {
                    attempt,
                    incarnation,
                    leased,
                    shared,
                };
                self.launch(site, life, vm, work);
            }
            AgentAction::Cont { vm, attempt } => {
                let takes = self.rng.within(self.setup.delays.act);
                self.begin(site, life, vm, (Doing::Cont, Work::Cont { attempt }), takes);
            }
            AgentAction::Kill { vm, attempt, why } => {
                if matches!(why, KillWhy::Superseded { .. } | KillWhy::Deleted) {
                    self.check_kill(site, vm, "superseded or deleted");
                }
                let takes = self.rng.within(self.setup.delays.act);
                self.begin(site, life, vm, (Doing::Kill, Work::Kill { attempt }), takes);
            }
            AgentAction::Freeze { vm, .. } => self.freeze(site, life, vm),
            AgentAction::Thaw {
                vm,
                attempt,
                incarnation,
                epoch,
            } => self.thaw(site, life, vm, (incarnation, epoch, attempt)),
            AgentAction::Order(ordered) => self.order(site, life, *ordered),
            AgentAction::Leave { vm, attempt, until_ms } => self.leave(site, life, (vm, attempt), until_ms),
            AgentAction::Clear { vm, attempt } => {
                if let Some(entry) = self.entry(site, vm) {
                    entry.has_machine = None;
                }
                let qemus = &mut self.sites[site].qemus;
                if qemus
                    .get(&vm)
                    .is_some_and(|qemu| qemu.attempt == attempt && !qemu.lives())
                {
                    qemus.remove(&vm);
                }
                self.look_soon(site, 1);
            }
            AgentAction::Retry { at_ms, .. } => {
                let left = at_ms.saturating_sub(self.wall_ms(site));
                if left < 200 {
                    self.look_soon(site, left.max(1));
                }
            }
        }
    }

    fn launch(&mut self, site: usize, life: u64, vm: VmId, work: Work) {
        if let Some(entry) = self.entry(site, vm) {
            entry.claimed = None;
            entry.launch_failed = None;
        }
        let takes = self.rng.within(self.setup.delays.launch);
        self.begin(site, life, vm, (Doing::Launch, work), takes);
    }

    pub fn entry(&mut self, site: usize, vm: VmId) -> Option<&mut crate::host::Entry> {
        self.sites[site].server.as_mut()?.entries.get_mut(&vm)
    }

    fn begin(&mut self, site: usize, life: u64, vm: VmId, (doing, work): (Doing, Work), takes: u64) {
        let number = self.store.number();
        if let Some(entry) = self.entry(site, vm) {
            entry.doing = Some((doing, number));
            entry.work = Some(work);
        }
        self.after(takes, Event::Work { site, life, vm, number });
    }

    fn write(&mut self, site: usize, life: u64, write: HereWrite) {
        let HereWrite { vm, why, mut change } = write;
        self.check_change(&change);
        let (number, fresh) = (self.store.number(), self.fresh_attempt());
        let Some(entry) = self.entry(site, vm) else { return };
        entry.writing = Some(number);
        let what = match why {
            Why::Claim(attempt) => {
                entry.claimed = Some(attempt);
                entry.new_attempt = fresh;
                "claim"
            }
            Why::TakeOrder(operation) => {
                entry.taken = Some(operation);
                entry.outcome = None;
                "take order"
            }
            Why::FinishOrder(_) | Why::FailOrder(_) => "end order",
            Why::Settle => "settle",
            Why::Report => "report",
        };
        if what == "claim" {
            let (no_session, no_status) = (
                self.breaks(Break::ClaimWithoutSession),
                self.breaks(Break::ClaimWithoutStatus),
            );
            change.expects.retain(|part, _| match part {
                Part::Session(_) => !no_session,
                Part::Status(_) => !no_status,
                _ => true,
            });
        }
        let (name, vm_name) = (self.sites[site].name.clone(), self.vm_name(vm));
        self.detail(|| format!("{name}: {vm_name}: writes {what}"));
        let txn = Txn::of(change, By::Agent(site), what);
        self.propose(site, txn, Reply::Write { life, vm, number });
        self.after(WRITE_WITHIN_MS, Event::GiveUpWrite { site, life, vm, number });
    }

    pub fn wrote(&mut self, site: usize, life: u64, (vm, number): (VmId, u64), outcome: Outcome) {
        if self.sites[site].server_of(life).is_none() {
            return;
        }
        let Some(entry) = self.entry(site, vm).filter(|entry| entry.writing == Some(number)) else {
            return;
        };
        entry.writing = None;
        match outcome {
            Outcome::Done(revision) => {
                entry.seen_revision = entry.seen_revision.max(revision);
                entry.failures = 0;
            }
            Outcome::Raced => self.rest(site, vm),
            Outcome::Unknown => {
                // It may still arrive, and must not find a launch under way that it knows nothing of.
                entry.claimed = None;
                self.rest(site, vm);
            }
        }
        self.look_soon(site, 1);
    }

    /// What was tried did not work: it is tried again after a pause that grows.
    pub fn rest(&mut self, site: usize, vm: VmId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.entry(site, vm) else { return };
        let pause = (50u64 << entry.failures.min(10)).min(5000);
        entry.failures = entry.failures.saturating_add(1);
        entry.rests_until = now_ms + pause;
    }

    fn order(&mut self, site: usize, life: u64, ordered: plasmavmc_core::reconcile::Ordered) {
        let vm = ordered.vm;
        let number = self.store.number();
        let left = ordered
            .deadline_ms
            .saturating_sub(self.wall_ms(site))
            .min(LONGEST_ORDER_MS);
        let doing = Doing::Order(ordered.operation);
        let passed = match &ordered.order {
            Order::Stop { passed, .. } => passed.clone(),
            _ => None,
        };
        let is_stop = matches!(ordered.order, Order::Stop { .. });
        let attempt = ordered.attempt;
        let takes = self.rng.within(self.setup.delays.act);
        if let Some(entry) = self.entry(site, vm) {
            entry.taken = None;
            entry.doing = Some((doing, number));
            entry.work = Some(Work::Order(Box::new(ordered)));
        }
        if !is_stop {
            return self.after(takes, Event::Work { site, life, vm, number });
        }
        self.after(left, Event::Work { site, life, vm, number });
        match passed {
            Some(change) => {
                self.check_change(&change);
                let txn = Txn::of(*change, By::Agent(site), "gate");
                self.propose(site, txn, Reply::Order { life, vm, number });
            }
            None => {
                self.after(takes, Event::PowersOff { site, vm, attempt });
            }
        }
    }

    fn leave(&mut self, site: usize, life: u64, (vm, attempt): (VmId, AttemptId), until_ms: u64) {
        let left = until_ms.saturating_sub(self.wall_ms(site)).min(LONGEST_ORDER_MS);
        let takes = 500 + self.rng.within(self.setup.delays.act);
        self.begin(site, life, vm, (Doing::Leave, Work::Leave), left);
        self.after(takes, Event::PowersOff { site, vm, attempt });
    }

    /// The gate of a stop was passed, or something came between.
    pub fn gate_passed(&mut self, site: usize, life: u64, (vm, number): (VmId, u64), outcome: Outcome) {
        if self.sites[site].server_of(life).is_none() {
            return;
        }
        let takes = 500 + self.rng.within(self.setup.delays.act);
        let Some(entry) = self
            .entry(site, vm)
            .filter(|entry| entry.doing.is_some_and(|(_, it)| it == number))
        else {
            return;
        };
        let attempt = match (&entry.work, outcome) {
            (Some(Work::Order(ordered)), Outcome::Done(_)) => ordered.attempt,
            _ => {
                entry.doing = None;
                entry.work = None;
                return self.rest(site, vm);
            }
        };
        self.after(takes, Event::PowersOff { site, vm, attempt });
    }

    /// The end of an order is told.
    pub fn order_ended(&mut self, site: usize, vm: VmId, result: Result<(), plasmavmc_types::OperationError>) {
        let Some(entry) = self.entry(site, vm) else { return };
        if let Some((Doing::Order(operation), _)) = entry.doing {
            entry.outcome = Some(Ended { operation, result });
            entry.doing = None;
            entry.work = None;
        } else if matches!(entry.doing, Some((Doing::Leave, _))) {
            entry.doing = None;
            entry.work = None;
        }
        self.look_soon(site, 1);
    }

    fn freeze(&mut self, site: usize, life: u64, vm: VmId) {
        let number = self.store.number();
        if let Some(entry) = self.entry(site, vm) {
            entry.holding = Some((Holding::Freezing, number));
        }
        let takes = self.rng.within(self.setup.delays.act);
        self.after(takes, Event::Frozen { site, vm, life, number });
    }

    fn thaw(
        &mut self,
        site: usize,
        life: u64,
        vm: VmId,
        what: (
            plasmavmc_types::Incarnation,
            plasmavmc_types::Epoch,
            plasmavmc_types::AttemptId,
        ),
    ) {
        let number = self.store.number();
        let Some(entry) = self.entry(site, vm) else { return };
        entry.holding = Some((Holding::Thawing, number));
        entry.thawing = Some(what);
        self.after(THAW_WITHIN_MS, Event::GiveUpThaw { site, life, vm, number });
        if self.breaks(Break::ThawWithoutRead) {
            return self.thaw_proven(site, life, vm, number);
        }
        let heart = self.sites[site].server.as_ref().map(|server| &server.heart);
        let before = heart.map_or(0, |heart| heart.index_before);
        if self.breaks(Break::ThawReadBeforeReopen) && before > 0 {
            return self.thaw_read(site, life, (vm, number), before);
        }
        self.read(site, life, ReadFor::Thaw { vm, number });
    }
}

fn word(action: &AgentAction) -> String {
    match action {
        AgentAction::Launch { incarnation, .. } => format!("launch incarnation {incarnation}"),
        AgentAction::Cont { .. } => "cont".to_owned(),
        AgentAction::Freeze { .. } => "freeze".to_owned(),
        AgentAction::Thaw { .. } => "thaw".to_owned(),
        AgentAction::Kill { why, .. } => format!("kill: {why:?}"),
        AgentAction::Order(ordered) => format!("order {:?}", ordered.operation),
        AgentAction::Leave { .. } => "leave".to_owned(),
        AgentAction::Clear { .. } => "clear".to_owned(),
        AgentAction::Write(_) | AgentAction::Retry { .. } => String::new(),
    }
}
