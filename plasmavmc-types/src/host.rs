//! What the cluster stores of a host: its record, its session and its beat.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::invalid::Checks;
use crate::{BootId, BridgeName, Epoch, HostId, HostName, InstanceNonce, Invalid, PoolName, Timings};

const MAX_ADDRESSES: usize = 8;
const MIN_LEASE_MS: u64 = 100;
const MAX_LEASE_MS: u64 = 600_000;
const MAX_FAILOVER_MS: u64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostMode {
    #[default]
    Active,
    /// Its VMs are moving away; it gets no new ones.
    Draining,
    /// Runs nothing, on purpose: nobody is alarmed.
    Maintenance,
}

/// What becomes of the VMs of a host that is about to be switched off, once their guests have powered off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// They start on other hosts, where they fit. The others wait for this one.
    Move,
    /// All of them wait for this host.
    Stay,
}

/// That a host is about to be switched off or rebooted: its VMs power off and stay wanted on. It is over with the
/// life of the host that it names, so that one which comes back is a host like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Departure {
    pub instance: InstanceNonce,
    pub leaving: Leaving,
    /// By the wall clock: what runs then has its plug pulled.
    pub until_ms: u64,
}

/// A host of the cluster. Written by operators and by the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredHost", into = "StoredHost")]
pub struct HostRecord(StoredHost);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHost {
    id: HostId,
    name: HostName,
    addresses: Vec<Address>,
    mode: HostMode,
    #[serde(default)]
    cluster_address: Option<Address>,
    #[serde(default)]
    witness: bool,
    #[serde(default)]
    departure: Option<Departure>,
}

impl HostRecord {
    pub fn new(id: HostId, name: HostName, addresses: Vec<Address>) -> Result<Self, Invalid> {
        StoredHost {
            id,
            name,
            addresses,
            mode: HostMode::Active,
            cluster_address: None,
            witness: false,
            departure: None,
        }
        .try_into()
    }

    /// Where the other servers reach it.
    pub fn cluster_address(&self) -> Option<&Address> {
        self.0.cluster_address.as_ref()
    }

    #[must_use]
    pub fn with_cluster_address(mut self, address: Option<Address>) -> Self {
        self.0.cluster_address = address;
        self
    }

    /// Whether it only votes in the store: it runs no VMs, has no session and sends no beats.
    pub fn is_witness(&self) -> bool {
        self.0.witness
    }

    #[must_use]
    pub fn with_witness(mut self, witness: bool) -> Self {
        self.0.witness = witness;
        self
    }

    /// The departure that was asked for last. Whether it still counts is for who knows the host's session.
    pub fn departure(&self) -> Option<&Departure> {
        self.0.departure.as_ref()
    }

    #[must_use]
    pub fn with_departure(mut self, departure: Option<Departure>) -> Self {
        self.0.departure = departure;
        self
    }

    pub fn id(&self) -> HostId {
        self.0.id
    }

    pub fn name(&self) -> &HostName {
        &self.0.name
    }

    /// At least one, best first.
    pub fn addresses(&self) -> &[Address] {
        &self.0.addresses
    }

    pub fn mode(&self) -> HostMode {
        self.0.mode
    }

    #[must_use]
    pub fn with_mode(&self, mode: HostMode) -> Self {
        Self(StoredHost { mode, ..self.0.clone() })
    }
}

impl TryFrom<StoredHost> for HostRecord {
    type Error = Invalid;

    fn try_from(stored: StoredHost) -> Result<Self, Invalid> {
        let mut checks = Checks::of("host record");
        checks.require(!stored.addresses.is_empty(), "addresses", || "is empty".to_owned());
        checks.require_at_most("addresses", stored.addresses.len(), MAX_ADDRESSES);
        checks.require_unique(&stored.addresses, |index| format!("addresses[{index}]"));
        checks.finish(Self(stored))
    }
}

impl From<HostRecord> for StoredHost {
    fn from(record: HostRecord) -> Self {
        record.0
    }
}

/// The right of one instance of a host to beat and to claim. The host opens it, the controller fences it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub epoch: Epoch,
    pub instance: InstanceNonce,
    pub boot_id: BootId,
    pub state: SessionState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    Open,
    /// Over, durably: its leased VMs may be started elsewhere.
    Fenced,
    /// Over since the cluster was recovered from the loss of its majority: nobody has said what became of its VMs.
    Unconfirmed,
}

impl Session {
    /// The session with the host's right taken away.
    #[must_use]
    pub fn fenced(self) -> Self {
        let state = SessionState::Fenced;
        Self { state, ..self }
    }

    pub fn is_open(&self) -> bool {
        self.state == SessionState::Open
    }
}

/// The number of a beat within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BeatSequence(pub u64);

impl BeatSequence {
    /// Bytes that compare as the numbers do, so that a store which compares bytes can tell a late beat.
    pub fn to_ordered_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// What a host can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    pub vcpus: u32,
    pub memory_mb: u64,
}

/// What a host carries now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    pub vms: u32,
    pub vcpus: u32,
    pub memory_mb: u64,
}

/// What a host tells of itself in its beats, besides that it lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    pub pools: Vec<PoolName>,
    /// Those of `pools` whose volumes are the same on every host that has them: what lies there may be opened
    /// elsewhere.
    #[serde(default)]
    pub shared_pools: Vec<PoolName>,
    /// Bridges a VM may be plugged into.
    pub bridges: Vec<BridgeName>,
    /// `kvm` or `tcg`, with the reason.
    pub accelerator: String,
    pub version: String,
    /// What a person should look at: QEMUs nobody knows, and the like.
    pub warnings: Vec<String>,
}

/// A beat is written every second: what grows without bound must not be in it.
const MAX_FACTS: usize = 64;
const MAX_FACT_BYTES: usize = 512;

impl HostFacts {
    fn check(&self, checks: &mut Checks) {
        checks.require_at_most("facts.pools", self.pools.len(), MAX_FACTS);
        checks.require_at_most("facts.shared_pools", self.shared_pools.len(), MAX_FACTS);
        checks.require_at_most("facts.bridges", self.bridges.len(), MAX_FACTS);
        checks.require_at_most("facts.warnings", self.warnings.len(), MAX_FACTS);
        let mut require_short = |field: String, text: &str| {
            let bytes = text.len();
            checks.require(bytes <= MAX_FACT_BYTES, field, || {
                format!("has {bytes} bytes, at most {MAX_FACT_BYTES} are allowed")
            });
        };
        require_short("facts.accelerator".to_owned(), &self.accelerator);
        require_short("facts.version".to_owned(), &self.version);
        for (index, warning) in self.warnings.iter().enumerate() {
            require_short(format!("facts.warnings[{index}]"), warning);
        }
    }
}

/// The fields of a beat, to be filled in freely and then checked by [`Beat::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeatFields {
    pub epoch: Epoch,
    pub instance: InstanceNonce,
    pub boot_id: BootId,
    pub sequence: BeatSequence,
    /// How long after sending this beat the host may let leased VMs execute.
    pub lease_ms: u64,
    /// How long nobody may fence the host after hearing this beat, whatever the timings of the cluster are by then; 0: a
    /// version sent it that does not say so.
    #[serde(default)]
    pub failover_ms: u64,
    pub capacity: Capacity,
    pub usage: Usage,
    #[serde(default)]
    pub facts: HostFacts,
}

/// A checked beat: "I was here, and hold still when I do not hear that you noticed".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BeatFields", into = "BeatFields")]
pub struct Beat(BeatFields);

impl Beat {
    pub fn new(fields: BeatFields) -> Result<Self, Invalid> {
        let mut checks = Checks::of("beat");
        checks.require(fields.epoch >= Epoch::FIRST, "epoch", || {
            "is 0, but a beat belongs to an opened session".to_owned()
        });
        checks.require_range("lease_ms", fields.lease_ms, MIN_LEASE_MS..=MAX_LEASE_MS);
        let least = Timings::least_failover_ms(fields.lease_ms);
        let failover_ms = fields.failover_ms;
        checks.require_range("failover_ms", failover_ms, 0..=MAX_FAILOVER_MS);
        checks.require(failover_ms == 0 || failover_ms >= least, "failover_ms", || {
            format!(
                "is {failover_ms}, but must be at least {least} with a lease_ms of {}",
                fields.lease_ms
            )
        });
        checks.require(fields.capacity.vcpus > 0, "capacity.vcpus", || "is 0".to_owned());
        checks.require(fields.capacity.memory_mb > 0, "capacity.memory_mb", || {
            "is 0".to_owned()
        });
        fields.facts.check(&mut checks);
        checks.finish(Self(fields))
    }

    /// Whether this beat was sent under this session, and the session still holds.
    pub fn belongs_to(&self, session: &Session) -> bool {
        session.is_open() && self.epoch == session.epoch && self.instance == session.instance
    }
}

impl Deref for Beat {
    type Target = BeatFields;

    fn deref(&self) -> &BeatFields {
        &self.0
    }
}

impl TryFrom<BeatFields> for Beat {
    type Error = Invalid;

    fn try_from(fields: BeatFields) -> Result<Self, Invalid> {
        Self::new(fields)
    }
}

impl From<Beat> for BeatFields {
    fn from(beat: Beat) -> Self {
        beat.0
    }
}

#[cfg(test)]
mod tests;
