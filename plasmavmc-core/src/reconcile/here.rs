//! What a host knows when it decides: what is stored, and what is here.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_types::{
    AgentHealth, AttemptId, Condition, Departure, Epoch, Exit, HostId, HostMode, Operation, OperationError,
    OperationId, PauseCause, QemuProcess, QemuRunState, VmId,
};

use crate::boot;
use crate::ha::{self, Leasing};
use crate::view::{ClusterView, Stored, VmView, revision_of};

/// What a machine on this host is, as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// Its process runs; its guest has not executed yet.
    Prepared,
    Running,
    Paused(PauseCause),
    /// A graceful stop is under way.
    Stopping,
    /// A reboot is under way, in the same process.
    Rebooting,
    /// Its guest has powered off; the process still holds the locks of the disks.
    PoweredOff,
    /// It was told to end at once.
    Ending,
    /// It executes nothing because the lease of this host ended, and does not until it is thawed.
    Frozen,
    /// Its process lives, its monitor does not answer.
    Unreachable,
    Gone(Ended),
}

/// Why a process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest powered off because it was asked to.
    Stopped,
    Killed,
    OutOfMemory,
    Signal(i32),
    Exited(i32),
    /// Nobody was there to see it.
    Unseen,
}

impl Ended {
    pub const fn exit(self) -> Exit {
        match self {
            Ended::GuestPoweredOff | Ended::Stopped => Exit::Code(0),
            Ended::Killed | Ended::OutOfMemory => Exit::Signal(9),
            Ended::Signal(signal) => Exit::Signal(signal),
            Ended::Exited(code) => Exit::Code(code),
            Ended::Unseen => Exit::Unseen,
        }
    }

    /// The rest of a sentence that begins with QEMU.
    pub fn text(self) -> String {
        match self {
            Ended::GuestPoweredOff => "ended when the guest powered itself off".to_owned(),
            Ended::Stopped => "ended when the guest was stopped".to_owned(),
            Ended::Killed => "was killed on order".to_owned(),
            Ended::OutOfMemory => "was killed for want of memory".to_owned(),
            Ended::Signal(signal) => format!("was killed by signal {signal}"),
            Ended::Exited(code) => format!("ended with code {code}"),
            Ended::Unseen => "is gone; nobody saw how it ended".to_owned(),
        }
    }
}

/// A machine on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Which attempt it came of.
    pub attempt: AttemptId,
    pub observed: Observed,
    /// Its guard holds it by the lease of this host: it may be started elsewhere.
    pub leased: bool,
    /// While it lives.
    pub process: Option<QemuProcess>,
    pub qemu: Option<QemuRunState>,
    pub agent: AgentHealth,
    /// What a person should know of it: a disk that is full, and the like.
    pub conditions: Vec<Condition>,
    /// The end of what QEMU itself said.
    pub last_words: String,
}

/// What this process does with a machine now. Whatever it is, it has a deadline of its own and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Launch,
    Cont,
    Order(OperationId),
    /// Its guest powers off, since this host is about to be switched off.
    Leave,
    Kill,
    Clear,
}

/// What is done about the lease of a machine, beside whatever else is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    Freezing,
    Thawing,
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub operation: OperationId,
    pub result: Result<(), OperationError>,
}

/// Why a launch came to nothing. Nothing is left of it, or [`Local::left_alone`] says that something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFailure {
    pub attempt: AttemptId,
    pub kind: LaunchFailureKind,
    /// For people, with QEMU's last words if there are any.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFailureKind {
    /// What is asked for cannot be had here: trying again changes nothing.
    Refused,
    /// Something else holds what it needs, such as the lock of a disk: it is waited for, and counts as no crash.
    Waits,
    /// It broke. It may be better next time.
    Broke,
}

/// What only this process knows of one VM. The default is: nothing here, nothing under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub machine: Option<Machine>,
    /// Something of it runs here that could not be taken over: nothing may be started. Says why.
    pub left_alone: Option<String>,
    /// At most one thing is done with a machine at a time; only a kill overtakes it.
    pub doing: Option<Doing>,
    /// It is being frozen or thawed.
    pub holding: Option<Holding>,
    /// A transaction of this VM is on its way.
    pub is_writing: bool,
    /// The attempt that this process claimed and has not begun to launch. Set when the claim is sent, whatever
    /// its answer: the view says whether it was made. Forgotten when a later transaction of this VM ends without a
    /// known outcome: that may still arrive and say that nothing runs, unless another claim comes before it.
    pub claimed: Option<AttemptId>,
    pub launch_failed: Option<LaunchFailure>,
    /// The operation that this process took and has not begun to carry out. Set when that is sent.
    pub taken: Option<OperationId>,
    /// The end of the last order, until the operation is seen to have ended.
    pub outcome: Option<Outcome>,
    /// An id that nobody has used, for the next attempt.
    pub new_attempt: AttemptId,
    /// The newest revision at which this process knows that something of this VM was written. Nothing is decided
    /// on a view that is older.
    pub seen_revision: u64,
}

impl Local {
    /// Nothing is here and nothing is under way.
    pub fn empty(new_attempt: AttemptId) -> Self {
        Self {
            machine: None,
            left_alone: None,
            doing: None,
            holding: None,
            is_writing: false,
            claimed: None,
            launch_failed: None,
            taken: None,
            outcome: None,
            new_attempt,
            seen_revision: 0,
        }
    }
}

/// One VM that is placed here, or of which something is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereVm {
    pub stored: VmView,
    /// Its operations that have not ended, oldest first.
    pub operations: Vec<Stored<Operation>>,
    /// What has to be there before it starts and is not: for people.
    pub waits_for: Option<String>,
    /// Whether a claim of this host would be leased.
    pub leasing: Leasing,
    pub local: Local,
}

/// This host's right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSession {
    pub epoch: Epoch,
    pub revision: u64,
}

/// What this host knows of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLease {
    /// How long it still lasts, by this host's own clock; 0: it is over.
    pub left_ms: u64,
    /// How many members of the store vote, as far as this host knows.
    pub voters: usize,
}

/// All that a host decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    pub host: HostId,
    pub host_name: String,
    /// Absent: nothing is written and nothing started.
    pub session: Option<OwnSession>,
    pub lease: OwnLease,
    /// Whether VMs that are stopped may be started here: not while the host is drained, since they are about to be
    /// moved.
    pub takes_starts: bool,
    /// It is about to be switched off: nothing is started, and what runs powers off, to be started by whoever has it
    /// next.
    pub departs: Option<Departure>,
    /// Everything up to here is in it.
    pub revision: u64,
    /// The wall clock.
    pub now_ms: u64,
    pub vms: BTreeMap<VmId, HereVm>,
}

impl Here {
    /// What concerns this host in a view. `session` is the one that this process opened, with its epoch and instance;
    /// it counts only while it is the stored one. `local` has an entry for every VM of which something is here;
    /// `fresh` makes an id that nobody has used, for the others.
    ///
    /// The first view of a process must have been read after a barrier: what a process before it did is in it.
    pub fn collect(
        view: &ClusterView,
        host: HostId,
        (session, lease): (Option<OwnSession>, OwnLease),
        now_ms: u64,
        mut local: BTreeMap<VmId, Local>,
        mut fresh: impl FnMut() -> AttemptId,
    ) -> Self {
        let is_placed_here = |vm: &VmView| vm.placement.as_ref().is_some_and(|at| at.value.host == host);
        let placed = view.vms.iter().filter(|(_, vm)| is_placed_here(vm)).map(|(id, _)| *id);
        let ids: BTreeSet<VmId> = placed.chain(local.keys().copied()).collect();
        Self::of(view, host, (session, lease), now_ms, ids, |id| {
            local.remove(&id).unwrap_or_else(|| Local::empty(fresh()))
        })
    }

    /// As [`Self::collect`], of these VMs alone.
    pub fn of(
        view: &ClusterView,
        host: HostId,
        (session, lease): (Option<OwnSession>, OwnLease),
        now_ms: u64,
        ids: impl IntoIterator<Item = VmId>,
        mut local: impl FnMut(VmId) -> Local,
    ) -> Self {
        let stored = view.hosts.get(&host);
        let own = stored.and_then(|host| host.session.as_ref());
        let session = session.filter(|session| {
            own.is_some_and(|own| own.value.is_open() && own.value.epoch == session.epoch)
                && session.revision == revision_of(own)
        });
        let vms = ids.into_iter().map(|id| {
            let stored = view.vms.get(&id).cloned().unwrap_or_default();
            let leasing = match &stored.record {
                Some(record) => ha::leasing(view, host, &record.value, lease.voters),
                None => Leasing::Not("nothing is stored of it".to_owned()),
            };
            let here = HereVm {
                leasing,
                stored,
                operations: Vec::new(),
                waits_for: boot::waits_for(view, id, now_ms),
                local: local(id),
            };
            (id, here)
        });
        let mut vms: BTreeMap<VmId, HereVm> = vms.collect();
        for operation in view.operations.values().filter(|operation| !operation.value.is_ended()) {
            if let Some(vm) = vms.get_mut(&operation.value.vm) {
                vm.operations.push(operation.clone());
            }
        }
        for vm in vms.values_mut() {
            vm.operations
                .sort_by_key(|operation| (operation.value.created_at_ms, operation.value.id));
        }
        let record = stored.and_then(|host| host.record.as_ref());
        Self {
            host,
            host_name: view.host_name(host),
            session,
            lease,
            takes_starts: record.is_some_and(|record| record.value.mode() == HostMode::Active),
            departs: stored.and_then(|host| host.departure()).copied(),
            revision: view.revision,
            now_ms,
            vms,
        }
    }
}
