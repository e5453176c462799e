//! A host: its record, its session and its beat.

use std::str::FromStr;

use plasmavmc_types::{
    Address, Beat, BeatFields, BeatSequence, BootId, Capacity, Checks, Departure, Epoch, HostFacts, HostId, HostMode,
    HostName, HostRecord, InstanceNonce, Invalid, Leaving, Session, SessionState, Usage,
};

use super::super::{id_bytes, read_enum, read_id};
use super::vm::unreadable;
use crate::store;

impl From<&HostRecord> for store::HostRecord {
    fn from(record: &HostRecord) -> Self {
        Self {
            id: id_bytes(record.id().as_uuid()),
            name: record.name().to_string(),
            addresses: record.addresses().iter().map(ToString::to_string).collect(),
            mode: match record.mode() {
                HostMode::Active => store::HostMode::Active,
                HostMode::Draining => store::HostMode::Draining,
                HostMode::Maintenance => store::HostMode::Maintenance,
            }
            .into(),
            cluster_address: record.cluster_address().map(ToString::to_string).unwrap_or_default(),
            witness: record.is_witness(),
            departure: record.departure().map(store::Departure::from),
        }
    }
}

impl From<&Departure> for store::Departure {
    fn from(departure: &Departure) -> Self {
        Self {
            instance: id_bytes(departure.instance.as_uuid()),
            stay: departure.leaving == Leaving::Stay,
            until_ms: departure.until_ms,
        }
    }
}

fn read_departure(checks: &mut Checks, message: &store::Departure) -> Option<Departure> {
    Some(Departure {
        instance: InstanceNonce::from_uuid(read_id(checks, "departure.instance", &message.instance)?),
        leaving: if message.stay { Leaving::Stay } else { Leaving::Move },
        until_ms: message.until_ms,
    })
}

impl TryFrom<store::HostRecord> for HostRecord {
    type Error = Invalid;

    fn try_from(message: store::HostRecord) -> Result<Self, Invalid> {
        let mut checks = Checks::of("host record");
        let id = read_id(&mut checks, "id", &message.id).map(HostId::from_uuid);
        let name = checks.take("name", HostName::new(message.name));
        let addresses: Vec<Address> = read_texts(&mut checks, "addresses", &message.addresses);
        let mode = read_enum(&mut checks, "mode", message.mode).map(|mode| match mode {
            store::HostMode::Active => HostMode::Active,
            store::HostMode::Draining => HostMode::Draining,
            store::HostMode::Maintenance => HostMode::Maintenance,
        });
        let cluster_address = match message.cluster_address.as_str() {
            "" => None,
            text => checks.take("cluster_address", text.parse()),
        };
        let departure = message
            .departure
            .and_then(|message| read_departure(&mut checks, &message));
        let (Some(id), Some(name), Some(mode), []) = (id, name, mode, checks.problems()) else {
            return unreadable(checks);
        };
        let record = HostRecord::new(id, name, addresses)?;
        let record = record.with_mode(mode).with_cluster_address(cluster_address);
        Ok(record.with_witness(message.witness).with_departure(departure))
    }
}

/// Reads a list of texts, each under its own name.
fn read_texts<T: FromStr<Err = Invalid>>(checks: &mut Checks, field: &str, texts: &[String]) -> Vec<T> {
    let mut values = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        values.extend(checks.take(&format!("{field}[{index}]"), text.parse()));
    }
    values
}

impl From<&Session> for store::Session {
    fn from(session: &Session) -> Self {
        Self {
            epoch: session.epoch.get(),
            instance: id_bytes(session.instance.as_uuid()),
            boot_id: id_bytes(session.boot_id.as_uuid()),
            fenced: !session.is_open(),
            unconfirmed: session.state == SessionState::Unconfirmed,
        }
    }
}

impl TryFrom<store::Session> for Session {
    type Error = Invalid;

    fn try_from(message: store::Session) -> Result<Self, Invalid> {
        let mut checks = Checks::of("session");
        let instance = read_id(&mut checks, "instance", &message.instance).map(InstanceNonce::from_uuid);
        let boot_id = read_id(&mut checks, "boot_id", &message.boot_id).map(BootId::from_uuid);
        let epoch = Epoch::from_raw(message.epoch);
        checks.require(epoch >= Epoch::FIRST, "epoch", || "is 0".to_owned());
        let (Some(instance), Some(boot_id)) = (instance, boot_id) else {
            return unreadable(checks);
        };
        let state = match (message.fenced, message.unconfirmed) {
            (_, true) => SessionState::Unconfirmed,
            (true, false) => SessionState::Fenced,
            (false, false) => SessionState::Open,
        };
        checks.finish(Self {
            epoch,
            instance,
            boot_id,
            state,
        })
    }
}

/// A beat without its sequence, which the store keeps before the message.
pub fn write_beat(beat: &Beat) -> store::Beat {
    let facts = &beat.facts;
    store::Beat {
        epoch: beat.epoch.get(),
        instance: id_bytes(beat.instance.as_uuid()),
        boot_id: id_bytes(beat.boot_id.as_uuid()),
        lease_ms: beat.lease_ms,
        failover_ms: beat.failover_ms,
        vcpus: beat.capacity.vcpus,
        memory_mb: beat.capacity.memory_mb,
        vms_used: beat.usage.vms,
        vcpus_used: beat.usage.vcpus,
        memory_used_mb: beat.usage.memory_mb,
        pools: facts.pools.iter().map(ToString::to_string).collect(),
        bridges: facts.bridges.iter().map(ToString::to_string).collect(),
        accelerator: facts.accelerator.clone(),
        version: facts.version.clone(),
        warnings: facts.warnings.clone(),
        shared_pools: facts.shared_pools.iter().map(ToString::to_string).collect(),
    }
}

/// A beat with the sequence that was found before the message.
pub fn read_beat(sequence: BeatSequence, message: store::Beat) -> Result<Beat, Invalid> {
    let mut checks = Checks::of("beat");
    let instance = read_id(&mut checks, "instance", &message.instance).map(InstanceNonce::from_uuid);
    let boot_id = read_id(&mut checks, "boot_id", &message.boot_id).map(BootId::from_uuid);
    let pools = read_texts(&mut checks, "pools", &message.pools);
    let shared_pools = read_texts(&mut checks, "shared_pools", &message.shared_pools);
    let bridges = read_texts(&mut checks, "bridges", &message.bridges);
    let (Some(instance), Some(boot_id), []) = (instance, boot_id, checks.problems()) else {
        return unreadable(checks);
    };
    Beat::new(BeatFields {
        epoch: Epoch::from_raw(message.epoch),
        instance,
        boot_id,
        sequence,
        lease_ms: message.lease_ms,
        failover_ms: message.failover_ms,
        capacity: Capacity {
            vcpus: message.vcpus,
            memory_mb: message.memory_mb,
        },
        usage: Usage {
            vms: message.vms_used,
            vcpus: message.vcpus_used,
            memory_mb: message.memory_used_mb,
        },
        facts: HostFacts {
            pools,
            shared_pools,
            bridges,
            accelerator: message.accelerator,
            version: message.version,
            warnings: message.warnings,
        },
    })
}
