//! What Raft promises, and no more: one sequence of commits that everybody applies in order, late and by itself.
//!
//! Whoever leads, and what becomes of proposals on their way, is decided in [`crate::world`]. Here is only the sequence.
//!
//! Must never happen: a commit that changes something whose compares do not hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use plasmavmc_core::change::Change;
use plasmavmc_core::terms::Terms;
use plasmavmc_core::view::{ClusterView, Stored};
use plasmavmc_types::{Beat, HostId, Session, Timings};

/// Whose transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Controller(usize),
    Agent(usize),
    Heart(usize),
    Client,
}

/// One transaction: what the step functions return, or what the rim of a host writes itself.
#[derive(Debug, Clone)]
pub struct Txn {
    pub change: Change,
    pub by: By,
    /// Opens a session of a host, with the beat that goes with it.
    pub opens: Option<(HostId, Session)>,
    /// Counts only if its number is above the stored one.
    pub beat: Option<(HostId, Beat)>,
    /// Whether that is compared.
    pub in_order: bool,
    /// Those of the cluster from now on.
    pub timings: Option<Timings>,
    pub what: &'static str,
}

impl Txn {
    pub fn of(change: Change, by: By, what: &'static str) -> Self {
        Self {
            change,
            by,
            opens: None,
            beat: None,
            in_order: true,
            timings: None,
            what,
        }
    }

    pub fn holds_in(&self, view: &ClusterView) -> bool {
        let is_newer = |(host, beat): &(HostId, Beat)| {
            let stored = view.hosts.get(host).and_then(|host| host.beat.as_ref());
            stored.is_none_or(|stored| beat.sequence > stored.value.sequence)
        };
        self.change.holds_in(view) && (!self.in_order || self.beat.as_ref().is_none_or(is_newer))
    }

    fn apply_to(&self, view: &mut ClusterView, revision: u64) {
        self.change.apply_to(view, revision);
        if let Some((host, session)) = &self.opens {
            view.hosts.entry(*host).or_default().session = Some(Stored::new(*session, revision));
        }
        if let Some((host, beat)) = &self.beat {
            view.hosts.entry(*host).or_default().beat = Some(Stored::new(beat.clone(), revision));
        }
        view.timings = self.timings.unwrap_or(view.timings);
        view.revision = revision;
        trim(view);
    }
}

/// As many decisions and ended operations as a life needs to be decided on: the daemon keeps more, nothing asks for it.
const KEEP: usize = 24;

fn trim(view: &mut ClusterView) {
    while view.decisions.len() > KEEP {
        view.decisions.pop_first();
    }
    if let Some(mut last) = view.decisions.last_entry() {
        last.get_mut().value.evidence.clear();
    }
    let ended = view
        .operations
        .iter()
        .filter(|(_, operation)| operation.value.is_ended());
    let ended: Vec<_> = ended.map(|(id, _)| *id).collect();
    for id in ended.iter().take(ended.len().saturating_sub(KEEP)) {
        view.operations.remove(id);
    }
}

/// One commit, with all that is stored after it.
#[derive(Debug, Clone)]
pub struct Commit {
    pub view: Arc<ClusterView>,
    /// Whose beat is in it.
    pub beat_of: Option<HostId>,
    /// Nothing else is in it.
    pub only_beat: bool,
}

/// Where a proposal is.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub txn: Txn,
    pub asker: Option<usize>,
    pub reply: Reply,
    /// The member that took it, and in which term; nothing while it is on its way.
    pub taken: Option<(usize, u64)>,
}

/// A beat on its way: when it was sent, and under what, as its host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub at_ms: u64,
    /// For how long after the sending it lets leased VMs execute, if it counts.
    pub lasts_ms: u64,
    pub beat_ms: u64,
    pub terms: Terms,
}

/// Who is told what became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Nobody,
    Beat {
        life: u64,
        sent: Sent,
        number: u64,
    },
    Open {
        life: u64,
        sent: Sent,
        epoch: plasmavmc_types::Epoch,
        sequence: u64,
    },
    Write {
        life: u64,
        vm: plasmavmc_types::VmId,
        number: u64,
    },
    Control {
        life: u64,
        round: u64,
    },
    Order {
        life: u64,
        vm: plasmavmc_types::VmId,
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done(u64),
    Raced,
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Store {
    commits: VecDeque<Commit>,
    /// What a member has that is given everything anew.
    initial: Commit,
    /// The index of the first one that is kept.
    first: usize,
    pub leader: Option<usize>,
    pub term: u64,
    pub proposals: BTreeMap<u64, Proposal>,
    pub reads: BTreeMap<u64, Read>,
    pub numbers: u64,
}

/// A linearizable read on its way.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    pub asker: usize,
    pub life: u64,
    pub what: ReadFor,
    /// The leader that takes it, its term, and the commits it had then.
    pub taken: Option<(usize, u64, usize)>,
    pub issued_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFor {
    CatchUp,
    Open,
    IsLost { epoch: plasmavmc_types::Epoch },
    Thaw { vm: plasmavmc_types::VmId, number: u64 },
    Control { round: u64 },
}

impl Store {
    pub fn new(view: ClusterView) -> Self {
        let first = Commit {
            view: Arc::new(view),
            beat_of: None,
            only_beat: false,
        };
        Self {
            initial: first.clone(),
            commits: [first].into(),
            first: 0,
            leader: None,
            term: 0,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            numbers: 0,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The index of the newest commit.
    pub fn last(&self) -> usize {
        self.first + self.commits.len() - 1
    }

    pub fn newest(&self) -> &Arc<ClusterView> {
        &self.commits[self.commits.len() - 1].view
    }

    /// A commit that a member still has to apply, or has applied. The oldest that is kept stands for all before it.
    pub fn at(&self, index: usize) -> &Commit {
        if index == 0 {
            return &self.initial;
        }
        let index = index.clamp(self.first, self.last()) - self.first;
        &self.commits[index]
    }

    /// Appends it, whether it holds or not is the caller's to know. Its revision.
    pub fn append(&mut self, txn: &Txn) -> u64 {
        let mut view = (**self.newest()).clone();
        let revision = view.revision + 1;
        txn.apply_to(&mut view, revision);
        let beat_of = txn.beat.as_ref().map(|(host, _)| *host);
        self.commits.push_back(Commit {
            view: Arc::new(view),
            beat_of,
            only_beat: beat_of.is_some() && txn.opens.is_none(),
        });
        revision
    }

    /// Lets go of what nobody needs any more.
    pub fn forget_before(&mut self, index: usize) {
        while self.first < index && self.commits.len() > 1 {
            self.commits.pop_front();
            self.first += 1;
        }
    }
}
