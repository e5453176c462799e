//! Which host a VM fits on, and in words and numbers why not on the others.
//!
//! First every host is asked whether it can take the VM at all; then those that can are ordered, by how many of the
//! VM's preferences they meet, and then by how empty or how full they would be. What counts is what was placed and is wanted on, by specification: a VM that is still
//! starting uses nothing yet, and would be forgotten otherwise.
//!
//! Must never: choose a host that has any reason against it, or choose differently for the same view.

mod fit;
mod load;

use plasmavmc_types::{HostId, VmId};

use crate::view::{ClusterView, Heard, PlacementMode};

pub use load::Loads;

use fit::{Asking, Seat};

/// How many virtual processors a host takes for each that it has: they are shared, memory is not.
pub const VCPU_OVERCOMMIT: u64 = 4;

/// So many hosts are named where it is said what each of them has against a VM.
const NAMED: usize = 16;

/// What a host says to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub host: HostId,
    pub host_name: String,
    /// Each reason against it; none: the VM fits.
    pub reasons: Vec<String>,
    /// It may be gone: taken only where nothing else fits.
    pub is_doubtful: bool,
    /// How many preferences of the VM it does not meet: the fewest are taken first.
    pub dislikes: usize,
    /// Among those that fit as well, the highest is taken.
    pub score: i64,
}

impl Verdict {
    pub fn fits(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What every host says to a VM now, in the order of their names.
pub fn verdicts(view: &ClusterView, heard: &Heard, vm: VmId) -> Vec<Verdict> {
    let (roll, loads) = (Roll::of(view, heard), Loads::of(view));
    let asked = roll.ask(&loads, vm);
    asked.map_or_else(Vec::new, |asked| asked.verdicts().collect())
}

/// All hosts in the order of their names, put together once for many VMs.
#[derive(Debug)]
pub struct Roll<'a> {
    view: &'a ClusterView,
    seats: Vec<Seat<'a>>,
}

impl<'a> Roll<'a> {
    pub fn of(view: &'a ClusterView, heard: &Heard) -> Self {
        let hosts = view.hosts.iter();
        let mut seats: Vec<Seat<'a>> = hosts.map(|(id, known)| Seat::of(view, heard, *id, known)).collect();
        seats.sort_by(|one, other| (&one.name, one.host).cmp(&(&other.name, other.host)));
        Self { view, seats }
    }

    /// Asks all hosts to take a VM, given what they carry.
    pub fn ask<'p>(&'p self, loads: &'p Loads, vm: VmId) -> Option<Asked<'p>> {
        let record = self.view.vms.get(&vm)?.record.as_ref()?;
        Some(Asked {
            seats: &self.seats,
            mode: self.view.placement_mode,
            asking: Asking::of(self.view, loads, &record.value),
        })
    }
}

/// A VM, and the hosts that are asked to take it.
#[derive(Debug)]
pub struct Asked<'p> {
    seats: &'p [Seat<'p>],
    mode: PlacementMode,
    asking: Asking<'p>,
}

impl<'p> Asked<'p> {
    /// The host to take; `None`: there is none that fits.
    pub fn choose(&self) -> Option<Chosen<'p>> {
        self.choose_where(|_| true)
    }

    /// As [`Self::choose`], among the hosts that pass.
    pub fn choose_where(&self, passes: impl Fn(HostId) -> bool) -> Option<Chosen<'p>> {
        let fits = |seat: &&Seat<'_>| passes(seat.host) && self.asking.fits(seat);
        // `max_by_key` takes the last of equals: the order of names is turned round, so that the first one wins.
        let fitting = self.seats.iter().filter(fits).rev();
        let best = fitting.max_by_key(|seat| {
            let dislikes = std::cmp::Reverse(self.asking.dislikes(seat));
            (!seat.is_doubtful, dislikes, self.score(seat))
        })?;
        Some(Chosen {
            host: best.host,
            name: &best.name,
            is_doubtful: best.is_doubtful,
        })
    }

    /// What each of them says, in words, in the order of their names.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.seats.iter().map(|seat| {
            let mut reasons = Vec::new();
            self.asking
                .against(seat, &mut |reason| reasons.push(reason.to_string()));
            Verdict {
                host: seat.host,
                host_name: seat.name.clone(),
                reasons,
                is_doubtful: seat.is_doubtful,
                dislikes: self.asking.dislikes(seat),
                score: self.score(seat),
            }
        })
    }

    /// Why the VM fits nowhere, in one sentence.
    pub fn why_nowhere(&self) -> String {
        let each = self
            .verdicts()
            .take(NAMED)
            .map(|verdict| format!("{}: {}", verdict.host_name, verdict.reasons.join(", ")));
        let each = each.collect::<Vec<_>>().join("; ");
        match self.seats.len() {
            0 => "no host has joined the cluster yet".to_owned(),
            hosts if hosts <= NAMED => format!("no host fits: {each}"),
            hosts => format!("no host fits: {each}; and {} more", hosts - NAMED),
        }
    }

    /// Millionths of the memory that would stay free, and then the same of the processors.
    fn score(&self, seat: &Seat<'_>) -> i64 {
        let Some(beat) = seat.beat else { return 0 };
        let (load, spec) = (self.asking.besides.on(seat.host), self.asking.record.spec());
        let free = |capacity: u64, used: u64, needed: u64| {
            let left = capacity.saturating_sub(used).saturating_sub(needed);
            left.saturating_mul(1_000_000) / capacity.max(1)
        };
        let memory = free(beat.capacity.memory_mb, load.memory_mb, spec.memory_mb);
        let vcpus = u64::from(beat.capacity.vcpus) * VCPU_OVERCOMMIT;
        let processors = free(vcpus, load.vcpus, u64::from(spec.vcpus));
        let emptiness = i64::try_from(memory * 3 + processors).unwrap_or(i64::MAX);
        match self.mode {
            PlacementMode::Spread => emptiness,
            PlacementMode::Pack => 4_000_000 - emptiness,
        }
    }
}

/// The host that a VM goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen<'p> {
    pub host: HostId,
    pub name: &'p str,
    /// It may be gone.
    pub is_doubtful: bool,
}

#[cfg(test)]
mod tests;
