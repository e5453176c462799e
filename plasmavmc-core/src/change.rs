//! One transaction, before it meets the store: what it compares, and what it writes.
//!
//! Decisions end in these. Whoever carries them out makes one transaction of each: all that is expected must
//! still be so, or nothing happens and it is decided anew.
//!
//! Must never: write something whose revision it does not compare (I6). [`Change::unguarded`] finds a breach,
//! and the tests look.

use std::collections::BTreeMap;

use plasmavmc_types::{
    Decision, HostId, HostRecord, Operation, OperationId, Placement, Session, VmId, VmName, VmNumber, VmRecord,
    VmStatus,
};

use crate::view::{ClusterView, Stored, VmView, revision_of};

/// Operations that one transaction moves at most: the store takes only so much at once. Those beyond are moved by the
/// next one, or ended by the controller one by one.
pub const OPERATIONS_AT_ONCE: usize = 64;

/// A key of the store, by what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    VmRecord(VmId),
    Placement(VmId),
    Status(VmId),
    HostRecord(HostId),
    Session(HostId),
    Beat(HostId),
    Operation(OperationId),
    Name(VmName),
    Number(VmNumber),
    /// By its key, as in [`ClusterView::decisions`].
    Decision(String),
}

/// A value to be written under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    VmRecord(Box<VmRecord>),
    Placement(VmId, Placement),
    Status(VmId, VmStatus),
    HostRecord(HostRecord),
    Session(HostId, Session),
    Operation(Operation),
}

impl Put {
    pub fn part(&self) -> Part {
        match self {
            Put::VmRecord(record) => Part::VmRecord(record.id()),
            Put::Placement(vm, _) => Part::Placement(*vm),
            Put::Status(vm, _) => Part::Status(*vm),
            Put::HostRecord(record) => Part::HostRecord(record.id()),
            Put::Session(host, _) => Part::Session(*host),
            Put::Operation(operation) => Part::Operation(operation.id),
        }
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Revisions that must not have changed; 0: it must not be there.
    pub expects: BTreeMap<Part, u64>,
    pub puts: Vec<Put>,
    pub removes: Vec<Part>,
    /// Written in the same transaction, under a key of its own that the writer makes unique.
    pub decision: Option<Decision>,
}

impl Change {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn expect(mut self, part: Part, revision: u64) -> Self {
        self.expects.insert(part, revision);
        self
    }

    /// Expects what was seen, or that there is nothing.
    #[must_use]
    pub fn expect_seen<T>(self, part: Part, seen: Option<&Stored<T>>) -> Self {
        self.expect(part, revision_of(seen))
    }

    #[must_use]
    pub fn put(mut self, put: Put) -> Self {
        self.puts.push(put);
        self
    }

    #[must_use]
    pub fn remove(mut self, part: Part) -> Self {
        self.removes.push(part);
        self
    }

    #[must_use]
    pub fn because(mut self, decision: Decision) -> Self {
        self.decision = Some(decision);
        self
    }

    /// An operation in its next form, in place of the one that was seen.
    #[must_use]
    pub fn replace_operation(self, seen: &Stored<Operation>, next: Operation) -> Self {
        self.expect(Part::Operation(next.id), seen.revision)
            .put(Put::Operation(next))
    }

    /// What it writes or removes without comparing it. Names and numbers go with the record that has them, so
    /// comparing that is enough.
    pub fn unguarded(&self) -> Vec<Part> {
        let written = self.puts.iter().map(Put::part).chain(self.removes.iter().cloned());
        let compares_record = || self.expects.keys().any(|part| matches!(part, Part::VmRecord(_)));
        let is_free = |part: &Part| match part {
            Part::Name(_) | Part::Number(_) => !compares_record(),
            part => !self.expects.contains_key(part),
        };
        written.filter(is_free).collect()
    }

    /// Whether all that it expects is so in a view.
    pub fn holds_in(&self, view: &ClusterView) -> bool {
        self.expects
            .iter()
            .all(|(part, revision)| view.revision_of_part(part) == *revision)
    }

    /// Carries it out on a view, as the store would at this revision: for models and simulations. `false`: it
    /// does not hold, and nothing was changed.
    pub fn apply_to(&self, view: &mut ClusterView, revision: u64) -> bool {
        if !self.holds_in(view) {
            return false;
        }
        self.puts.iter().for_each(|put| view.put(put, revision));
        self.removes.iter().for_each(|part| view.remove(part));
        if let Some(decision) = &self.decision {
            let key = format!("{:020}-{:04x}", decision.at_ms, revision & 0xffff);
            view.decisions.insert(key, Stored::new(decision.clone(), revision));
        }
        view.revision = revision;
        true
    }
}

impl ClusterView {
    /// The revision of what is stored under a key. Names and numbers are known without theirs: those of a VM
    /// that exists count with its record's.
    pub fn revision_of_part(&self, part: &Part) -> u64 {
        let vm = |vm: &VmId| self.vms.get(vm);
        let host = |host: &HostId| self.hosts.get(host);
        let named = |id: Option<&VmId>| id.and_then(vm).map_or(0, |vm| revision_of(vm.record.as_ref()));
        match part {
            Part::VmRecord(id) => vm(id).map_or(0, |vm| revision_of(vm.record.as_ref())),
            Part::Placement(id) => vm(id).map_or(0, |vm| revision_of(vm.placement.as_ref())),
            Part::Status(id) => vm(id).map_or(0, |vm| revision_of(vm.status.as_ref())),
            Part::HostRecord(id) => host(id).map_or(0, |host| revision_of(host.record.as_ref())),
            Part::Session(id) => host(id).map_or(0, |host| revision_of(host.session.as_ref())),
            Part::Beat(id) => host(id).map_or(0, |host| revision_of(host.beat.as_ref())),
            Part::Operation(id) => revision_of(self.operations.get(id)),
            Part::Decision(key) => revision_of(self.decisions.get(key)),
            Part::Name(name) => named(self.names.get(name)),
            Part::Number(number) => named(self.numbers.get(number)),
        }
    }

    fn put(&mut self, put: &Put, revision: u64) {
        match put {
            Put::VmRecord(record) => {
                let old = self.vms.get(&record.id()).and_then(VmView::name).cloned();
                old.map(|name| self.names.remove(&name));
                self.names.insert(record.spec().name.clone(), record.id());
                self.numbers.insert(record.number(), record.id());
                self.vms.entry(record.id()).or_default().record = Some(Stored::new((**record).clone(), revision));
            }
            Put::Placement(vm, placement) => {
                self.vms.entry(*vm).or_default().placement = Some(Stored::new(*placement, revision));
            }
            Put::Status(vm, status) => {
                self.vms.entry(*vm).or_default().status = Some(Stored::new(status.clone(), revision));
            }
            Put::HostRecord(record) => {
                self.hosts.entry(record.id()).or_default().record = Some(Stored::new(record.clone(), revision));
            }
            Put::Session(host, session) => {
                self.hosts.entry(*host).or_default().session = Some(Stored::new(*session, revision));
            }
            Put::Operation(operation) => {
                self.operations
                    .insert(operation.id, Stored::new(operation.clone(), revision));
            }
        }
    }

    fn remove(&mut self, part: &Part) {
        match part {
            Part::VmRecord(vm) => self.vms.entry(*vm).or_default().record = None,
            Part::Placement(vm) => self.vms.entry(*vm).or_default().placement = None,
            Part::Status(vm) => self.vms.entry(*vm).or_default().status = None,
            Part::HostRecord(host) => self.hosts.entry(*host).or_default().record = None,
            Part::Session(host) => self.hosts.entry(*host).or_default().session = None,
            Part::Beat(host) => self.hosts.entry(*host).or_default().beat = None,
            Part::Operation(operation) => drop(self.operations.remove(operation)),
            Part::Name(name) => drop(self.names.remove(name)),
            Part::Number(number) => drop(self.numbers.remove(number)),
            Part::Decision(key) => drop(self.decisions.remove(key)),
        }
        self.vms.retain(|_, vm| *vm != Default::default());
        self.hosts.retain(|_, host| *host != Default::default());
    }
}
