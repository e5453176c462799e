//! What comes from outside: faults, repairs and clients.

mod words;

use plasmavmc_core::change::{Change, Part, Put};
use plasmavmc_core::lifecycle::{admit, admit_delete};
use plasmavmc_core::reconcile::Ended;
use plasmavmc_core::visible;
use plasmavmc_types::{Departure, HaPolicy, HostMode, Leaving, ObservedState, OperationKind, Timings, VmId};

use crate::host::Run;
use crate::ids;
use crate::store::{By, Txn};
use crate::world::{Event, World};

/// For guests to power off before their host goes.
const DEPARTS_WITHIN_MS: u64 = 10_000;

/// Something from outside. Hosts by their place in the setup, VMs by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    PowerOff(usize),
    PowerOn(usize, u64),
    KillServer(usize),
    StartServer(usize),
    KillGuard(usize),
    Pause(usize),
    Resume(usize),
    /// No message to it and from it.
    Cut(usize),
    Join(usize),
    CutOneWay(usize, usize),
    Mend(usize, usize),
    CutAll,
    MendAll,
    Slow(usize, u64),
    Lag(usize, u64),
    ReadOnly(usize, bool),
    /// Somebody else leads from now on: this one, if it can.
    Lead(usize),
    /// The server dies, and comes back with an empty store.
    Reseed(usize),
    Create(u64),
    Ask(u64, OperationKind),
    Delete(u64, bool),
    Ha(u64, HaPolicy),
    Mode(usize, HostMode),
    /// A host is about to be switched off.
    Depart(usize, Leaving),
    GuestDies(u64),
    GuestPowersOff(u64),
    /// QEMU of this VM does not start on this host, or does again.
    Broken(u64, usize, bool),
    /// Those of the cluster from now on.
    Timings(Timings),
    /// A host is taken out as dead, which is its operator's word.
    TakeOut(usize),
    Heal,
}

impl World {
    pub fn outside(&mut self, what: Outside) {
        let text = self.told(&what);
        if !what.is_call() {
            self.fact(|| format!("> {text}"));
        }
        match what {
            Outside::PowerOff(site) => self.power_off(site),
            Outside::PowerOn(site, takes) => self.power_on(site, takes),
            Outside::KillServer(site) => self.stop_server(site, "is killed"),
            Outside::StartServer(site) => self.start_server(site),
            Outside::KillGuard(site) => self.kill_guard(site),
            Outside::Pause(site) if self.sites[site].powered => self.sites[site].paused = true,
            Outside::Pause(_) => {}
            Outside::Resume(site) => self.sites[site].paused = false,
            Outside::Cut(site) => self.cut_site(site),
            Outside::Join(site) => self.cut.retain(|(from, to)| *from != site && *to != site),
            Outside::CutOneWay(from, to) => drop(self.cut.insert((from, to))),
            Outside::Mend(from, to) => drop(self.cut.remove(&(from, to))),
            Outside::CutAll => (0..self.sites.len()).for_each(|site| self.cut_site(site)),
            Outside::MendAll => self.cut.clear(),
            Outside::Slow(site, ms) => self.sites[site].slow_ms = ms,
            Outside::Lag(site, ms) => self.sites[site].lag_ms = ms,
            Outside::ReadOnly(site, is_so) => self.sites[site].read_only = is_so,
            Outside::Lead(site) => self.lead(site),
            Outside::Reseed(site) => {
                self.stop_server(site, "is killed, and its store is lost");
                self.sites[site].applied = 0;
                self.after(300, Event::StartServer { site });
            }
            Outside::Heal => self.heal(),
            Outside::GuestDies(vm) => self.guest_dies(ids::vm(vm)),
            Outside::GuestPowersOff(vm) => self.guest_powers_off(ids::vm(vm)),
            Outside::Broken(vm, site, true) => drop(self.broken.insert((site, ids::vm(vm)))),
            Outside::Broken(vm, site, false) => drop(self.broken.remove(&(site, ids::vm(vm)))),
            call => self.call(&call),
        }
    }

    fn cut_site(&mut self, site: usize) {
        for other in (0..self.sites.len()).filter(|other| *other != site) {
            self.cut.insert((site, other));
            self.cut.insert((other, site));
        }
    }

    fn lead(&mut self, site: usize) {
        let may = self.sites[site].voter && self.has_quorum(site) && self.store.leader != Some(site);
        if may && !self.sites[site].read_only {
            self.become_leader(site);
        }
    }

    /// All that was broken is repaired: every machine, process and link is there again.
    fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        self.broken.clear();
        for site in 0..self.sites.len() {
            let here = &mut self.sites[site];
            (here.slow_ms, here.lag_ms, here.read_only, here.paused) = (0, 0, false, false);
            if here.is_clone && !here.powered {
                continue;
            }
            self.power_on(site, 500);
            self.after(600, Event::StartServer { site });
        }
    }

    fn guest_dies(&mut self, vm: VmId) {
        let at = self.sites.iter().find(|site| site.executes(vm)).map(|site| site.index);
        if let Some(site) = at {
            self.kill_qemu(site, vm, Ended::Signal(11));
        }
    }

    fn guest_powers_off(&mut self, vm: VmId) {
        let Some(site) = self.sites.iter().find(|site| site.executes(vm)) else {
            return;
        };
        let Some(qemu) = site.qemus.get(&vm).filter(|qemu| qemu.run == Run::Running) else {
            return;
        };
        let (site, attempt) = (site.index, qemu.attempt);
        self.after(1, Event::PowersOff { site, vm, attempt });
    }

    /// What a client asks for: admitted by the rules, on what is stored.
    fn call(&mut self, call: &Outside) {
        let now_ms = crate::setup::WALL_MS + self.now_ms;
        let view = self.store.newest().clone();
        let change = match call {
            Outside::Create(number) => {
                self.operations += 1;
                let operation = self.operations;
                let index = usize::try_from(*number).unwrap_or(0).saturating_sub(1);
                let setup = self.setup.vms.get(index);
                setup.and_then(|vm| vm.create(*number, operation, now_ms))
            }
            Outside::Ha(number, policy) => view.vms.get(&ids::vm(*number)).and_then(|vm| {
                let record = vm.record.as_ref()?;
                let spec = record.value.spec().edit(|fields| fields.ha = *policy).ok()?;
                let next = record.value.with_spec(spec).ok()?;
                let change = Change::new().expect(Part::VmRecord(ids::vm(*number)), record.revision);
                Some(change.put(Put::VmRecord(Box::new(next))))
            }),
            Outside::Mode(site, mode) => view.hosts.get(&self.sites[*site].host).and_then(|host| {
                let record = host.record.as_ref()?;
                let change = Change::new().expect(Part::HostRecord(record.value.id()), record.revision);
                let next = record.value.with_mode(*mode).with_departure(None);
                Some(change.put(Put::HostRecord(next)))
            }),
            Outside::Depart(site, leaving) => view.hosts.get(&self.sites[*site].host).and_then(|host| {
                let (record, session) = (host.record.as_ref()?, host.session.as_ref()?);
                let id = record.value.id();
                let change = Change::new().expect(Part::HostRecord(id), record.revision);
                let departure = Departure {
                    instance: session.value.instance,
                    leaving: *leaving,
                    until_ms: now_ms + DEPARTS_WITHIN_MS,
                };
                let next = record.value.clone().with_departure(Some(departure));
                let change = change.expect(Part::Session(id), session.revision);
                Some(change.put(Put::HostRecord(next)))
            }),
            Outside::TakeOut(site) => {
                let host = self.sites[*site].host;
                let record = view.hosts.get(&host).and_then(|host| host.record.as_ref());
                record.map(|record| {
                    Change::new()
                        .expect(Part::HostRecord(host), record.revision)
                        .remove(Part::HostRecord(host))
                })
            }
            Outside::Ask(number, kind) => self.ask(ids::vm(*number), *kind, false, now_ms),
            Outside::Delete(number, force) => self.ask(ids::vm(*number), OperationKind::Delete, *force, now_ms),
            Outside::Timings(_) => Some(Change::new()),
            _ => None,
        };
        let text = self.told(call);
        let Some(change) = change else {
            return self.fact(|| format!("> {text}: refused"));
        };
        let mut txn = Txn::of(change, By::Client, "call");
        if let Outside::Timings(timings) = call {
            txn.timings = Some(*timings);
        }
        let done = self.propose_as_client(txn);
        self.fact(|| format!("> {text}: {}", if done { "done" } else { "nobody leads" }));
        match call {
            Outside::Create(number) if done => drop(self.check.acknowledged.insert(ids::vm(*number))),
            Outside::Delete(number, _) if done => drop(self.check.deleted.insert(ids::vm(*number))),
            _ => {}
        }
    }

    fn ask(&mut self, vm: VmId, kind: OperationKind, force: bool, now_ms: u64) -> Option<Change> {
        let view = self.store.newest().clone();
        let known = view.vms.get(&vm)?;
        let heard = self.store.leader.map(|leader| self.heard(leader)).unwrap_or_default();
        let shown = visible::vm(&view, &heard, vm);
        let open = view.open_operations(vm);
        let admitted = match kind {
            OperationKind::Delete => admit_delete(force, known, &open, &shown),
            kind => admit(kind, known, &open, &shown),
        };
        let admission = admitted.ok()?;
        self.operations += 1;
        let operation = admission.operation(ids::operation(self.operations), kind, vm, known.name()?.clone(), now_ms);
        Some(admission.into_change(operation))
    }

    /// What a commit means to people.
    pub fn note_commit(&mut self, before: &plasmavmc_core::view::ClusterView, txn: &Txn) {
        if let Some((host, session)) = &txn.opens {
            let (name, epoch) = (self.host_name(*host), session.epoch);
            self.fact(|| format!("{name} opens session {epoch}"));
        }
        for put in &txn.change.puts {
            match put {
                Put::Session(host, _) => {
                    let name = self.host_name(*host);
                    self.fact(|| format!("{name} fenced"));
                }
                Put::Placement(vm, placement) => {
                    let (vm, host, incarnation) =
                        (self.vm_name(*vm), self.host_name(placement.host), placement.incarnation);
                    self.fact(|| format!("{vm} placed on {host} (incarnation {incarnation}, {})", txn.what));
                }
                Put::Status(vm, status) => self.note_status(before, *vm, status, txn),
                _ => {}
            }
        }
        if txn.what == "wait"
            && let Some(decision) = &txn.change.decision
            && let Some(vm) = decision.vm
        {
            let name = self.vm_name(vm);
            let text = decision.text.clone();
            self.fact(|| format!("{name} waits: {text}"));
        }
        for part in &txn.change.removes {
            if let Part::VmRecord(vm) = part {
                let name = self.vm_name(*vm);
                self.fact(|| format!("{name} is forgotten"));
            }
        }
    }

    fn note_status(
        &mut self,
        before: &plasmavmc_core::view::ClusterView,
        vm: VmId,
        status: &plasmavmc_types::VmStatus,
        txn: &Txn,
    ) {
        let By::Agent(site) = txn.by else { return };
        let old = before
            .vms
            .get(&vm)
            .and_then(|vm| vm.current_status())
            .map(|status| &status.value);
        let is_same = old.is_some_and(|old| old.state == status.state && old.attempt == status.attempt);
        if is_same {
            return;
        }
        let state = match &status.state {
            ObservedState::Failed { reason } => format!("failed: {reason}"),
            state => state.vm_state().to_string(),
        };
        let leased = if status.leased { ", leased" } else { "" };
        let is_claim = old.is_none_or(|old| old.attempt != status.attempt);
        let what = if is_claim { "claims" } else { "says" };
        let (name, vm) = (self.sites[site].name.clone(), self.vm_name(vm));
        self.fact(|| format!("{name} {what} {vm}: {state}{leased}"));
    }
}
