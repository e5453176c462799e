//! The VMs of this host: one task that owns what is known of them, decides by [`plasmavmc_core::reconcile`], and
//! has its decisions carried out.
//!
//! ```text
//!   changes of the store --+                                   +--> transactions --+
//!   machines that change --+--> dirty VMs --> reconcile --> actions               news
//!   timers ----------------+        ^                          +--> work on QEMU --+
//!                                   +-----------------------------------------------
//! ```
//! Only VMs of which something changed are looked at, besides all of them once in a while: a host with hundreds
//! of them has nothing to do while nothing happens.
//!
//! Must never: decide by itself; wait for anything but the next thing to happen; act on a view that does not yet
//! show what this process has written.

mod acts;
mod changes;
mod entry;
mod health;
mod inherit;
mod leases;
mod observe;
mod orders;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::Kv;
use plasmavmc_core::reconcile::{Here, HereVm, Local, OwnSession, reconcile};
use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{HostId, Usage, VmId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::beat::{BeatState, Lease};
use super::console::ConsoleHub;
use super::prepare::Workshop;
use crate::clock::wall_ms;
use crate::store::{ChangesError, Mirror};
use entry::{Entries, fresh_attempt, usage_of};
pub use work::News;

/// News that wait for the loop.
const NEWS: usize = 1024;
/// Everything is looked at this often, whatever happened.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// A VM that waits for another one's time to pass.
const WAITING_EVERY: Duration = Duration::from_secs(1);
/// Transactions on their way at once.
const WRITES_AT_ONCE: usize = 64;
/// For a machine to let go of its monitor when the agent stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What the host's beats tell of its VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    pub usage: Usage,
    pub warnings: Vec<String>,
}

/// What the loop is given.
pub struct Parts {
    pub host: HostId,
    pub kv: Arc<dyn Kv>,
    pub mirror: Mirror,
    pub workshop: Arc<Workshop>,
    pub contact: watch::Receiver<BeatState>,
    pub voters: watch::Receiver<usize>,
    pub books: watch::Sender<Books>,
    pub consoles: ConsoleHub,
    pub stop: CancellationToken,
}

pub struct Vms {
    parts: Parts,
    entries: Entries,
    /// What is to be looked at.
    dirty: BTreeSet<VmId>,
    /// Held up by other VMs: looked at whenever one of those changes.
    waiting: BTreeSet<VmId>,
    timers: BTreeSet<(Instant, VmId)>,
    news: mpsc::Sender<News>,
    tasks: TaskTracker,
    /// Ends all work that is under way.
    ending: CancellationToken,
    launches: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    numbers: u64,
    /// Found beside the VMs, and told as it was found.
    strangers: Vec<String>,
    session: Option<OwnSession>,
    lease: Option<Lease>,
}

/// What the loop wakes up for.
enum Wake {
    Stop,
    Changes(Result<Arc<Vec<crate::store::Change>>, ChangesError>),
    News(News),
    Contact,
    /// Guests have to be held still soon.
    LeaseEnds,
    Timer,
    Sweep,
}

impl Vms {
    pub fn new(parts: Parts) -> (Self, mpsc::Receiver<News>) {
        let (news, told) = mpsc::channel(NEWS);
        let launches = parts.workshop.config.launches_at_once();
        let vms = Self {
            entries: Entries::new(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            news,
            tasks: TaskTracker::new(),
            ending: parts.stop.child_token(),
            launches: Arc::new(Semaphore::new(launches)),
            writes: Arc::new(Semaphore::new(WRITES_AT_ONCE)),
            numbers: 0,
            strangers: Vec::new(),
            session: None,
            lease: None,
            parts,
        };
        (vms, told)
    }

    /// For who has something to tell the loop.
    pub fn teller(&self) -> mpsc::Sender<News> {
        self.news.clone()
    }

    /// Takes over what runs, and then keeps this host as it should be until it is stopped. QEMUs run on.
    pub async fn run(mut self, mut told: mpsc::Receiver<News>) {
        let stop = self.parts.stop.clone();
        let is_ready = tokio::select! {
            () = stop.cancelled() => false,
            () = self.take_over_and_catch_up() => true,
        };
        if is_ready {
            self.keep(&mut told).await;
        }
        self.close(told).await;
    }

    async fn keep(&mut self, told: &mut mpsc::Receiver<News>) {
        let mut changes = self.parts.mirror.changes();
        let mut contact = self.parts.contact.clone();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let stop = self.parts.stop.clone();
        loop {
            let timer = self.timers.first().map(|(at, _)| *at);
            let lease_ends = self.lease_ends();
            let woken = tokio::select! {
                biased;
                () = stop.cancelled() => Wake::Stop,
                Some(news) = told.recv() => Wake::News(news),
                changed = changes.next() => Wake::Changes(changed),
                Ok(()) = contact.changed() => Wake::Contact,
                () = sleep_until(lease_ends) => Wake::LeaseEnds,
                () = sleep_until(timer) => Wake::Timer,
                _ = sweep.tick() => Wake::Sweep,
            };
            match woken {
                Wake::Stop => return,
                Wake::News(news) => {
                    self.learn(news);
                    // What came at the same time is decided on at once.
                    while let Ok(news) = told.try_recv() {
                        self.learn(news);
                    }
                }
                Wake::Changes(Ok(batch)) => self.note_changes(&batch),
                Wake::Changes(Err(ChangesError::Stopped)) => return,
                Wake::Changes(Err(ChangesError::Lagged { .. })) => {
                    changes = self.parts.mirror.changes();
                    self.mark_all();
                }
                Wake::Contact => self.note_contact(&contact),
                Wake::LeaseEnds => self.mark_leased(),
                Wake::Timer => self.note_timers(),
                Wake::Sweep => {
                    self.mark_all();
                    self.look_at_left_alone();
                }
            }
            self.decide();
        }
    }

    /// Whatever changed is decided on. One look at a time is enough: each leads to news, and to the next look.
    fn decide(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut ids = Vec::new();
        for vm in std::mem::take(&mut self.dirty) {
            let rests_until = self.entries.get(&vm).and_then(|entry| entry.rests_until);
            match rests_until.filter(|until| *until > now) {
                Some(until) => self.look_at(vm, until),
                None => ids.push(vm),
            }
        }
        let here = self.parts.mirror.read(|view| self.collect(view, &ids));
        for vm in &ids {
            self.waiting.remove(vm);
            self.forget_timer(*vm);
        }
        for (vm, here_vm) in &here.vms {
            self.mind(*vm, here_vm, &here, now);
        }
        for action in reconcile(&here) {
            self.act(action, &here);
        }
        self.forget_idle(&here);
        self.publish_books();
    }

    /// What has to be seen to for a VM besides what is decided.
    fn mind(&mut self, vm: VmId, here_vm: &HereVm, here: &Here, now: Instant) {
        let record = here_vm.stored.record.as_ref();
        self.entries.entry(vm).or_default().is_orphan = record.is_none();
        self.mind_agent(vm, record.map(|record| record.value.spec().agent));
        if here_vm.waits_for.is_some() {
            self.waiting.insert(vm);
            self.look_at(vm, now + WAITING_EVERY);
        }
        // Its plug is pulled then, whatever its guest does.
        let departs_in = here
            .departs
            .map(|departure| departure.until_ms.saturating_sub(here.now_ms));
        if let Some(left_ms) = departs_in.filter(|left_ms| *left_ms > 0) {
            self.look_at(vm, now + Duration::from_millis(left_ms));
        }
        let deadlines = here_vm.operations.iter().map(|operation| operation.value.deadline_ms);
        if let Some(deadline_ms) = deadlines.min() {
            let left = Duration::from_millis(deadline_ms.saturating_sub(here.now_ms));
            self.look_at(vm, now + left.max(WAITING_EVERY));
        }
    }

    /// What concerns these VMs, of all that is stored and known.
    fn collect(&self, view: &ClusterView, ids: &[VmId]) -> Here {
        let host = self.parts.host;
        let is_placed_here = |vm: &VmId| {
            let placement = view.vms.get(vm).and_then(|vm| vm.placement.as_ref());
            placement.is_some_and(|at| at.value.host == host)
        };
        let ours = ids.iter().copied();
        let ours = ours.filter(|vm| self.entries.contains_key(vm) || is_placed_here(vm));
        let own = (self.session, self.own_lease());
        Here::of(view, host, own, wall_ms(), ours, |vm| match self.entries.get(&vm) {
            Some(entry) => entry.local(),
            None => Local::empty(fresh_attempt()),
        })
    }

    /// Looks again at this time, unless something happens before. A rest is not cut short.
    fn look_at(&mut self, vm: VmId, at: Instant) {
        let Some(entry) = self.entries.get_mut(&vm) else { return };
        let at = entry.rests_until.map_or(at, |rests| at.max(rests));
        if entry.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(later) = entry.due.replace(at) {
            self.timers.remove(&(later, vm));
        }
        self.timers.insert((at, vm));
    }

    fn forget_timer(&mut self, vm: VmId) {
        if let Some(due) = self.entries.get_mut(&vm).and_then(|entry| entry.due.take()) {
            self.timers.remove(&(due, vm));
        }
    }

    /// What was tried did not work: it is tried again after a pause that grows.
    fn rest(&mut self, vm: VmId) {
        const FIRST: Duration = Duration::from_millis(50);
        const LONGEST: Duration = Duration::from_secs(5);
        let entry = self.entries.entry(vm).or_default();
        let pause = (FIRST * 2_u32.saturating_pow(entry.failures.min(10))).min(LONGEST);
        entry.failures = entry.failures.saturating_add(1);
        let until = Instant::now() + pause;
        entry.rests_until = Some(until);
        self.look_at(vm, until);
    }

    fn note_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, vm)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, vm));
            if let Some(entry) = self.entries.get_mut(&vm) {
                entry.due = None;
            }
            self.dirty.insert(vm);
        }
    }

    /// Drops what holds nothing any more, so that what is kept here is bounded by what is here.
    fn forget_idle(&mut self, here: &Here) {
        for (vm, here_vm) in &here.vms {
            let placement = here_vm.stored.placement.as_ref();
            let is_placed_here = placement.is_some_and(|at| at.value.host == self.parts.host);
            if !is_placed_here && self.entries.get(vm).is_some_and(entry::Entry::is_idle) {
                self.forget_timer(*vm);
                self.waiting.remove(vm);
                self.entries.remove(vm);
            }
        }
    }

    fn publish_books(&self) {
        let usage = usage_of(self.entries.values());
        let mut warnings = self.strangers.clone();
        for (vm, entry) in &self.entries {
            if let Some(why) = &entry.left_alone {
                warnings.push(format!("something of VM {vm} runs here and is left alone: {why}"));
            } else if entry.is_orphan && entry.holding.is_some() {
                warnings.push(format!(
                    "VM {vm} runs here, and the cluster knows nothing of it: it is left alone"
                ));
            }
        }
        let books = Books { usage, warnings };
        self.parts.books.send_if_modified(|known| {
            let is_new = *known != books;
            *known = books;
            is_new
        });
    }

    /// Lets go of everything. QEMUs run on.
    async fn close(mut self, told: mpsc::Receiver<News>) {
        self.ending.cancel();
        // Nobody listens any more: work that ends now is not held up by its news.
        drop(told);
        self.parts.consoles.clear();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some work on VMs does not end");
        }
        let machines = self
            .entries
            .values_mut()
            .filter_map(|entry| entry.holding.as_mut()?.machine.take());
        let closing = machines.map(|machine| tokio::time::timeout(CLOSE_WITHIN, machine.close()));
        futures::future::join_all(closing).await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
