//! Which host a VM fits on, and in words and numbers why not on the others.
//!
//! First every host is asked whether it can take the VM at all; then those that can are ordered, by how empty or
//! how full they would be. What counts is what was placed and is wanted on, by specification: a VM that is still
//! starting uses nothing yet, and would be forgotten otherwise.
//!
//! Must never: choose a host that has any reason against it, or choose differently for the same view.

mod fit;
mod load;

use plasmavmc_types::{HostId, VmId, VmRecord};

use crate::view::{ClusterView, Heard, PlacementMode};

pub use load::Loads;

/// How many virtual processors a host takes for each that it has: they are shared, memory is not.
pub const VCPU_OVERCOMMIT: u64 = 4;

/// What a host says to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub host: HostId,
    pub host_name: String,
    /// Each reason against it; none: the VM fits.
    pub reasons: Vec<String>,
    /// It may be gone: taken only where nothing else fits.
    pub is_doubtful: bool,
    /// Among those that fit, the highest is taken.
    pub score: i64,
}

impl Verdict {
    pub fn fits(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What every host says to a VM now, in the order of their names.
pub fn verdicts(view: &ClusterView, heard: &Heard, vm: VmId) -> Vec<Verdict> {
    verdicts_with(view, heard, &Roll::of(view), &Loads::of(view), vm)
}

/// The host to take; `None`: there is none that fits.
pub fn choose(verdicts: &[Verdict]) -> Option<&Verdict> {
    choose_where(verdicts, |_| true)
}

/// As [`choose`], among the hosts that pass.
pub fn choose_where(verdicts: &[Verdict], passes: impl Fn(HostId) -> bool) -> Option<&Verdict> {
    let fitting = verdicts.iter().filter(|verdict| verdict.fits() && passes(verdict.host));
    // `max_by_key` takes the last of equals: the order of names is turned round, so that the first one wins.
    fitting
        .rev()
        .max_by_key(|verdict| (!verdict.is_doubtful, verdict.score))
}

/// All hosts in the order of their names, put together once for many VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roll(Vec<(String, HostId)>);

impl Roll {
    pub fn of(view: &ClusterView) -> Self {
        let mut hosts: Vec<(String, HostId)> = view.hosts.keys().map(|host| (view.host_name(*host), *host)).collect();
        hosts.sort();
        Self(hosts)
    }
}

/// As [`verdicts`], with what a plan has placed on the way.
pub fn verdicts_with(view: &ClusterView, heard: &Heard, roll: &Roll, loads: &Loads, vm: VmId) -> Vec<Verdict> {
    let Some(record) = view.vms.get(&vm).and_then(|vm| vm.record.as_ref()) else {
        return Vec::new();
    };
    let hosts = roll.0.iter();
    hosts
        .map(|(name, host)| verdict(view, heard, loads, &record.value, (name, *host)))
        .collect()
}

fn verdict(
    view: &ClusterView,
    heard: &Heard,
    loads: &Loads,
    record: &VmRecord,
    (name, host): (&str, HostId),
) -> Verdict {
    Verdict {
        host,
        host_name: name.to_owned(),
        reasons: fit::reasons(view, heard, loads, record, host),
        is_doubtful: heard.is_doubtful(host, &view.timings),
        score: score(view, loads, record, host),
    }
}

/// Millionths of the memory that would stay free, and then the same of the processors.
fn score(view: &ClusterView, loads: &Loads, record: &VmRecord, host: HostId) -> i64 {
    let Some(beat) = view.hosts.get(&host).and_then(|host| host.beat.as_ref()) else {
        return 0;
    };
    let load = loads.without(host, record.id());
    let free = |capacity: u64, used: u64, needed: u64| {
        let left = i128::from(capacity) - i128::from(used) - i128::from(needed);
        left.clamp(0, i128::from(capacity)) * 1_000_000 / i128::from(capacity.max(1))
    };
    let capacity = beat.value.capacity;
    let memory = free(capacity.memory_mb, load.memory_mb, record.spec().memory_mb);
    let vcpus = u64::from(capacity.vcpus) * VCPU_OVERCOMMIT;
    let processors = free(vcpus, load.vcpus, u64::from(record.spec().vcpus));
    let emptiness = i64::try_from(memory * 3 + processors).unwrap_or(i64::MAX);
    match view.placement_mode {
        PlacementMode::Spread => emptiness,
        PlacementMode::Pack => 4_000_000 - emptiness,
    }
}

/// Why a VM fits nowhere, in one sentence.
pub fn why_nowhere(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return "no host has joined the cluster yet".to_owned();
    }
    let each = verdicts
        .iter()
        .map(|verdict| format!("{}: {}", verdict.host_name, verdict.reasons.join(", ")));
    format!("no host fits: {}", each.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
