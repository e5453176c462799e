//! What the cluster stores of a host: its record, its session and its beat.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::invalid::Checks;
use crate::{BootId, BridgeName, Epoch, HostId, HostName, InstanceNonce, Invalid, PoolName};

const MAX_ADDRESSES: usize = 8;
const MIN_LEASE_MS: u64 = 100;
const MAX_LEASE_MS: u64 = 600_000;

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
}

impl HostRecord {
    pub fn new(id: HostId, name: HostName, addresses: Vec<Address>) -> Result<Self, Invalid> {
        StoredHost {
            id,
            name,
            addresses,
            mode: HostMode::Active,
            cluster_address: None,
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
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn beat() -> BeatFields {
        BeatFields {
            epoch: Epoch::FIRST,
            instance: InstanceNonce::from_uuid(Uuid::from_u128(1)),
            boot_id: BootId::from_uuid(Uuid::from_u128(2)),
            sequence: BeatSequence(1),
            lease_ms: 4000,
            capacity: Capacity {
                vcpus: 8,
                memory_mb: 16_384,
            },
            usage: Usage::default(),
            facts: HostFacts::default(),
        }
    }

    fn session() -> Session {
        Session {
            epoch: Epoch::FIRST,
            instance: InstanceNonce::from_uuid(Uuid::from_u128(1)),
            boot_id: BootId::from_uuid(Uuid::from_u128(2)),
            state: SessionState::Open,
        }
    }

    #[test]
    fn a_host_without_an_address_or_with_one_twice_is_refused() {
        let id = HostId::from_uuid(Uuid::from_u128(1));
        let name = HostName::new("alpha").unwrap();
        let address: Address = "alpha:50052".parse().unwrap();
        let record = HostRecord::new(id, name.clone(), vec![address.clone()]).unwrap();
        assert_eq!(record.with_mode(HostMode::Draining).mode(), HostMode::Draining);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<HostRecord>(&json).unwrap(), record);

        assert!(
            HostRecord::new(id, name.clone(), vec![])
                .unwrap_err()
                .mentions("addresses")
        );
        let twice = HostRecord::new(id, name, vec![address.clone(), address]).unwrap_err();
        assert!(twice.mentions("addresses[1]"), "{twice}");
    }

    #[test]
    fn a_beat_counts_only_in_its_own_open_session() {
        let beat = Beat::new(beat()).unwrap();
        assert!(beat.belongs_to(&session()));
        assert!(!beat.belongs_to(&session().fenced()));
        let later = Session {
            epoch: Epoch::from_raw(2),
            ..session()
        };
        assert!(!beat.belongs_to(&later));
        let clone = Session {
            instance: InstanceNonce::from_uuid(Uuid::from_u128(9)),
            ..session()
        };
        assert!(!beat.belongs_to(&clone));
    }

    #[test]
    fn a_beat_needs_a_session_a_lease_and_a_capacity() {
        let spoilt = BeatFields {
            epoch: Epoch::from_raw(0),
            lease_ms: 0,
            capacity: Capacity { vcpus: 0, memory_mb: 0 },
            ..beat()
        };
        let invalid = Beat::new(spoilt.clone()).unwrap_err();
        assert_eq!(invalid.problems().len(), 4, "{invalid}");
        let json = serde_json::to_string(&spoilt).unwrap();
        assert!(serde_json::from_str::<Beat>(&json).is_err());
    }

    #[test]
    fn facts_are_few_and_short() {
        let check = |change: fn(&mut HostFacts), field: &str| {
            let mut fields = beat();
            change(&mut fields.facts);
            let refused = Beat::new(fields).unwrap_err();
            assert!(refused.mentions(field), "{refused}");
            assert_eq!(refused.problems().len(), 1, "{refused}");
        };
        check(|f| f.accelerator = "x".repeat(513), "facts.accelerator");
        check(|f| f.version = "x".repeat(513), "facts.version");
        check(
            |f| f.warnings = vec![String::new(), "x".repeat(513)],
            "facts.warnings[1]",
        );
        check(|f| f.warnings = vec![String::new(); 65], "facts.warnings");
        check(|f| f.pools = vec![PoolName::new("a").unwrap(); 65], "facts.pools");
        check(
            |f| f.bridges = vec![BridgeName::new("br0").unwrap(); 65],
            "facts.bridges",
        );
        let mut full = beat();
        full.facts.warnings = vec!["x".repeat(512); 64];
        assert!(Beat::new(full).is_ok());
    }

    #[test]
    fn a_host_keeps_where_other_servers_reach_it() {
        let id = HostId::from_uuid(Uuid::from_u128(1));
        let addresses = vec!["alpha:50051".parse().unwrap()];
        let record = HostRecord::new(id, HostName::new("alpha").unwrap(), addresses).unwrap();
        let cluster: Address = "alpha:50052".parse().unwrap();
        let record = record
            .with_cluster_address(Some(cluster.clone()))
            .with_mode(HostMode::Maintenance);
        assert_eq!(record.cluster_address(), Some(&cluster));
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<HostRecord>(&json).unwrap(), record);
    }

    proptest! {
        #[test]
        fn the_bytes_of_beats_compare_as_their_numbers(a: u64, b: u64) {
            let (a, b) = (BeatSequence(a), BeatSequence(b));
            prop_assert_eq!(a.cmp(&b), a.to_ordered_bytes().cmp(&b.to_ordered_bytes()));
        }
    }
}
