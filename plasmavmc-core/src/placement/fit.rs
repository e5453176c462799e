//! Every reason a host has against a VM.
//!
//! What does not depend on the VM is gathered once for each host ([`Seat`]), what does not depend on the host once for
//! each VM ([`Asking`]): with a thousand hosts, all that is asked for every pair has to be cheap, and the words for the
//! reasons are only put together where somebody reads them.

use std::collections::BTreeSet;
use std::fmt;

use plasmavmc_types::{
    Beat, Disk, DiskLocation, HostId, HostMode, HostName, HostRecord, NicNetwork, PoolName, VmId, VmRecord, VmSpec,
};

use super::load::Besides;
use super::{Loads, VCPU_OVERCOMMIT};
use crate::view::{ClusterView, Heard, HostView};
use crate::visible::{HostState, has_lost_host, host};

/// A host, and what it says to every VM.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    pub name: String,
    pub host: HostId,
    record: Option<&'a HostRecord>,
    pub beat: Option<&'a Beat>,
    /// Against any VM.
    closed: Vec<String>,
    pub is_doubtful: bool,
}

impl<'a> Seat<'a> {
    pub fn of(view: &'a ClusterView, heard: &Heard, id: HostId, known: &'a HostView) -> Self {
        let record = known.record.as_ref().map(|record| &record.value);
        Self {
            name: view.host_name(id),
            host: id,
            // A witness is nobody to ask further.
            record: record.filter(|record| !record.is_witness()),
            beat: known.beat.as_ref().map(|beat| &beat.value),
            closed: closed(view, heard, id, known),
            is_doubtful: heard.is_doubtful(id, &view.timings),
        }
    }
}

fn closed(view: &ClusterView, heard: &Heard, id: HostId, known: &HostView) -> Vec<String> {
    let Some(record) = known.record.as_ref().map(|record| &record.value) else {
        return vec!["it was removed from the cluster".to_owned()];
    };
    let shown = host(view, heard, id);
    if shown.state == HostState::Witness {
        return vec![shown.reason];
    }
    let mode = match record.mode() {
        HostMode::Active => None,
        HostMode::Draining => Some("it is being drained".to_owned()),
        HostMode::Maintenance => Some("it is in maintenance".to_owned()),
    };
    let absent = (shown.state != HostState::Alive).then_some(shown.reason);
    let departs = known.departure().map(|_| "it is being shut down".to_owned());
    mode.into_iter().chain(departs).chain(absent).collect()
}

/// What a host has against a VM.
#[derive(Debug)]
pub(super) enum Reason<'a> {
    Closed(&'a str),
    BoundTo(&'a [HostName]),
    ApartFrom(String),
    TogetherWith(String, String),
    DataOn(String, Vec<&'a str>),
    SizeUnknown,
    Memory { needs: u64, free: u64, of: u64 },
    Processors { needs: u32, free: u64, have: u32 },
    Pool(&'a PoolName),
    Bridge(String),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => f.write_str(why),
            Self::BoundTo(hosts) => {
                let hosts: Vec<&str> = hosts.iter().map(|name| name.as_str()).collect();
                write!(f, "the VM is bound to {}", hosts.join(", "))
            }
            Self::ApartFrom(name) => write!(f, "has VM {name}, which it must be apart from"),
            Self::TogetherWith(name, place) => write!(f, "must be with VM {name}, which is on {place}"),
            Self::DataOn(owner, disks) => {
                write!(f, "its disks ({}) lie on {owner} and are not shared", disks.join(", "))
            }
            Self::SizeUnknown => f.write_str("it has not said yet what it can carry"),
            Self::Memory { needs, free, of } => write!(f, "needs {needs} MB, {free} of {of} free"),
            Self::Processors { needs, free, have } => {
                let all = u64::from(*have) * VCPU_OVERCOMMIT;
                write!(
                    f,
                    "needs {needs} vcpus, {free} of {all} free ({VCPU_OVERCOMMIT} for each of its {have} processors)"
                )
            }
            Self::Pool(pool) => write!(f, "has no pool {pool}"),
            Self::Bridge(bridge) => write!(f, "has no bridge {bridge}"),
        }
    }
}

/// A VM, and what it asks of every host.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    view: &'a ClusterView,
    pub record: &'a VmRecord,
    pub besides: Besides<'a>,
    /// Who must not be with it, and where that is.
    apart: Vec<(VmId, HostId)>,
    together: Vec<(VmId, HostId)>,
    rather_apart: Vec<(VmId, HostId)>,
    rather_together: Vec<(VmId, HostId)>,
    pools: BTreeSet<&'a PoolName>,
    data: Option<Data<'a>>,
}

/// A VM that was claimed has its data where it is placed.
#[derive(Debug)]
struct Data<'a> {
    owner: HostId,
    /// What its host calls shared. `None`: it is gone for good and can no longer be asked.
    shared: Option<&'a [PoolName]>,
}

impl<'a> Asking<'a> {
    pub fn of(view: &'a ClusterView, loads: &'a Loads, record: &'a VmRecord) -> Self {
        let placed = |vm: VmId| Some((vm, loads.place_of(vm)?));
        let affinity = &record.spec().affinity;
        let all = |vms: &[VmId]| vms.iter().copied().filter_map(placed).collect();
        Self {
            view,
            record,
            besides: loads.besides(record.id()),
            apart: loads.apart_from(record.id()).filter_map(placed).collect(),
            // One that is nowhere yet binds nobody; it will come along.
            together: all(&affinity.together_with),
            rather_apart: all(&affinity.prefer_apart_from),
            rather_together: all(&affinity.prefer_together_with),
            pools: pools(record.spec()),
            data: data(view, record),
        }
    }

    pub fn fits(&self, seat: &Seat<'_>) -> bool {
        let mut fits = true;
        self.against(seat, &mut |_| fits = false);
        fits
    }

    /// How many of its preferences a host does not meet.
    pub fn dislikes(&self, seat: &Seat<'_>) -> usize {
        let hosts = &self.record.spec().affinity.prefer_hosts;
        let is_other = |host: &HostRecord| !hosts.is_empty() && !hosts.contains(host.name());
        let here = |(_, place): &&(VmId, HostId)| *place == seat.host;
        let away = |(_, place): &&(VmId, HostId)| *place != seat.host;
        usize::from(seat.record.is_some_and(is_other))
            + self.rather_apart.iter().filter(here).count()
            + self.rather_together.iter().filter(away).count()
    }

    /// Tells every reason of this host.
    pub fn against(&self, seat: &Seat<'_>, tell: &mut impl FnMut(Reason<'_>)) {
        for why in &seat.closed {
            tell(Reason::Closed(why));
        }
        let Some(host) = seat.record else { return };
        self.company_against(host, tell);
        self.data_against(seat, tell);
        match seat.beat {
            Some(beat) => {
                self.size_against(beat, seat.host, tell);
                self.lacks(beat, tell);
            }
            // What it can carry is known only from its beats.
            None if seat.closed.is_empty() => tell(Reason::SizeUnknown),
            None => {}
        }
    }

    fn company_against(&self, host: &HostRecord, tell: &mut impl FnMut(Reason<'_>)) {
        let bound = &self.record.spec().affinity.hosts;
        if !bound.is_empty() && !bound.contains(host.name()) {
            tell(Reason::BoundTo(bound));
        }
        for (other, _) in self.apart.iter().filter(|(_, place)| *place == host.id()) {
            tell(Reason::ApartFrom(self.view.vm_name(*other)));
        }
        for (other, place) in self.together.iter().filter(|(_, place)| *place != host.id()) {
            let names = (self.view.vm_name(*other), self.view.host_name(*place));
            tell(Reason::TogetherWith(names.0, names.1));
        }
    }

    /// A VM whose data lie on one host stays there.
    fn data_against(&self, seat: &Seat<'_>, tell: &mut impl FnMut(Reason<'_>)) {
        let Some(data) = self.data.as_ref().filter(|data| data.owner != seat.host) else {
            return;
        };
        let is_shared = |pool: &PoolName| data.shared.is_none_or(|pools| pools.contains(pool));
        let is_shared_here = |pool: &PoolName| seat.beat.is_some_and(|beat| beat.facts.shared_pools.contains(pool));
        let stays = |disk: &&Disk| match &disk.location {
            DiskLocation::File { .. } => true,
            DiskLocation::Volume { pool, .. } => !(is_shared(pool) && is_shared_here(pool)),
        };
        let disks = self.record.spec().disks.iter().filter(stays);
        let disks: Vec<&str> = disks.map(|disk| disk.name.as_str()).collect();
        if !disks.is_empty() {
            tell(Reason::DataOn(self.view.host_name(data.owner), disks));
        }
    }

    fn size_against(&self, beat: &Beat, host: HostId, tell: &mut impl FnMut(Reason<'_>)) {
        let (capacity, load) = (beat.capacity, self.besides.on(host));
        let free = capacity.memory_mb.saturating_sub(load.memory_mb);
        let needs = self.record.spec().memory_mb;
        if needs > free {
            let of = capacity.memory_mb;
            tell(Reason::Memory { needs, free, of });
        }
        let free = (u64::from(capacity.vcpus) * VCPU_OVERCOMMIT).saturating_sub(load.vcpus);
        let needs = self.record.spec().vcpus;
        if u64::from(needs) > free {
            let have = capacity.vcpus;
            tell(Reason::Processors { needs, free, have });
        }
    }

    fn lacks(&self, beat: &Beat, tell: &mut impl FnMut(Reason<'_>)) {
        for pool in self.pools.iter().filter(|pool| !beat.facts.pools.contains(pool)) {
            tell(Reason::Pool(pool));
        }
        for nic in &self.record.spec().nics {
            if let NicNetwork::Bridge(bridge) = &nic.network
                && !beat.facts.bridges.contains(bridge)
            {
                tell(Reason::Bridge(bridge.to_string()));
            }
        }
    }
}

fn data<'a>(view: &'a ClusterView, record: &VmRecord) -> Option<Data<'a>> {
    let vm = view.vms.get(&record.id())?;
    let owner = vm.placement.as_ref()?.value.host;
    // Before the first claim nothing of it lies anywhere.
    vm.status.as_ref()?;
    let beat = view.hosts.get(&owner).and_then(|host| host.beat.as_ref());
    let shared = beat.map_or([].as_slice(), |beat| &beat.value.facts.shared_pools);
    Some(Data {
        owner,
        shared: (!has_lost_host(view, vm)).then_some(shared),
    })
}

/// The pools of all volumes, each once.
fn pools(spec: &VmSpec) -> BTreeSet<&PoolName> {
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
