//! What is stored differently once a cluster goes on without its majority. Pure.
//!
//! - The recovery is counted, so that incarnations from now on are above all that the lost members may have given.
//! - No session holds: hosts that were lost are waited for until somebody says that they are off.
//! - What this host ran leased gets a new incarnation: the lost members may have started it elsewhere, and what is frozen
//!   here is not thawed but started anew, as far as the locks of its disks allow.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use plasmavmc_core::view::Recovery;
use plasmavmc_types::{Decision, HostId, HostRecord, Placement, Session, SessionState, VmId, VmStatus};

use crate::store::{ClusterConfig, CodecError, ParsedKey, StoredValue, codec, keys};

/// Why what is stored cannot be carried over.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangesError {
    #[error("what is stored under {key} cannot be read by this version: {source}")]
    Unreadable {
        key: String,
        #[source]
        source: CodecError,
    },
    #[error("the cluster was never founded: its settings are missing")]
    NoSettings,
    #[error("the backup knows another host {0}: give this one a name of its own, with --name before 'recover'")]
    NameTaken(String),
    #[error("there are no incarnations left")]
    NoneLeft,
}

/// What counts for a recovery, of all that is stored.
#[derive(Debug, Default)]
pub struct Known {
    config: Option<ClusterConfig>,
    pub hosts: BTreeMap<HostId, HostRecord>,
    sessions: BTreeMap<HostId, Session>,
    pub placements: BTreeMap<VmId, Placement>,
    /// VMs that were deleted: what is left of them is ended as it would have been.
    deleted: BTreeSet<VmId>,
    statuses: BTreeMap<VmId, VmStatus>,
}

impl Known {
    pub fn of(values: &BTreeMap<Bytes, Bytes>) -> Result<Self, ChangesError> {
        let mut known = Self::default();
        for (key, bytes) in values {
            let Some(parsed) = keys::parse(key) else { continue };
            let value = codec::decode(&parsed, bytes).map_err(|source| ChangesError::Unreadable {
                key: parsed.to_string(),
                source,
            })?;
            known.take(&parsed, value);
        }
        Ok(known)
    }

    fn take(&mut self, key: &ParsedKey, value: StoredValue) {
        match (key, value) {
            (ParsedKey::Config, StoredValue::Config(config)) => self.config = Some(config),
            (ParsedKey::HostRecord(host), StoredValue::HostRecord(record)) => drop(self.hosts.insert(*host, record)),
            (ParsedKey::Session(host), StoredValue::Session(session)) => drop(self.sessions.insert(*host, session)),
            (ParsedKey::VmRecord(vm), StoredValue::VmRecord(record)) if record.is_deleted() => {
                self.deleted.insert(*vm);
            }
            (ParsedKey::Placement(vm), StoredValue::Placement(at)) => drop(self.placements.insert(*vm, at)),
            (ParsedKey::Status(vm), StoredValue::Status(status)) => drop(self.statuses.insert(*vm, status)),
            _ => {}
        }
    }

    /// What is to be stored instead, when this host goes on.
    pub fn changes(&self, own: &HostRecord, now_ms: u64) -> Result<BTreeMap<Bytes, Bytes>, ChangesError> {
        let config = self.config.ok_or(ChangesError::NoSettings)?;
        let recovery = config.recovery.next(now_ms);
        let mut changes = BTreeMap::new();
        if !self.hosts.contains_key(&own.id()) {
            // A backup may be put on a host that it does not know.
            if self.hosts.values().any(|other| other.name() == own.name()) {
                return Err(ChangesError::NameTaken(own.name().to_string()));
            }
            changes.insert(keys::host_record(own.id()), codec::encode_host(own));
        }
        let own = own.id();
        let next = ClusterConfig { recovery, ..config };
        changes.insert(keys::config(), codec::encode_config(&next));
        for (host, session) in &self.sessions {
            let state = SessionState::Unconfirmed;
            let over = Session { state, ..*session };
            changes.insert(keys::session(*host), codec::encode_session(&over));
        }
        let is_leased = |vm: &VmId| self.statuses.get(vm).is_some_and(|status| status.leased);
        let was_leased = |vm: &VmId| is_leased(vm) && !self.deleted.contains(vm);
        let own_leased = self
            .placements
            .iter()
            .filter(|(vm, at)| at.host == own && was_leased(vm));
        for (vm, at) in own_leased {
            let next = at.next_in(recovery.generation, own).ok_or(ChangesError::NoneLeft)?;
            changes.insert(keys::placement(*vm), codec::encode_placement(&next));
        }
        changes.insert(
            keys::decision(&keys::decision_id(now_ms, 0)),
            codec::encode_decision(&decision(own, recovery, now_ms)),
        );
        Ok(changes)
    }
}

fn decision(own: HostId, recovery: Recovery, now_ms: u64) -> Decision {
    let text = "the cluster was recovered from what this one host knew: others wait until they are said to be off";
    Decision {
        at_ms: now_ms,
        kind: "recover".to_owned(),
        vm: None,
        host: Some(own),
        text: text.to_owned(),
        evidence: vec![format!(
            "generation {}: incarnations begin above {}",
            recovery.generation,
            recovery.floor()
        )],
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::Incarnation;

    use super::*;
    use crate::store::samples;

    fn stored() -> BTreeMap<Bytes, Bytes> {
        let all = samples::one_of_each();
        all.iter()
            .map(|(key, value)| (key.key(), codec::tests::encode(value)))
            .collect()
    }

    fn stranger(name: &str) -> HostRecord {
        let address = "beta:50051".parse().unwrap();
        HostRecord::new(
            HostId::from_uuid(uuid::Uuid::nil()),
            name.parse().unwrap(),
            vec![address],
        )
        .unwrap()
    }

    #[test]
    fn what_was_given_before_is_below_what_is_given_from_now_on() {
        let mut known = Known::of(&stored()).unwrap();
        // The sample is of one that was.
        known.deleted.clear();
        let (vm, at) = known.placements.first_key_value().unwrap();
        let own = &known.hosts[&at.host];
        let is_leased = known.statuses.get(vm).is_some_and(|status| status.leased);
        assert!(is_leased, "the sample is of no use here");
        let changes = known.changes(own, 60_000_000_000_000).unwrap();
        let again = Known::of(&changes).unwrap();
        let recovery = again.config.unwrap().recovery;
        assert!(recovery.generation > 0 && recovery.at_ms == 60_000_000_000_000);
        assert!(again.placements[vm].incarnation > Incarnation::from_raw(u64::from(u32::MAX)));
        assert_eq!(again.placements[vm].host, own.id());
        assert!(again.hosts.is_empty(), "it is known");
        assert!(
            again
                .sessions
                .values()
                .all(|session| session.state == SessionState::Unconfirmed)
        );
        assert_eq!(again.sessions.len(), known.sessions.len());
        // Of another host nothing is moved: nobody knows what it runs.
        let elsewhere = Known::of(&known.changes(&stranger("beta"), 1).unwrap()).unwrap();
        assert!(elsewhere.placements.is_empty());
        assert_eq!(elsewhere.hosts.values().next(), Some(&stranger("beta")));
        let error = known.changes(&stranger(own.name().as_str()), 1).unwrap_err();
        assert!(matches!(error, ChangesError::NameTaken(_)));
    }

    #[test]
    fn what_cannot_be_read_is_not_carried_over() {
        let mut values = stored();
        values.insert(keys::config(), Bytes::from_static(&[8, 9]));
        let error = Known::of(&values).unwrap_err().to_string();
        assert!(error.contains("/cluster/config"), "{error}");
        let error = Known::default().changes(&stranger("beta"), 1).unwrap_err();
        assert_eq!(error, ChangesError::NoSettings);
    }
}
