//! The store, the two hosts, and what happens to them.

use std::collections::BTreeSet;

use plasmavmc_types::{AgentPolicy, AttemptId, Operation, OperationKind, PowerWanted, RestartPolicy};

use super::super::*;
use super::Event;
use super::site::{Sent, Server, Site, Work};
use crate::change::{Change, Put};
use crate::samples::{Cluster, NOW_MS, attempt, host_id, vm_id};

/// As for hosts that have beaten lately.
const FRESH_MS: u64 = 500;
const SILENT_MS: u64 = 60_000;

#[derive(Debug, Clone)]
pub struct World {
    /// What is stored.
    pub cluster: Cluster,
    pub sites: [Site; 2],
    pub now_ms: u64,
    /// Sent, and given up by their senders.
    pub late: Vec<Change>,
    attempts: u32,
    pub operations: u32,
    claimed: BTreeSet<AttemptId>,
    /// What happened, for whoever has to find out why.
    pub story: Vec<String>,
    /// It was moved while it may have run: then two may run until the proof has arrived.
    pub was_forced: bool,
}

impl World {
    pub fn new(agent: AgentPolicy, restart: RestartPolicy) -> Self {
        let cluster = Cluster::of_hosts(2).with_vm_of(1, |fields| {
            fields.agent = agent;
            fields.restart = restart;
        });
        let cluster = cluster.with_operation(1, 1, OperationKind::Create);
        let site = |number| Site {
            number,
            qemu: None,
            server: None,
            down_since_ms: 0,
        };
        let mut world = Self {
            cluster,
            sites: [site(1), site(2)],
            now_ms: NOW_MS,
            late: Vec::new(),
            attempts: 1000,
            operations: 1,
            claimed: BTreeSet::new(),
            story: Vec::new(),
            was_forced: false,
        };
        world.start(0, true);
        world.start(1, true);
        world.control();
        world
    }

    pub fn fresh(&mut self) -> AttemptId {
        self.attempts += 1;
        attempt(self.attempts)
    }

    /// All that led here, and what is there now.
    pub fn told(&self) -> String {
        let vm = self.cluster.view.vms.get(&vm_id(1));
        let open = self.open_operations();
        let sites: Vec<_> = self
            .sites
            .iter()
            .map(|site| (&site.qemu, site.server.as_ref().map(|server| &server.local)))
            .collect();
        format!(
            "{}\nstored: {vm:#?}\nopen: {open:#?}\nhere: {sites:#?}",
            self.story.join("\n")
        )
    }

    pub fn happens(&mut self, event: Event) {
        self.story.push(format!("{event:?}"));
        match event {
            Event::Well(site) => drop(self.goes_well(site)),
            Event::Decide(site) => drop(self.decide(site)),
            Event::Hear(site) => self.hear(site),
            Event::Arrive(site) => self.arrive(site),
            Event::Answer(site, is_known) => self.answer(site, is_known),
            Event::Work(site, how) => self.work(site, how),
            Event::Notice(site) => self.sites[site].notice(),
            Event::LookAgain(site) => self.sites[site].look_again(),
            Event::Guest(site, what) => self.sites[site].guest(what),
            Event::Crash(site, how) => self.crash(site, how),
            Event::Start(site, is_whole) => self.start(site, is_whole),
            Event::Fence(site) => self.fence(site),
            Event::Open(site) => self.open(site),
            Event::Mode(site, mode) => self.set_mode(site, mode),
            Event::Depart(site, Some(leaving)) => self.depart(site, leaving),
            Event::Depart(site, None) => self.stay(site),
            Event::Call(kind, force) => self.call(kind, force),
            Event::Cancel => self.cancel(),
            Event::Control => drop(self.control()),
            Event::Late => {
                if let Some(change) = self.late.pop() {
                    self.apply(&change);
                }
            }
            Event::Force => self.force(),
            Event::Pass(ms) => self.now_ms += ms,
        }
    }

    /// Makes a transaction, as the store would. What it writes is checked against what is really so.
    pub fn apply(&mut self, change: &Change) -> Option<u64> {
        assert_eq!(change.unguarded(), [], "{change:#?}");
        if !change.holds_in(&self.cluster.view) {
            return None;
        }
        for put in &change.puts {
            match put {
                Put::Status(_, status) => self.check_status(status),
                Put::Operation(operation) => {
                    let before = self.cluster.view.operations.get(&operation.id);
                    let has_ended = before.is_some_and(|before| before.value.is_ended());
                    assert!(!has_ended, "it has ended: {operation:#?}: {}", self.told());
                }
                _ => {}
            }
        }
        let revision = self.cluster.view.revision + 1;
        assert!(change.apply_to(&mut self.cluster.view, revision));
        Some(revision)
    }

    /// A status is the word of a host, and others rely on it.
    fn check_status(&mut self, status: &plasmavmc_types::VmStatus) {
        let before = self.cluster.view.vms[&vm_id(1)].status.as_ref();
        let is_claim = before.is_none_or(|before| before.value.attempt != status.attempt);
        if is_claim {
            assert!(self.claimed.insert(status.attempt), "claimed twice: {status:#?}");
        }
        let placement = self.cluster.view.vms[&vm_id(1)].placement.as_ref().unwrap();
        let host = placement.value.host;
        assert_eq!(status.incarnation, placement.value.incarnation, "{status:#?}");
        let site = &self.sites[usize::from(host == host_id(2))];
        let is_over = matches!(status.state, ObservedState::Stopped | ObservedState::Failed { .. });
        if (is_over && status.process.is_none()) || is_claim {
            assert_eq!(site.living(), None, "{status:?} in spite of it: {}", self.told());
            let launches = site
                .server
                .as_ref()
                .is_some_and(|server| matches!(server.work, Some(Work::Launch(_))));
            assert!(!launches, "{status:#?} while it is started: {}", self.told());
        }
    }

    pub fn heard(&mut self) {
        for (number, site) in (1..).zip(&self.sites) {
            let is_up = site.server.is_some();
            let down_ms = self.now_ms.saturating_sub(site.down_since_ms);
            let ago_ms = if is_up {
                FRESH_MS
            } else {
                (FRESH_MS + down_ms).min(SILENT_MS)
            };
            self.cluster.heard.ago_ms.insert(host_id(number), ago_ms);
        }
    }

    /// The controller looks once. Whether it did something.
    pub fn control(&mut self) -> bool {
        self.heard();
        let actions = crate::plan::plan(&self.cluster.view, &self.cluster.heard, self.now_ms);
        for action in &actions {
            self.story.push(format!("  controller: {:?}", action.kind));
            assert!(self.apply(&action.change).is_some(), "{action:#?}");
        }
        !actions.is_empty()
    }

    pub fn hear(&mut self, site: usize) {
        if let Some(server) = &mut self.sites[site].server {
            server.view = self.cluster.view.clone();
        }
    }

    pub fn arrive(&mut self, site: usize) {
        let server = self.sites[site].server.as_ref();
        let sent = server
            .and_then(|server| server.writing.clone())
            .filter(|sent| sent.outcome.is_none());
        let Some(sent) = sent else { return };
        let outcome = self.apply(&sent.change);
        if let Some(server) = &mut self.sites[site].server
            && let Some(sent) = &mut server.writing
        {
            sent.outcome = Some(outcome);
        }
    }

    /// Without a known outcome the transaction may be there, may come later, or never.
    pub fn answer(&mut self, site: usize, is_known: bool) {
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        let is_there = server.writing.as_ref().is_some_and(|sent| sent.outcome.is_some());
        if !is_there && is_known {
            return;
        }
        let Some(sent) = server.writing.take() else { return };
        server.local.is_writing = false;
        match sent.outcome {
            Some(outcome) if is_known => {
                let seen = &mut server.local.seen_revision;
                *seen = (*seen).max(outcome.unwrap_or(0));
            }
            outcome => {
                server.local.claimed = None;
                self.late.extend(outcome.is_none().then_some(sent.change));
            }
        }
    }

    pub fn is_wanted_on(&self) -> bool {
        let record = self.cluster.view.vms.get(&vm_id(1)).and_then(|vm| vm.record.as_ref());
        record.is_some_and(|record| record.value.power() == PowerWanted::On && !record.value.is_deleted())
    }

    /// What must be so after every step.
    pub fn check(&self) {
        let living = self.sites.iter().filter(|site| site.living().is_some()).count();
        assert!(living <= 1 || self.was_forced, "it runs twice: {}", self.told());
    }

    pub fn open_operations(&self) -> Vec<Operation> {
        let all = self.cluster.view.operations.values();
        all.filter(|operation| !operation.value.is_ended())
            .map(|operation| operation.value.clone())
            .collect()
    }

    pub fn send(server: &mut Server, change: Change) {
        server.local.is_writing = true;
        server.writing = Some(Sent { change, outcome: None });
    }
}
