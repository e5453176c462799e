//! Whether a VM is leased.
//!
//! A leased VM is frozen when its host loses contact, and may be started elsewhere once that host is fenced. What
//! nobody else could start is never leased: it would be frozen for nothing. Whether it is so is fixed when a host
//! claims the VM, and holds for that incarnation (item 14 of the design).
//!
//! Must never: call leased what has a disk that no other host can open.

use plasmavmc_types::{Disk, DiskLocation, HaPolicy, HostId, PoolName, VmRecord, VmSpec};

use crate::view::{ClusterView, HostView};

/// Fewer voters cannot lose one of them and go on.
pub const LEAST_VOTERS: usize = 3;

/// Whether a VM is leased where it is claimed, and if not why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leasing {
    Leased,
    /// The rest of a sentence that begins with: it is not leased.
    Not(String),
}

impl Leasing {
    pub fn is_leased(&self) -> bool {
        *self == Leasing::Leased
    }
}

/// What a claim of this host says of a VM. `voters` is the number of members of the store that vote.
pub fn leasing(view: &ClusterView, host: HostId, record: &VmRecord, voters: usize) -> Leasing {
    let spec = record.spec();
    let obstacle = if spec.ha == HaPolicy::Off {
        Some("its policy is ha = off".to_owned())
    } else {
        too_few(voters)
            .or_else(|| no_other_host(view, spec, host))
            .or_else(|| local_disk(view, spec, host))
    };
    obstacle.map_or(Leasing::Leased, Leasing::Not)
}

/// Why `ha = on` cannot be promised for what is asked for: said when it is asked for.
pub fn refusal(view: &ClusterView, spec: &VmSpec, voters: usize) -> Option<String> {
    if spec.ha != HaPolicy::On {
        return None;
    }
    if let Some(obstacle) = too_few(voters) {
        return Some(obstacle);
    }
    if hosts_for(view, spec).count() < 2 {
        return Some(
            "it is bound to one host, or the cluster has only one: name another one, or leave ha to auto".into(),
        );
    }
    let shared_by_two = |pool: &PoolName| hosts_for(view, spec).filter(|(_, known)| shares(known, pool)).count() >= 2;
    let stays = spec.disks.iter().find(|disk| match &disk.location {
        DiskLocation::File { .. } => true,
        DiskLocation::Volume { pool, .. } => !shared_by_two(pool),
    })?;
    let name = stays.name.as_str();
    Some(format!(
        "its disk {name} can be opened on one host only: put it on a pool that two hosts share, or leave ha to auto"
    ))
}

fn too_few(voters: usize) -> Option<String> {
    (voters < LEAST_VOTERS).then(|| {
        format!(
            "the store has {voters} voters, and it takes {LEAST_VOTERS} to lose one and go on: add hosts, or a witness"
        )
    })
}

fn no_other_host(view: &ClusterView, spec: &VmSpec, host: HostId) -> Option<String> {
    let others = hosts_for(view, spec).filter(|(id, _)| *id != host).count();
    (others == 0).then(|| "no other host may run it".to_owned())
}

/// A disk that no other host can open, if there is one.
fn local_disk(view: &ClusterView, spec: &VmSpec, host: HostId) -> Option<String> {
    let here = view.hosts.get(&host);
    let is_open_elsewhere = |disk: &Disk| match &disk.location {
        DiskLocation::File { .. } => false,
        DiskLocation::Volume { pool, .. } => {
            let mut others = hosts_for(view, spec).filter(|(id, _)| *id != host);
            here.is_some_and(|here| shares(here, pool)) && others.any(|(_, known)| shares(known, pool))
        }
    };
    let stays = spec.disks.iter().find(|disk| !is_open_elsewhere(disk))?;
    Some(format!("no other host can open its disk {}", stays.name.as_str()))
}

/// The hosts of the cluster that the VM may run on: a witness is none.
fn hosts_for<'a>(view: &'a ClusterView, spec: &'a VmSpec) -> impl Iterator<Item = (HostId, &'a HostView)> {
    let names = &spec.affinity.hosts;
    view.hosts.iter().filter_map(move |(id, known)| {
        let record = known.record.as_ref().filter(|record| !record.value.is_witness())?;
        (names.is_empty() || names.contains(record.value.name())).then_some((*id, known))
    })
}

fn shares(host: &HostView, pool: &PoolName) -> bool {
    let beat = host.beat.as_ref();
    beat.is_some_and(|beat| beat.value.facts.shared_pools.contains(pool))
}

#[cfg(test)]
mod tests;
