//! What the cluster stores of a VM besides its status: what is wanted, and where it was put.

use serde::{Deserialize, Serialize};

use crate::{Generation, HostId, Incarnation, Invalid, VmId, VmNumber, VmSpec};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerWanted {
    #[default]
    On,
    Off,
}

/// What is wanted of a VM. Every change makes a new generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct VmRecord(Stored);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: VmId,
    number: VmNumber,
    spec: VmSpec,
    power: PowerWanted,
    generation: Generation,
    /// A tombstone: the VM was deleted, and the record stays until nothing can run.
    deleted: bool,
    /// By the wall clock of the host that took the call.
    #[serde(default)]
    created_at_ms: u64,
}

/// All of a record, for those who store it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecordParts {
    pub id: VmId,
    pub number: VmNumber,
    pub spec: VmSpec,
    pub power: PowerWanted,
    pub generation: Generation,
    pub deleted: bool,
    pub created_at_ms: u64,
}

impl VmRecord {
    /// A new VM, wanted on.
    pub fn create(id: VmId, number: VmNumber, spec: VmSpec) -> Result<Self, Invalid> {
        Self::from_parts(VmRecordParts {
            id,
            number,
            spec,
            power: PowerWanted::On,
            generation: Generation::FIRST,
            deleted: false,
            created_at_ms: 0,
        })
    }

    /// A record that was stored, or is made of parts.
    pub fn from_parts(parts: VmRecordParts) -> Result<Self, Invalid> {
        let VmRecordParts {
            id,
            number,
            spec,
            power,
            generation,
            deleted,
            created_at_ms,
        } = parts;
        Stored {
            id,
            number,
            spec,
            power,
            generation,
            deleted,
            created_at_ms,
        }
        .try_into()
    }

    pub fn created_at_ms(&self) -> u64 {
        self.0.created_at_ms
    }

    pub fn id(&self) -> VmId {
        self.0.id
    }

    pub fn number(&self) -> VmNumber {
        self.0.number
    }

    pub fn spec(&self) -> &VmSpec {
        &self.0.spec
    }

    pub fn power(&self) -> PowerWanted {
        self.0.power
    }

    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    pub fn is_deleted(&self) -> bool {
        self.0.deleted
    }

    pub fn with_spec(&self, spec: VmSpec) -> Result<Self, Invalid> {
        self.changed(|stored| stored.spec = spec)
    }

    pub fn with_power(&self, power: PowerWanted) -> Result<Self, Invalid> {
        self.changed(|stored| stored.power = power)
    }

    /// The tombstone of this VM.
    pub fn delete(&self) -> Result<Self, Invalid> {
        self.changed(|stored| (stored.power, stored.deleted) = (PowerWanted::Off, true))
    }

    fn changed(&self, change: impl FnOnce(&mut Stored)) -> Result<Self, Invalid> {
        if self.0.deleted {
            return Err(Invalid::whole("VM change", "the VM is deleted, which cannot be undone"));
        }
        let next = self.0.generation.next();
        let mut stored = self.0.clone();
        change(&mut stored);
        stored.generation = next.ok_or_else(|| Invalid::whole("VM change", "there is no generation left"))?;
        stored.try_into()
    }
}

impl TryFrom<Stored> for VmRecord {
    type Error = Invalid;

    fn try_from(stored: Stored) -> Result<Self, Invalid> {
        if stored
            .spec
            .depends_on
            .iter()
            .any(|dependency| dependency.vm == stored.id)
        {
            return Err(Invalid::whole("VM record", "the VM depends on itself"));
        }
        if stored.deleted && stored.power == PowerWanted::On {
            return Err(Invalid::whole("VM record", "a deleted VM is wanted on"));
        }
        if stored.generation < Generation::FIRST {
            return Err(Invalid::whole("VM record", "generation is 0"));
        }
        Ok(Self(stored))
    }
}

impl From<VmRecord> for Stored {
    fn from(record: VmRecord) -> Self {
        record.0
    }
}

/// Where a VM was put. Only the controller writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub host: HostId,
    pub incarnation: Incarnation,
}

impl Placement {
    /// The first placement of a VM.
    pub fn first(host: HostId) -> Self {
        Self {
            host,
            incarnation: Incarnation::FIRST,
        }
    }

    /// The placement after this one, on the same host or another: it makes all claims under this one void.
    pub fn next(self, host: HostId) -> Option<Self> {
        let incarnation = self.incarnation.next()?;
        Some(Self { host, incarnation })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Dependency, DependencyReached, VmName, VmSpecFields};

    fn spec() -> VmSpec {
        VmSpec::new(VmSpecFields::new(VmName::new("a").unwrap(), 1, 64)).unwrap()
    }

    fn id() -> VmId {
        VmId::from_uuid(Uuid::from_u128(1))
    }

    fn record() -> VmRecord {
        VmRecord::create(id(), VmNumber::new(101).unwrap(), spec()).unwrap()
    }

    #[test]
    fn a_new_vm_is_wanted_on() {
        assert_eq!(record().power(), PowerWanted::On);
        assert_eq!(record().generation(), Generation::FIRST);
    }

    #[test]
    fn every_change_is_a_new_generation() {
        let off = record().with_power(PowerWanted::Off).unwrap();
        let bigger = off.with_spec(spec().edit(|f| f.memory_mb = 128).unwrap()).unwrap();
        assert_eq!(bigger.generation(), Generation::from_raw(3));
        assert_eq!((bigger.power(), bigger.spec().memory_mb), (PowerWanted::Off, 128));
    }

    #[test]
    fn a_deleted_vm_is_off_and_stays_deleted() {
        let tombstone = record().delete().unwrap();
        assert!(tombstone.is_deleted());
        assert_eq!(tombstone.power(), PowerWanted::Off);
        assert!(tombstone.with_power(PowerWanted::On).is_err());
        assert!(tombstone.delete().is_err());
        let json = serde_json::to_string(&tombstone).unwrap();
        assert_eq!(serde_json::from_str::<VmRecord>(&json).unwrap(), tombstone);
        assert!(serde_json::from_str::<VmRecord>(&json.replace("\"off\"", "\"on\"")).is_err());
    }

    #[test]
    fn no_vm_waits_for_itself() {
        let until = DependencyReached::Running;
        let own = spec()
            .edit(|f| f.depends_on = vec![Dependency { vm: id(), until }])
            .unwrap();
        assert!(record().with_spec(own).is_err());
    }

    #[test]
    fn every_placement_fences_the_one_before() {
        let (one, two) = (
            HostId::from_uuid(Uuid::from_u128(1)),
            HostId::from_uuid(Uuid::from_u128(2)),
        );
        let first = Placement::first(one);
        let second = first.next(two).unwrap();
        let back = second.next(one).unwrap();
        assert!(first.incarnation < second.incarnation && second.incarnation < back.incarnation);
        let last = Placement {
            host: one,
            incarnation: Incarnation::from_raw(u64::MAX),
        };
        assert_eq!(last.next(two), None);
    }
}
