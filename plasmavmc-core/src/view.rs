//! What is stored, as one value: what every decision is made on.
//!
//! Each part carries the revision it was read at, so that whoever acts on a decision can compare it: a change
//! in between makes the action fail, and the next look decides anew.

use std::collections::BTreeMap;

use plasmavmc_types::{
    Beat, Decision, Departure, HostId, HostRecord, Incarnation, Operation, OperationId, Placement, Session, Timings,
    VmId, VmName, VmNumber, VmRecord, VmRef, VmStatus,
};

/// A value with the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    pub value: T,
    /// The revision of the store at which it came to be as it is.
    pub revision: u64,
}

impl<T> Stored<T> {
    pub fn new(value: T, revision: u64) -> Self {
        Self { value, revision }
    }
}

/// The revision of what may be missing: 0 says that it is absent, as the store's compares do.
pub fn revision_of<T>(stored: Option<&Stored<T>>) -> u64 {
    stored.map_or(0, |stored| stored.revision)
}

/// One VM. The record may be missing while its rest is being cleared away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmView {
    pub record: Option<Stored<VmRecord>>,
    pub placement: Option<Stored<Placement>>,
    pub status: Option<Stored<VmStatus>>,
}

impl VmView {
    /// Whether the claim of its incarnation says so: it may be started elsewhere once its host is fenced.
    pub fn is_leased(&self) -> bool {
        self.current_status().is_some_and(|status| status.value.leased)
    }

    /// The status, if it belongs to the placement: what an earlier host said says nothing of now.
    pub fn current_status(&self) -> Option<&Stored<VmStatus>> {
        let placement = self.placement.as_ref()?;
        self.status
            .as_ref()
            .filter(|status| status.value.incarnation == placement.value.incarnation)
    }

    pub fn name(&self) -> Option<&VmName> {
        self.record.as_ref().map(|record| &record.value.spec().name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostView {
    pub record: Option<Stored<HostRecord>>,
    pub session: Option<Stored<Session>>,
    pub beat: Option<Stored<Beat>>,
}

impl HostView {
    /// Whether it votes and runs no VMs.
    pub fn is_witness(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.value.is_witness())
    }

    /// The departure that it is on: asked for in the life that its session is of, whether that is still open or not.
    pub fn departure(&self) -> Option<&Departure> {
        let departure = self.record.as_ref()?.value.departure()?;
        let session = self.session.as_ref()?;
        (session.value.instance == departure.instance).then_some(departure)
    }
}

/// How VMs are spread over hosts that fit equally.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlacementMode {
    #[default]
    Spread,
    Pack,
}

/// That the cluster lost its majority and went on from what one member, or a backup, knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Above that of every recovery before; 0: there was none.
    pub generation: u32,
    pub at_ms: u64,
}

/// Generations count minutes from here, 2026: a backup does not know of the recoveries after it.
const EPOCH_MS: u64 = 1_767_225_600_000;
const MINUTE_MS: u64 = 60_000;

impl Recovery {
    /// The one after.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        let minutes = now_ms.saturating_sub(EPOCH_MS) / MINUTE_MS;
        let by_clock = u32::try_from(minutes).unwrap_or(u32::MAX);
        Self {
            generation: by_clock.max(self.generation.saturating_add(1)),
            at_ms: now_ms,
        }
    }

    /// Below all incarnations that are given from now on.
    pub fn floor(self) -> Incarnation {
        Incarnation::floor(self.generation)
    }
}

/// All that is stored, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    /// Everything up to here is in it.
    pub revision: u64,
    pub timings: Timings,
    pub recovery: Recovery,
    pub placement_mode: PlacementMode,
    pub vms: BTreeMap<VmId, VmView>,
    pub hosts: BTreeMap<HostId, HostView>,
    pub operations: BTreeMap<OperationId, Stored<Operation>>,
    /// By key, which sorts by time; the newest ones only.
    pub decisions: BTreeMap<String, Stored<Decision>>,
    /// Names and numbers of VMs that exist.
    pub names: BTreeMap<VmName, VmId>,
    pub numbers: BTreeMap<VmNumber, VmId>,
}

impl ClusterView {
    /// The VM that is meant, if it exists.
    pub fn find(&self, vm: &VmRef) -> Option<VmId> {
        let id = match vm {
            VmRef::Id(id) => Some(*id),
            VmRef::Number(number) => self.numbers.get(number).copied(),
            VmRef::Name(name) => self.names.get(name).copied(),
        }?;
        let known = self.vms.get(&id)?.record.is_some();
        known.then_some(id)
    }

    pub fn host_named(&self, name: &str) -> Option<HostId> {
        let is_meant = |view: &&HostView| {
            view.record
                .as_ref()
                .is_some_and(|record| record.value.name().as_str() == name)
        };
        let mut hosts = self.hosts.iter();
        hosts.find(|(_, view)| is_meant(view)).map(|(id, _)| *id)
    }

    /// The operations on a VM that have not ended, oldest first.
    pub fn open_operations(&self, vm: VmId) -> Vec<&Stored<Operation>> {
        let mut open: Vec<_> = self
            .operations
            .values()
            .filter(|operation| operation.value.vm == vm && !operation.value.is_ended())
            .collect();
        open.sort_by_key(|operation| (operation.value.created_at_ms, operation.value.id));
        open
    }
}

/// When each host was last heard of, as the reader's own clock says: how long ago, in milliseconds. A host that
/// is missing has never been heard of since this reader began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    pub ago_ms: BTreeMap<HostId, u64>,
    /// How long the reader has led; `None`: it does not lead.
    pub leading_for_ms: Option<u64>,
    pub contact: Contact,
}

/// How well the reader itself is in contact: what it has not heard says nothing while it cannot hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contact {
    /// How long ago a majority confirmed that the reader leads; `None`: never.
    pub quorum_ago_ms: Option<u64>,
    /// For how long commits have come without a gap of more than two beats.
    pub flowing_for_ms: u64,
    /// For how long the reader has heard of every commit as it came. Of a host that was not heard since, its own notes
    /// only say that it was heard before.
    pub listening_for_ms: u64,
    /// The lowest revision since which a member process has listened that lives, the reader itself or another: what was
    /// committed above it, was committed in the life of that process. `None`: none is known.
    pub heard_since_revision: Option<u64>,
}

impl Heard {
    /// How many beats may be missing before a host is thought of as perhaps gone.
    const BEATS: u64 = 2;

    /// Whether a host that still counts as alive may be gone: its beat is overdue, or it has not been heard since the
    /// reader began to lead, which is how the host of the leader before looks that has just died.
    pub fn is_doubtful(&self, host: HostId, timings: &Timings) -> bool {
        let Some(&ago_ms) = self.ago_ms.get(&host) else {
            return true;
        };
        ago_ms > Self::BEATS * timings.beat_ms || self.leading_for_ms.is_some_and(|led_ms| ago_ms > led_ms)
    }

    /// Whether the reader has led for so short a time that hosts which are well may not have been heard yet.
    pub fn is_new_leader(&self, timings: &Timings) -> bool {
        self.leading_for_ms
            .is_some_and(|led_ms| led_ms < Self::BEATS * timings.beat_ms)
    }
}
