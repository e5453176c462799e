//! What the cluster stores of a VM besides its status: what is wanted, and where it was put.

use serde::{Deserialize, Serialize};

use crate::invalid::Checks;
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
#[serde(try_from = "VmRecordParts", into = "VmRecordParts")]
pub struct VmRecord(VmRecordParts);

/// All of a record, to be filled in freely and then checked by [`VmRecord::from_parts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRecordParts {
    pub id: VmId,
    pub number: VmNumber,
    pub spec: VmSpec,
    pub power: PowerWanted,
    pub generation: Generation,
    /// A tombstone: the VM was deleted, and the record stays until nothing can run.
    pub deleted: bool,
    /// By the wall clock of the host that took the call.
    #[serde(default)]
    pub created_at_ms: u64,
}

impl VmRecord {
    /// A new VM, wanted on, made at no known time.
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
        let mut checks = Checks::of("VM record");
        let VmRecordParts { id, spec, .. } = &parts;
        for (index, dependency) in spec.depends_on.iter().enumerate() {
            checks.require(dependency.vm != *id, format!("depends_on[{index}].vm"), || {
                "is the VM itself".to_owned()
            });
        }
        for (field, vms) in spec.affinity.vms() {
            for (index, vm) in vms.iter().enumerate() {
                checks.require(vm != id, format!("{field}[{index}]"), || "is the VM itself".to_owned());
            }
        }
        let is_dead_and_on = parts.deleted && parts.power == PowerWanted::On;
        checks.require(!is_dead_and_on, "power", || "is on, but the VM is deleted".to_owned());
        checks.require(parts.generation >= Generation::FIRST, "generation", || {
            "is 0".to_owned()
        });
        checks.finish(Self(parts))
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
        self.changed(|parts| parts.spec = spec)
    }

    pub fn with_power(&self, power: PowerWanted) -> Result<Self, Invalid> {
        self.changed(|parts| parts.power = power)
    }

    /// The tombstone of this VM.
    pub fn delete(&self) -> Result<Self, Invalid> {
        self.changed(|parts| (parts.power, parts.deleted) = (PowerWanted::Off, true))
    }

    fn changed(&self, change: impl FnOnce(&mut VmRecordParts)) -> Result<Self, Invalid> {
        if self.0.deleted {
            return Err(Invalid::whole("VM change", "the VM is deleted, which cannot be undone"));
        }
        let next = self.0.generation.next();
        let mut parts = self.0.clone();
        change(&mut parts);
        parts.generation = next.ok_or_else(|| Invalid::whole("VM change", "there is no generation left"))?;
        Self::from_parts(parts)
    }
}

impl TryFrom<VmRecordParts> for VmRecord {
    type Error = Invalid;

    fn try_from(parts: VmRecordParts) -> Result<Self, Invalid> {
        Self::from_parts(parts)
    }
}

impl From<VmRecord> for VmRecordParts {
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
        self.next_in(0, host)
    }

    /// The first placement of a VM, in a generation of the cluster.
    pub fn first_in(generation: u32, host: HostId) -> Option<Self> {
        let incarnation = Incarnation::from_raw(0).next_in(generation)?;
        Some(Self { host, incarnation })
    }

    /// As [`Self::next`], above all that was given before the cluster was recovered.
    pub fn next_in(self, generation: u32, host: HostId) -> Option<Self> {
        let incarnation = self.incarnation.next_in(generation)?;
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
    fn no_vm_waits_for_itself_or_is_placed_by_itself() {
        let check = |change: fn(&mut VmSpecFields), field: &str| {
            let refused = record().with_spec(spec().edit(change).unwrap()).unwrap_err();
            assert!(refused.mentions(field), "{refused}");
            assert_eq!(refused.problems().len(), 1, "{refused}");
        };
        let other = VmId::from_uuid(Uuid::from_u128(2));
        check(
            |f| {
                f.depends_on = vec![Dependency {
                    vm: id(),
                    until: DependencyReached::Running,
                }]
            },
            "depends_on[0].vm",
        );
        check(
            |f| f.affinity.apart_from = vec![VmId::from_uuid(Uuid::from_u128(2)), id()],
            "affinity.apart_from[1]",
        );
        check(|f| f.affinity.together_with = vec![id()], "affinity.together_with[0]");
        check(
            |f| f.affinity.prefer_apart_from = vec![id()],
            "affinity.prefer_apart_from[0]",
        );
        let apart = spec().edit(|f| f.affinity.apart_from = vec![other]).unwrap();
        assert!(record().with_spec(apart).is_ok());
    }

    #[test]
    fn parts_are_checked_all_at_once_and_come_back_as_they_were() {
        let good = VmRecordParts {
            created_at_ms: 17,
            ..record().into()
        };
        let record = VmRecord::from_parts(good.clone()).unwrap();
        assert_eq!(record.created_at_ms(), 17);
        assert_eq!(VmRecordParts::from(record), good);
        let bad = VmRecordParts {
            deleted: true,
            generation: Generation::from_raw(0),
            ..good
        };
        let refused = VmRecord::from_parts(bad).unwrap_err();
        assert!(refused.mentions("power") && refused.mentions("generation"), "{refused}");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_change() {
        let before = VmRecord::from_parts(VmRecordParts {
            created_at_ms: 17,
            ..record().into()
        })
        .unwrap();
        let after = before.with_power(PowerWanted::Off).unwrap();
        let expected = VmRecordParts {
            power: PowerWanted::Off,
            generation: Generation::from_raw(2),
            ..before.into()
        };
        assert_eq!(VmRecordParts::from(after), expected);
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
