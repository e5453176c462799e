//! What a server writes of itself: the settings of a cluster it founds, and its own record.

use std::time::Duration;

use chainfire::kv::{Kv, KvError};
use plasmavmc_core::view::{ClusterView, PlacementMode, Stored};
use plasmavmc_types::{Address, HostRecord, Invalid, Timings};
use tokio::sync::watch;

use crate::api::ApiError;
use crate::config::Config;
use crate::serve::HostIdentity;
use crate::store::{ClusterConfig, Write, WriteError, codec, keys};

/// How long a founder may take to lead itself.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// The record of this host, as it is started now.
pub fn own_record(identity: &HostIdentity, config: &Config, api: &Address) -> Result<HostRecord, Invalid> {
    let record = HostRecord::new(identity.host_id, identity.name.clone(), vec![api.clone()])?;
    let record = record.with_cluster_address(Some(config.cluster_advertise.clone()));
    Ok(record.with_witness(identity.witness))
}

/// Writes the settings of a new cluster and its first host, once. A founder that was killed in between does
/// it at its next start.
pub async fn found(kv: &dyn Kv, mut leadership: watch::Receiver<bool>, record: &HostRecord) -> Result<(), ApiError> {
    // What is seen locks the value: it is let go of at once.
    let leads = async { leadership.wait_for(|leads| *leads).await.is_ok() };
    if !matches!(tokio::time::timeout(FOUND_WITHIN, leads).await, Ok(true)) {
        let reason = "the founder does not lead itself".to_owned();
        return Err(KvError::NoLeader { reason }.into());
    }
    let settings = ClusterConfig {
        timings: Timings::default(),
        placement: PlacementMode::default(),
        recovery: Default::default(),
    };
    let write = Write::new()
        .expect_absent(keys::config())
        .put_config(&settings)
        .expect_absent(keys::host_record(record.id()))
        .put_host(record);
    match write.commit(kv).await {
        // Raced: it was done before.
        Ok(_) | Err(WriteError::Raced) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What became of this host's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    AsItWas,
    Changed,
    /// It was taken out of the cluster.
    Removed,
}

/// Makes the record say where this host is reached now, and what it is called if that was given. The settings are
/// those that were there when the name was found to be free.
pub async fn refresh(
    kv: &dyn Kv,
    own: &HostRecord,
    settings: Option<&Stored<ClusterConfig>>,
) -> Result<Refreshed, ApiError> {
    let key = keys::host_record(own.id());
    let Some(stored) = kv.get(key.clone(), Default::default()).await?.kv else {
        return Ok(Refreshed::Removed);
    };
    let known = codec::decode_host(&stored.value).map_err(|error| ApiError::Internal(error.to_string()))?;
    // What operators said of it stays said.
    let next = own.with_mode(known.mode()).with_departure(known.departure().copied());
    if next == known {
        return Ok(Refreshed::AsItWas);
    }
    let write = Write::new().expect(key, stored.mod_revision).put_host(&next);
    let write = match next.name() == known.name() {
        true => write,
        false => one_at_a_time(write, settings),
    };
    write.commit(kv).await?;
    Ok(Refreshed::Changed)
}

/// Names of hosts have no keys of their own: whoever gives one writes the settings again as they are, so that of two
/// that are given at once one is decided anew.
pub fn one_at_a_time(write: Write, settings: Option<&Stored<ClusterConfig>>) -> Write {
    match settings {
        Some(settings) => write
            .expect(keys::config(), settings.revision)
            .put_config(&settings.value),
        None => write.expect_absent(keys::config()),
    }
}

/// Another host that has this name.
pub fn namesake<'a>(view: &'a ClusterView, record: &HostRecord) -> Option<&'a HostRecord> {
    let records = view.hosts.values().filter_map(|host| host.record.as_ref());
    let mut records = records.map(|stored| &stored.value);
    records.find(|other| other.name() == record.name() && other.id() != record.id())
}
