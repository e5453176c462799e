//! What happens, in order: the queue, and everything that is in the world.
//!
//! Must never: let something happen on a host that is paused, off or in another life than the one it was meant for.

mod control;
mod elders;
mod event;
mod guard;
mod messages;
mod raft;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{HostId, Incarnation, InstanceNonce, Timings, VmId};

pub use event::{Event, ThawOrder};

use crate::breaks::Break;
use crate::check::Checker;
use crate::host::{Clock, Site};
use crate::ids;
use crate::log::{Level, Log};
use crate::rng::Rng;
use crate::setup::{Setup, WALL_MS};
use crate::store::{Outcome, Store};

#[derive(Debug)]
struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What was counted, for whoever compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub steps: u64,
    pub fences: u64,
    pub false_fences: u64,
    pub failovers: u64,
    pub freezes: u64,
    pub thaws: u64,
    pub starts: u64,
    pub elections: u64,
}

/// The shared pool: who claimed what, and whose death still holds a lock.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    pub claims: BTreeMap<VmId, BTreeMap<Incarnation, (HostId, InstanceNonce)>>,
    pub held_until: BTreeMap<VmId, u64>,
}

#[derive(Debug)]
pub struct World {
    pub now_ms: u64,
    pub setup: Setup,
    pub rng: Rng,
    /// For what must not change what else is drawn.
    pub side: Rng,
    pub store: Store,
    pub sites: Vec<Site>,
    /// Links that do not carry, by sender and receiver.
    pub cut: BTreeSet<(usize, usize)>,
    pub pool: Pool,
    pub log: Log,
    pub check: Checker,
    pub counts: Counts,
    pub healed: bool,
    pub lives: u64,
    pub attempts: u64,
    pub operations: u64,
    pub pids: u32,
    /// Where QEMU of a VM ends at once.
    pub broken: BTreeSet<(usize, VmId)>,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
}

impl World {
    pub fn new(setup: Setup, keeps: Option<Level>) -> Self {
        let mut view = ClusterView {
            timings: setup.timings,
            ..ClusterView::default()
        };
        for (index, host) in setup.hosts.iter().enumerate() {
            if let Some(record) = host
                .record(index as u64 + 1)
                .filter(|_| !host.witness && host.clone_of.is_none())
            {
                view.revision += 1;
                let record = plasmavmc_core::view::Stored::new(record, view.revision);
                view.hosts.entry(ids::host(index as u64 + 1)).or_default().record = Some(record);
            }
        }
        let rng = Rng::new(setup.seed);
        let mut world = Self {
            now_ms: 0,
            rng,
            side: Rng::new(setup.seed ^ 0xe1de),
            store: Store::new(view),
            sites: Vec::new(),
            cut: BTreeSet::new(),
            pool: Pool::default(),
            log: Log::new(keeps),
            check: Checker::default(),
            counts: Counts::default(),
            healed: false,
            lives: 0,
            attempts: 0,
            operations: 0,
            pids: 100,
            broken: BTreeSet::new(),
            queue: BinaryHeap::new(),
            order: 0,
            setup,
        };
        for index in 0..world.setup.hosts.len() {
            world.add_site(index);
        }
        world.at(0, Event::Raft);
        world
    }

    fn add_site(&mut self, index: usize) {
        let host = self.setup.hosts[index].clone();
        let number = host.clone_of.unwrap_or(index) as u64 + 1;
        let mut site = Site {
            index,
            host: ids::host(number),
            name: host.name,
            witness: host.witness,
            voter: host.voter && host.clone_of.is_none(),
            is_clone: host.clone_of.is_some(),
            memory_mb: host.memory_mb,
            shared_pool: host.shared_pool,
            wall_skew_ms: host.wall_skew_ms,
            powered: false,
            paused: false,
            clock: Clock {
                offset_ms: 0,
                rate_ppm: host.rate_ppm,
            },
            instance: ids::instance(0),
            boot: ids::boot(0),
            past: Vec::new(),
            server: None,
            guard: None,
            qemus: BTreeMap::new(),
            applied: 0,
            leader_heard_ms: 0,
            patience_ms: 0,
            slow_ms: 0,
            lag_ms: 0,
            read_only: false,
        };
        site.patience_ms = self.rng.within(self.setup.delays.election);
        self.sites.push(site);
        if host.clone_of.is_none() {
            self.power_on(index, 0);
        }
    }

    pub fn breaks(&self, one: Break) -> bool {
        self.setup.breaks.has(one)
    }

    /// Those of the cluster, as this member knows: what it has applied may be old.
    pub fn timings(&self, site: usize) -> Timings {
        self.store.at(self.sites[site].applied).view.timings
    }

    pub fn life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    pub fn wall_ms(&self, site: usize) -> u64 {
        WALL_MS + self.now_ms + self.sites[site].wall_skew_ms
    }

    pub fn local_ms(&self, site: usize) -> u64 {
        self.sites[site].clock.at(self.now_ms)
    }

    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due(at_ms.max(self.now_ms), self.order, event)));
    }

    pub fn after(&mut self, in_ms: u64, event: Event) {
        self.at(self.now_ms + in_ms, event);
    }

    pub fn fact(&mut self, text: impl FnOnce() -> String) {
        self.log.add(self.now_ms, Level::Fact, text);
    }

    pub fn detail(&mut self, text: impl FnOnce() -> String) {
        self.log.add(self.now_ms, Level::Detail, text);
    }

    pub fn vm_name(&self, vm: VmId) -> String {
        let number = vm.as_uuid().as_u128() & 0xffff;
        let index = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        self.setup
            .vms
            .get(index)
            .map_or_else(|| vm.to_string(), |vm| vm.name.clone())
    }

    pub fn host_name(&self, host: HostId) -> String {
        let site = self.sites.iter().find(|site| site.host == host && !site.is_clone);
        site.map_or_else(|| host.to_string(), |site| site.name.clone())
    }

    /// The next thing happens, and what must be so is looked at. `false`: nothing is left, or it is over.
    pub fn step(&mut self, until_ms: u64) -> bool {
        let is_due = self.queue.peek().is_some_and(|Reverse(due)| due.0 <= until_ms);
        if !is_due || !self.check.violations.is_empty() {
            return false;
        }
        if let Some(Reverse(Due(at_ms, _, event))) = self.queue.pop() {
            self.now_ms = at_ms;
            self.counts.steps += 1;
            self.happens(event);
            self.check_now();
        }
        true
    }

    pub fn run_until(&mut self, until_ms: u64) {
        while self.step(until_ms) {}
        if self.check.violations.is_empty() {
            self.now_ms = until_ms;
        }
    }

    fn happens(&mut self, event: Event) {
        if event.site().is_some_and(|site| self.sites[site].paused) {
            let late = self.rng.within((5, 60));
            return self.after(late, event);
        }
        match event {
            Event::Raft => self.raft_tick(),
            Event::Arrive(proposal) => self.arrive(proposal),
            Event::Commit(proposal) => self.commit_due(proposal),
            Event::Answered { proposal, outcome } => self.answered(proposal, outcome),
            Event::Apply { site, life, upto } => self.apply(site, life, upto),
            Event::ReadArrive(read) => self.read_arrives(read),
            Event::ReadConfirm(read) => self.read_confirmed(read),
            Event::ReadAnswer { read, index } => self.read_answered(read, index),
            Event::StartServer { site } => self.start_server(site),
            Event::Ready { site, life, index } => self.caught_up(site, life, index),
            Event::Beat { site, life } => self.beat_due(site, life),
            Event::GiveUpAnswer { site, life, number } => self.answer_given_up(site, life, number),
            Event::Tick { site, life } => self.tick(site, life),
            Event::Look { site, life } => self.look(site, life),
            Event::GiveUpWrite { site, life, vm, number } => self.wrote(site, life, (vm, number), Outcome::Unknown),
            Event::Work { site, life, vm, number } => self.work_done(site, life, vm, number),
            Event::Frozen { site, vm, life, number } => self.qmp_stopped(site, vm, life, number),
            Event::ThawOrder { site, order } => self.thaw_ordered(site, order),
            Event::GiveUpThaw { site, vm, life, number } => self.thaw_ended(site, life, vm, number),
            Event::PowersOff { site, vm, attempt } => self.powers_off(site, vm, attempt),
            Event::Control { site, life, term } => self.control(site, life, term),
            Event::Plan {
                site,
                life,
                round,
                index,
            } => self.plan_when_applied(site, life, round, index),
            Event::EndRound { site, life, round } => self.round_over(site, life, round),
            Event::Listen { site, life } => self.listen(site, life),
            Event::Listens {
                site,
                life,
                index,
                revision,
            } => self.listens(site, life, index, revision),
            Event::AskElders { site, life, term } => self.ask_elders(site, life, term),
            Event::ElderAsked(question) => self.elder_asked(question),
            Event::ElderSays { question, revision } => self.elder_says(question, revision),
            Event::StartGuard { site } => self.start_guard(site),
            Event::GuardTick { site, life } => self.guard_tick(site, life),
            Event::GuardKills { site, vm, attempt } => self.guard_kills(site, vm, attempt),
            Event::Outside(outside) => self.outside(outside),
        }
    }
}
