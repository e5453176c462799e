//! What each host carries by what was placed on it.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_types::{HostId, PowerWanted, VmId, VmRecord};

use crate::view::{ClusterView, VmView};
use crate::visible::runs_nowhere;

/// What one host carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub vms: u64,
    pub vcpus: u64,
    pub memory_mb: u64,
}

impl Load {
    fn add(&mut self, size: Size) {
        self.vms += 1;
        self.vcpus += size.vcpus;
        self.memory_mb += size.memory_mb;
    }

    fn take(&mut self, size: Size) {
        self.vms = self.vms.saturating_sub(1);
        self.vcpus = self.vcpus.saturating_sub(size.vcpus);
        self.memory_mb = self.memory_mb.saturating_sub(size.memory_mb);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    vcpus: u64,
    memory_mb: u64,
}

fn size_of(record: &VmRecord) -> Size {
    Size {
        vcpus: u64::from(record.spec().vcpus),
        memory_mb: record.spec().memory_mb,
    }
}

/// What all hosts carry, and who is where. Kept up to date while a plan is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loads {
    hosts: BTreeMap<HostId, Load>,
    /// Where each VM is, and with which size if that counts.
    places: BTreeMap<VmId, (HostId, Option<Size>)>,
    /// Who must not be on one host with whom, as said by either.
    apart: BTreeMap<VmId, BTreeSet<VmId>>,
}

impl Loads {
    pub fn of(view: &ClusterView) -> Self {
        let mut loads = Self::default();
        for (id, vm) in &view.vms {
            let Some(record) = &vm.record else { continue };
            for other in &record.value.spec().affinity.apart_from {
                loads.apart.entry(*id).or_default().insert(*other);
                loads.apart.entry(*other).or_default().insert(*id);
            }
            if let Some(placement) = &vm.placement {
                loads.put(&record.value, placement.value.host, counts(vm, &record.value));
            }
        }
        loads
    }

    /// Counts a VM on a host, and no longer where it was.
    pub fn place(&mut self, record: &VmRecord, host: HostId) {
        self.put(record, host, record.power() == PowerWanted::On);
    }

    fn put(&mut self, record: &VmRecord, host: HostId, counts: bool) {
        let size = counts.then(|| size_of(record));
        if let Some((before, Some(size))) = self.places.insert(record.id(), (host, size)) {
            self.hosts.entry(before).or_default().take(size);
        }
        if let Some(size) = size {
            self.hosts.entry(host).or_default().add(size);
        }
    }

    /// What the hosts carry besides this VM.
    pub(super) fn besides(&self, vm: VmId) -> Besides<'_> {
        let own = self.places.get(&vm).and_then(|(host, size)| Some((*host, (*size)?)));
        Besides { loads: self, own }
    }

    pub fn place_of(&self, vm: VmId) -> Option<HostId> {
        self.places.get(&vm).map(|(host, _)| *host)
    }

    /// The VMs that must not be where this one is.
    pub fn apart_from(&self, vm: VmId) -> impl Iterator<Item = VmId> + '_ {
        self.apart.get(&vm).into_iter().flatten().copied()
    }
}

/// What each host carries, without one VM.
#[derive(Debug)]
pub(super) struct Besides<'a> {
    loads: &'a Loads,
    /// Where that one counts.
    own: Option<(HostId, Size)>,
}

impl Besides<'_> {
    pub fn on(&self, host: HostId) -> Load {
        let mut load = self.loads.hosts.get(&host).copied().unwrap_or_default();
        if let Some((_, size)) = self.own.filter(|(place, _)| *place == host) {
            load.take(size);
        }
        load
    }
}

/// Whether a VM takes room where it is placed: it is wanted on, or may still run.
fn counts(vm: &VmView, record: &VmRecord) -> bool {
    let may_run = vm.current_status().is_some() && !runs_nowhere(vm);
    record.power() == PowerWanted::On || may_run
}
