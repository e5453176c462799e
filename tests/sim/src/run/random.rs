//! What a seed means: the cluster, its faults and its clients.

use plasmavmc_types::{HaPolicy, HostMode, Leaving, OperationKind, Timings, TimingsFields};

use crate::breaks::{Break, Breaks};
use crate::outside::Outside;
use crate::rng::Rng;
use crate::setup::{Delays, Disks, HostSetup, Setup, VmSetup};

const FAULTS_FROM_MS: u64 = 8000;
const HEAL_AT_MS: u64 = 70_000;
/// After the heal somebody leads again, whom an operator can tell.
const ACTIVE_AGAIN_MS: u64 = 15_000;
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

struct Faults<'a> {
    rng: &'a mut Rng,
    setup: &'a Setup,
    profile: Profile,
    events: &'a mut Vec<(u64, Outside)>,
}

impl Faults<'_> {
    fn push(&mut self, at_ms: u64, what: Outside) {
        self.events.push((at_ms.min(HEAL_AT_MS - 1), what));
    }

    /// How long it lasts: often about as long as it takes to give a host up.
    fn length(&mut self) -> u64 {
        let failover = self.setup.timings.failover_after_ms;
        match self.rng.below(4) {
            0 => self.rng.within((100, 3000)),
            1 | 2 => self.rng.within((failover - 2500, failover + 2500)),
            _ => self.rng.within((3000, 25_000)),
        }
    }

    fn site(&mut self) -> usize {
        let originals = self.setup.hosts.iter().filter(|host| host.clone_of.is_none()).count();
        self.rng.index(originals)
    }

    fn add(&mut self, at_ms: u64) {
        let (site, until_ms) = (self.site(), at_ms + self.length());
        match self.profile {
            Profile::Gaps => {
                let until_ms = until_ms.min(at_ms + 12_000);
                self.push(at_ms, Outside::CutAll);
                self.push(until_ms, Outside::MendAll);
            }
            Profile::Pauses if self.rng.percent(50) => {
                self.push(at_ms, Outside::Pause(site));
                self.push(until_ms, Outside::Resume(site));
            }
            Profile::Clone if self.rng.percent(30) => {
                let clone = self.setup.hosts.len() - 1;
                self.push(at_ms, Outside::PowerOn(clone, 200));
                self.cut_for(0, at_ms, until_ms);
            }
            Profile::Toggles if self.rng.percent(60) => {
                let vm = self.vm();
                self.push(at_ms, Outside::Ha(vm, HaPolicy::Off));
                let later = at_ms + self.rng.within((100, 4000));
                self.push(later, Outside::Ha(vm, HaPolicy::On));
                let cut_at = at_ms + self.rng.within((0, 2500));
                self.cut_for(site, cut_at, cut_at + 12_000);
            }
            Profile::Net | Profile::Clone | Profile::Toggles => self.net_fault(site, at_ms, until_ms),
            _ if self.rng.percent(50) => self.net_fault(site, at_ms, until_ms),
            _ => self.host_fault(site, at_ms, until_ms),
        }
    }

    fn cut_for(&mut self, site: usize, at_ms: u64, until_ms: u64) {
        self.push(at_ms, Outside::Cut(site));
        self.push(until_ms, Outside::Join(site));
    }

    fn net_fault(&mut self, site: usize, at_ms: u64, until_ms: u64) {
        let other = self.site();
        match self.rng.below(12) {
            0..=3 => self.cut_for(site, at_ms, until_ms),
            4 if site != other => {
                self.push(at_ms, Outside::CutOneWay(site, other));
                self.push(until_ms, Outside::Mend(site, other));
            }
            5 => {
                self.push(at_ms, Outside::CutAll);
                self.push(until_ms, Outside::MendAll);
            }
            6 | 7 => {
                self.push(at_ms, Outside::KillServer(site));
                self.push(until_ms, Outside::StartServer(site));
            }
            8 => self.push(at_ms, Outside::Lead(site)),
            9 => {
                let ms = self.rng.within((300, 3000));
                self.push(at_ms, Outside::Slow(site, ms));
                self.push(until_ms, Outside::Slow(site, 0));
            }
            10 => {
                let ms = self.rng.within((300, 4000));
                self.push(at_ms.saturating_sub(2000), Outside::Lag(site, ms));
                self.cut_for(site, at_ms, until_ms);
                self.push(until_ms + 6000, Outside::Lag(site, 0));
            }
            _ => {
                self.cut_for(site, at_ms, until_ms);
                let back = until_ms + self.rng.within((0, 2000));
                self.push(back, Outside::Lead(other));
            }
        }
    }

    fn host_fault(&mut self, site: usize, at_ms: u64, until_ms: u64) {
        match self.rng.below(13) {
            11 => {
                let leaving = if self.rng.percent(50) {
                    Leaving::Move
                } else {
                    Leaving::Stay
                };
                self.push(at_ms, Outside::Depart(site, leaving));
                if self.rng.percent(70) {
                    let goes = at_ms + self.rng.within((500, 12_000));
                    self.push(goes, Outside::PowerOff(site));
                    self.push(until_ms + 12_000, Outside::PowerOn(site, 1000));
                }
                // Once there is somebody to tell it to.
                let stays = Outside::Mode(site, HostMode::Active);
                self.events.push((HEAL_AT_MS + ACTIVE_AGAIN_MS, stays));
            }
            0..=3 => {
                self.push(at_ms, Outside::PowerOff(site));
                let boots = self.rng.within((500, 5000));
                self.push(until_ms, Outside::PowerOn(site, boots));
            }
            4 => self.push(at_ms, Outside::KillGuard(site)),
            5 => {
                self.push(at_ms, Outside::KillServer(site));
                self.push(at_ms + 5, Outside::KillGuard(site));
                self.push(until_ms, Outside::StartServer(site));
            }
            6 => self.push(at_ms, Outside::Reseed(site)),
            7 => {
                self.push(at_ms, Outside::ReadOnly(site, true));
                self.push(until_ms, Outside::ReadOnly(site, false));
            }
            8 if self.rng.percent(40) => {
                for site in 0..self.setup.hosts.iter().filter(|host| host.clone_of.is_none()).count() {
                    self.push(at_ms, Outside::PowerOff(site));
                    let boots = self.rng.within((500, 8000));
                    self.push(until_ms, Outside::PowerOn(site, boots));
                }
            }
            9 => {
                let mode = if self.rng.percent(50) {
                    HostMode::Draining
                } else {
                    HostMode::Maintenance
                };
                self.push(at_ms, Outside::Mode(site, mode));
                self.push(HEAL_AT_MS - 1, Outside::Mode(site, HostMode::Active));
            }
            10 => {
                let vm = self.vm();
                self.push(at_ms, Outside::GuestDies(vm));
            }
            _ => self.push(at_ms, Outside::Lead(site)),
        }
    }

    /// Longer or shorter; often somebody does not hear of it, or is not heard right after it.
    fn change_timings(&mut self, at_ms: u64) {
        let (beat_ms, freeze_after_ms, failover_after_ms) = match (self.profile, self.rng.below(6)) {
            // Where nobody may be given up, none that are shorter than a switch may be away.
            (Profile::Gaps, drawn) => {
                [(1000, 4000, 6000), (1000, 8000, 10_000), (2000, 8000, 12_000)][drawn as usize % 3]
            }
            (_, 0) => (1000, 4000, 6000),
            (_, 1) => (1000, 4000, 5000),
            (_, 2) => (500, 2500, 3500),
            (_, 3) => (500, 3000, 4000),
            (_, 4) => (1000, 12_000, 15_000),
            (_, _) => (3000, 9000, 12_000),
        };
        let fields = TimingsFields {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        };
        let Ok(timings) = Timings::new(fields) else { return };
        self.push(at_ms, Outside::Timings(timings));
        if self.profile != Profile::Gaps && self.rng.percent(60) {
            let site = self.site();
            let cut_at = (at_ms + self.rng.within((0, 3000))).saturating_sub(1000);
            let until_ms = cut_at + self.length().max(failover_after_ms);
            self.cut_for(site, cut_at, until_ms);
        }
    }

    fn vm(&mut self) -> u64 {
        self.rng.within((1, self.setup.vms.len() as u64))
    }

    fn call(&mut self, at_ms: u64) {
        let vm = self.vm();
        let what = match self.rng.below(9) {
            0 | 1 => Outside::Ask(
                vm,
                OperationKind::Stop {
                    force: self.rng.percent(50),
                },
            ),
            2 | 3 => Outside::Ask(vm, OperationKind::Start),
            4 => Outside::Delete(vm, true),
            5 => Outside::GuestPowersOff(vm),
            6 => Outside::GuestDies(vm),
            7 => Outside::Ha(vm, HaPolicy::Off),
            _ => Outside::Ha(vm, HaPolicy::Auto),
        };
        self.push(at_ms, what);
    }
}
