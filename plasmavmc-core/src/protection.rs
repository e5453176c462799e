//! What the failure of a host would cost, asked before it happens: which VMs are leased and which are not, and what
//! would find no room once a host is lost.
//!
//! Must never: call protected what would wait for its host.

use std::collections::BTreeMap;

use plasmavmc_types::{HaPolicy, HostId, PowerWanted, VmId};

use crate::boot;
use crate::ha::{Leasing, leasing};
use crate::placement::{Loads, Roll};
use crate::terms;
use crate::view::{ClusterView, Heard};
use crate::visible::runs_nowhere;

/// So many losses are played through, of the hosts with the most leased memory: where those fit, the others do.
const MOST_LOSSES: usize = 32;

/// A VM that waits for its host when that dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprotected {
    pub vm: VmId,
    pub host: HostId,
    /// The rest of a sentence that begins with: it is not leased.
    pub why: String,
}

/// What would find no room if this host were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub host: HostId,
    pub homeless: Vec<VmId>,
}

/// The VMs that execute, or may, and would not be started elsewhere. What is meant to stay (ha = off) is not told of.
pub fn unprotected(view: &ClusterView, voters: usize) -> Vec<Unprotected> {
    let candidates = view.vms.iter().filter(|(_, vm)| !vm.is_leased());
    let told = candidates.filter_map(|(id, vm)| {
        let record = &vm.record.as_ref()?.value;
        let is_meant = record.spec().ha == HaPolicy::Off || record.power() == PowerWanted::Off;
        let why = (!is_meant).then(|| why_not(view, *id, voters))??;
        let host = vm.placement.as_ref()?.value.host;
        Some(Unprotected { vm: *id, host, why })
    });
    told.collect()
}

/// Why a VM that executes, or may, is not leased, if it is not. With one host there is nothing to say.
pub fn why_not(view: &ClusterView, vm: VmId, voters: usize) -> Option<String> {
    let known = view.vms.get(&vm)?;
    let (record, placement) = (known.record.as_ref()?, known.placement.as_ref()?);
    let hosts = view
        .hosts
        .values()
        .filter(|host| host.record.is_some() && !host.is_witness());
    if hosts.count() < 2 || known.current_status().is_none() || runs_nowhere(known) || known.is_leased() {
        return None;
    }
    Some(match leasing(view, placement.value.host, &record.value, voters) {
        Leasing::Not(why) => why,
        // A claim is never changed: see the invariants of freezing.
        Leasing::Leased => "it could not be when it was started: it will be when it starts again".to_owned(),
    })
}

/// What is left of a host's lease, as far as its beats were heard.
pub fn lease_left_ms(view: &ClusterView, heard: &Heard, host: HostId) -> u64 {
    let (ago_ms, known) = (heard.ago_ms.get(&host), view.hosts.get(&host));
    let left = ago_ms.zip(known);
    left.map_or(0, |(ago_ms, known)| {
        terms::lease_ms(view, known).saturating_sub(*ago_ms)
    })
}

/// The leased VMs that execute, or may, by their hosts.
pub fn leased(view: &ClusterView) -> BTreeMap<HostId, Vec<VmId>> {
    let mut by_host = BTreeMap::<HostId, Vec<VmId>>::new();
    for (id, vm) in view.vms.iter().filter(|(_, vm)| vm.is_leased() && !runs_nowhere(vm)) {
        if let Some(placement) = &vm.placement {
            by_host.entry(placement.value.host).or_default().push(*id);
        }
    }
    by_host
}

/// Plays the loss of each host that has leased VMs: those with VMs that would fit nowhere.
pub fn losses(view: &ClusterView, heard: &Heard) -> Vec<Loss> {
    let (roll, loads) = (Roll::of(view, heard), Loads::of(view));
    let memory = |vm: &VmId| {
        let record = view.vms.get(vm).and_then(|vm| vm.record.as_ref());
        record.map_or(0, |record| record.value.spec().memory_mb)
    };
    let mut leased: Vec<_> = leased(view).into_iter().collect();
    leased.sort_by_key(|(host, vms)| (std::cmp::Reverse(vms.iter().map(memory).sum::<u64>()), *host));
    let played = leased.into_iter().take(MOST_LOSSES).map(|(host, vms)| Loss {
        host,
        homeless: homeless(view, &roll, loads.clone(), host, vms),
    });
    played.filter(|loss| !loss.homeless.is_empty()).collect()
}

/// In boot order, as a failover would go about it.
fn homeless(view: &ClusterView, roll: &Roll<'_>, mut loads: Loads, lost: HostId, mut vms: Vec<VmId>) -> Vec<VmId> {
    let record = |vm: &VmId| {
        view.vms
            .get(vm)
            .and_then(|vm| vm.record.as_ref())
            .map(|record| &record.value)
    };
    vms.sort_by_key(|vm| record(vm).map(boot::order));
    vms.retain(|vm| {
        let asked = roll.ask(&loads, *vm);
        let found = asked.and_then(|asked| asked.choose_where(|host| host != lost).map(|chosen| chosen.host));
        if let (Some(host), Some(record)) = (found, record(vm)) {
            loads.place(record, host);
        }
        found.is_none()
    });
    vms
}

#[cfg(test)]
mod tests;
