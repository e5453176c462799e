//! What goes wrong in a life, and what its clients and operators ask for.

use plasmavmc_types::{HaPolicy, HostMode, Leaving, OperationKind, Timings, TimingsFields};

use super::{HEAL_AT_MS, Profile};
use crate::outside::Outside;
use crate::rng::Rng;
use crate::setup::Setup;

/// After the heal somebody leads again, whom an operator can tell.
const ACTIVE_AGAIN_MS: u64 = 15_000;

pub(super) struct Faults<'a> {
    pub rng: &'a mut Rng,
    pub setup: &'a Setup,
    pub profile: Profile,
    pub events: &'a mut Vec<(u64, Outside)>,
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

    pub fn add(&mut self, at_ms: u64) {
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
    pub fn change_timings(&mut self, at_ms: u64) {
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

    pub fn call(&mut self, at_ms: u64) {
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
