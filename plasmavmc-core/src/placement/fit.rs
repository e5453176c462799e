//! Every reason a host has against a VM.

use plasmavmc_types::{
    Beat, Disk, DiskLocation, HostId, HostMode, HostRecord, NicNetwork, PoolName, VmId, VmRecord, VmSpec,
};

use super::{Loads, VCPU_OVERCOMMIT};
use crate::view::{ClusterView, Heard};
use crate::visible::{HostState, has_lost_host, host};

pub(super) fn reasons(view: &ClusterView, heard: &Heard, loads: &Loads, record: &VmRecord, id: HostId) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(known) = view.hosts.get(&id) else {
        return vec!["it does not belong to the cluster".to_owned()];
    };
    let Some(host_record) = &known.record else {
        return vec!["it was removed from the cluster".to_owned()];
    };
    let shown = host(view, heard, id);
    if shown.state == HostState::Witness {
        return vec![shown.reason];
    }
    refuse_mode(&host_record.value, &mut reasons);
    if shown.state != HostState::Alive {
        reasons.push(shown.reason);
    }
    refuse_company(view, loads, record, &host_record.value, &mut reasons);
    refuse_other_data(view, record, id, &mut reasons);
    match &known.beat {
        // What it can carry is known only from its beats.
        None if reasons.is_empty() => reasons.push("it has not said yet what it can carry".to_owned()),
        None => {}
        Some(beat) => {
            refuse_size(&beat.value, loads, record, id, &mut reasons);
            refuse_missing(&beat.value, record.spec(), &mut reasons);
        }
    }
    reasons
}

fn refuse_mode(record: &HostRecord, reasons: &mut Vec<String>) {
    match record.mode() {
        HostMode::Active => {}
        HostMode::Draining => reasons.push("it is being drained".to_owned()),
        HostMode::Maintenance => reasons.push("it is in maintenance".to_owned()),
    }
}

fn refuse_size(beat: &Beat, loads: &Loads, record: &VmRecord, id: HostId, reasons: &mut Vec<String>) {
    let (capacity, load) = (beat.capacity, loads.without(id, record.id()));
    let free_mb = capacity.memory_mb.saturating_sub(load.memory_mb);
    let needs_mb = record.spec().memory_mb;
    if needs_mb > free_mb {
        reasons.push(format!("needs {needs_mb} MB, {free_mb} of {} free", capacity.memory_mb));
    }
    let vcpus = u64::from(capacity.vcpus) * VCPU_OVERCOMMIT;
    let free = vcpus.saturating_sub(load.vcpus);
    let needs = record.spec().vcpus;
    if u64::from(needs) > free {
        let have = capacity.vcpus;
        reasons.push(format!(
            "needs {needs} vcpus, {free} of {vcpus} free ({VCPU_OVERCOMMIT} for each of its {have} processors)"
        ));
    }
}

fn refuse_missing(beat: &Beat, spec: &VmSpec, reasons: &mut Vec<String>) {
    for pool in pools(spec) {
        if !beat.facts.pools.contains(pool) {
            reasons.push(format!("has no pool {pool}"));
        }
    }
    for nic in &spec.nics {
        if let NicNetwork::Bridge(bridge) = &nic.network
            && !beat.facts.bridges.contains(bridge)
        {
            reasons.push(format!("has no bridge {bridge}"));
        }
    }
}

/// The pools of all volumes, each once.
fn pools(spec: &VmSpec) -> std::collections::BTreeSet<&PoolName> {
    let cdroms = spec.cdroms.iter().filter_map(|cdrom| cdrom.image.as_ref());
    let locations = spec.disks.iter().flat_map(locations_of).chain(cdroms);
    locations
        .filter_map(|location| match location {
            DiskLocation::Volume { pool, .. } => Some(pool),
            DiskLocation::File { .. } => None,
        })
        .collect()
}

fn locations_of(disk: &Disk) -> impl Iterator<Item = &DiskLocation> {
    let backing = disk.backing.iter().map(|image| &image.location);
    std::iter::once(&disk.location).chain(backing)
}

fn refuse_company(view: &ClusterView, loads: &Loads, record: &VmRecord, host: &HostRecord, reasons: &mut Vec<String>) {
    let affinity = &record.spec().affinity;
    if !affinity.hosts.is_empty() && !affinity.hosts.contains(host.name()) {
        let hosts: Vec<&str> = affinity.hosts.iter().map(|name| name.as_str()).collect();
        reasons.push(format!("the VM is bound to {}", hosts.join(", ")));
    }
    let is_here = |vm: &VmId| loads.place_of(*vm) == Some(host.id());
    for other in loads.apart_from(record.id()).filter(is_here) {
        let name = view.vm_name(other);
        reasons.push(format!("has VM {name}, which it must be apart from"));
    }
    for other in &affinity.together_with {
        // One that is nowhere yet binds nobody; it will come here.
        if let Some(place) = loads.place_of(*other).filter(|place| *place != host.id()) {
            let (name, place) = (view.vm_name(*other), view.host_name(place));
            reasons.push(format!("must be with VM {name}, which is on {place}"));
        }
    }
}

/// A VM whose data lie on one host stays there.
fn refuse_other_data(view: &ClusterView, record: &VmRecord, id: HostId, reasons: &mut Vec<String>) {
    let Some(vm) = view.vms.get(&record.id()) else { return };
    let Some(placement) = &vm.placement else { return };
    let owner = placement.value.host;
    // Before the first claim nothing of it lies anywhere.
    if owner == id || vm.status.is_none() {
        return;
    }
    // What a host that is gone for good called shared can no longer be asked.
    let is_owner_gone = has_lost_host(view, vm);
    let owner_beat = view.hosts.get(&owner).and_then(|host| host.beat.as_ref());
    let is_shared =
        |pool: &PoolName| is_owner_gone || owner_beat.is_some_and(|beat| beat.value.facts.shared_pools.contains(pool));
    let own_beat = view.hosts.get(&id).and_then(|host| host.beat.as_ref());
    let is_shared_here = |pool: &PoolName| own_beat.is_some_and(|beat| beat.value.facts.shared_pools.contains(pool));
    let stays = |disk: &&Disk| match &disk.location {
        DiskLocation::File { .. } => true,
        DiskLocation::Volume { pool, .. } => !(is_shared(pool) && is_shared_here(pool)),
    };
    let disks: Vec<&str> = record
        .spec()
        .disks
        .iter()
        .filter(stays)
        .map(|disk| disk.name.as_str())
        .collect();
    if !disks.is_empty() {
        let owner = view.host_name(owner);
        reasons.push(format!(
            "its disks ({}) lie on {owner} and are not shared",
            disks.join(", ")
        ));
    }
}
