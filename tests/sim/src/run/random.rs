//! What a seed means: the cluster, its faults and its clients.

mod faults;

use plasmavmc_types::{HaPolicy, Timings, TimingsFields};

use crate::breaks::{Break, Breaks};
use crate::outside::Outside;
use crate::rng::Rng;
use crate::setup::{Delays, Disks, HostSetup, Setup, VmSetup};
use faults::Faults;

const FAULTS_FROM_MS: u64 = 8000;
const HEAL_AT_MS: u64 = 70_000;
const REST_WITHIN_MS: u64 = 120_000;

/// What kind of life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Everything that may happen.
    Mixed,
    /// VMs without disks, so that nothing but the leases holds; the network and the servers fail.
    Net,
    /// Hosts stand still as a whole; only the locks of the disks hold.
    Pauses,
    /// Nothing fails but the switch: nobody may be given up.
    Gaps,
    /// A machine with a copy of a host's disk comes up.
    Clone,
    /// HA is switched off and on while hosts come and go.
    Toggles,
    /// Guests power off and die, and clients call.
    Calls,
}

impl Profile {
    pub fn of(seed: u64, broken: Option<Break>) -> Self {
        let usual = match seed % 10 {
            0..=2 => Profile::Mixed,
            3..=5 => Profile::Net,
            6 => Profile::Pauses,
            7 => Profile::Gaps,
            8 => Profile::Toggles,
            _ if seed % 20 == 9 => Profile::Clone,
            _ => Profile::Calls,
        };
        match broken {
            None => usual,
            Some(Break::FenceAfterGap | Break::FenceWithoutQuorum) => Profile::Gaps,
            Some(Break::SecondInstanceEarly | Break::StrangerAfterFence | Break::ClaimWithoutAttempt) => Profile::Clone,
            Some(Break::LeaseWithdrawn) => Profile::Toggles,
            Some(Break::PowerOffMeansGone) => Profile::Calls,
            Some(_) if usual == Profile::Gaps || usual == Profile::Pauses => Profile::Net,
            Some(_) => usual,
        }
    }
}

/// Whether no host and no server fails in it: then nobody may be fenced.
pub fn all_are_well(broken: Option<Break>, seed: u64) -> bool {
    Profile::of(seed, broken) == Profile::Gaps
}

/// The cluster of a seed, and what happens to it from outside.
pub fn setup_of(seed: u64, broken: Option<Break>) -> (Setup, Vec<(u64, Outside)>) {
    let profile = Profile::of(seed, broken);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut setup = Setup {
        seed,
        hosts: hosts(profile, &mut rng),
        vms: vms(profile, &mut rng),
        timings: timings(profile, &mut rng),
        delays: delays(profile, broken, &mut rng),
        breaks: broken.map(Breaks::of).unwrap_or_default(),
        heal_at_ms: HEAL_AT_MS,
        rest_within_ms: REST_WITHIN_MS,
    };
    let mut events = Vec::new();
    for (index, vm) in setup.vms.iter_mut().enumerate() {
        vm.created_ms = rng.within((1500, 6000));
        events.push((vm.created_ms, Outside::Create(index as u64 + 1)));
    }
    let count = if profile == Profile::Gaps {
        3
    } else {
        rng.within((2, 9))
    };
    for number in 0..count {
        // Apart from each other: two that follow at once look like one in which somebody was heard.
        let at_ms = match profile {
            Profile::Gaps => FAULTS_FROM_MS + number * 20_000 + rng.within((0, 5000)),
            _ => rng.within((FAULTS_FROM_MS, HEAL_AT_MS - 6000)),
        };
        Faults {
            rng: &mut rng,
            setup: &setup,
            profile,
            events: &mut events,
        }
        .add(at_ms);
    }
    let changes = if rng.percent(40) { rng.within((1, 4)) } else { 0 };
    for _ in 0..changes {
        let at_ms = rng.within((FAULTS_FROM_MS - 3000, HEAL_AT_MS - 2000));
        Faults {
            rng: &mut rng,
            setup: &setup,
            profile,
            events: &mut events,
        }
        .change_timings(at_ms);
    }
    if profile != Profile::Gaps {
        let calls = if profile == Profile::Calls { 10 } else { 3 };
        for _ in 0..rng.within((0, calls)) {
            let at_ms = rng.within((FAULTS_FROM_MS - 2000, HEAL_AT_MS - 2000));
            Faults {
                rng: &mut rng,
                setup: &setup,
                profile,
                events: &mut events,
            }
            .call(at_ms);
        }
    }
    events.push((HEAL_AT_MS, Outside::Heal));
    (setup, events)
}

fn hosts(profile: Profile, rng: &mut Rng) -> Vec<HostSetup> {
    let count = rng.within((3, 5));
    let with_witness = rng.percent(25) || count == 4;
    let mut hosts: Vec<HostSetup> = (1..=count)
        .map(|number| HostSetup {
            rate_ppm: rng.within((950_000, 1_050_000)),
            wall_skew_ms: rng.within((0, 3000)),
            ..HostSetup::new(&format!("h{number}"))
        })
        .collect();
    if with_witness && let Some(last) = hosts.last_mut() {
        last.witness = true;
        last.name = "witness".to_owned();
    }
    if profile == Profile::Clone {
        let clone = HostSetup {
            clone_of: Some(0),
            voter: false,
            ..HostSetup::new("clone-of-h1")
        };
        hosts.push(clone);
    }
    hosts
}

fn vms(profile: Profile, rng: &mut Rng) -> Vec<VmSetup> {
    let count = rng.within((1, 5));
    (0..count)
        .map(|number| {
            let mut vm = VmSetup::new(&format!("vm{}", number + 1));
            vm.disks = match profile {
                Profile::Net | Profile::Clone | Profile::Toggles => Disks::None,
                Profile::Pauses => Disks::Shared,
                _ => *rng
                    .pick(&[Disks::None, Disks::Shared, Disks::None, Disks::Local])
                    .unwrap_or(&Disks::None),
            };
            vm.memory_mb = rng.within((256, 1500));
            vm.priority = u8::try_from(rng.within((50, 150))).unwrap_or(100);
            if matches!(profile, Profile::Mixed | Profile::Calls | Profile::Clone) && rng.percent(15) {
                vm.ha = HaPolicy::Off;
            }
            vm
        })
        .collect()
}

fn timings(profile: Profile, rng: &mut Rng) -> Timings {
    let mut fields: TimingsFields = *Timings::default();
    // With the least margin the clocks may be as far apart as is allowed, and not more.
    if profile != Profile::Gaps && rng.percent(30) {
        fields.failover_after_ms = 5000;
    }
    if rng.percent(15) {
        (fields.beat_ms, fields.freeze_after_ms, fields.failover_after_ms) = (500, 3000, 4000);
    }
    Timings::new(fields).unwrap_or_default()
}

fn delays(profile: Profile, broken: Option<Break>, rng: &mut Rng) -> Delays {
    let mut delays = Delays::random();
    match rng.below(4) {
        0 => (delays.late_percent, delays.late) = (12, (200, 4500)),
        1 => (delays.launch, delays.commit) = ((10, 100), (2, 300)),
        2 => (delays.net, delays.launch) = ((1, 120), (10, 200)),
        // Something on the way holds messages for longer than it takes to give a host up.
        _ => (delays.late_percent, delays.late) = (3, (200, 12_000)),
    }
    if matches!(broken, Some(Break::ClaimWithoutSession | Break::OpenWithoutEpoch)) {
        (delays.late_percent, delays.late) = (30, (200, 12_000));
    }
    if profile == Profile::Gaps {
        (delays.late_percent, delays.loss_percent, delays.commit) = (0, 0, (2, 30));
    }
    delays
}
