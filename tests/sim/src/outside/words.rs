//! What comes from outside, in the words of scenarios.

use plasmavmc_types::VmId;

use super::Outside;
use crate::ids;
use crate::world::World;

impl Outside {
    /// Whether a client calls, and is answered.
    pub fn is_call(&self) -> bool {
        matches!(
            self,
            Outside::Create(_)
                | Outside::Ha(..)
                | Outside::Mode(..)
                | Outside::Depart(..)
                | Outside::TakeOut(_)
                | Outside::Timings(_)
                | Outside::Ask(..)
                | Outside::Delete(..)
        )
    }
}

impl World {
    pub fn told(&self, what: &Outside) -> String {
        let vm = |number: &u64| self.vm_name(number_of(*number));
        let host = |site: &usize| self.sites[*site].name.clone();
        match what {
            Outside::PowerOff(site) => format!("power-off {}", host(site)),
            Outside::PowerOn(site, _) => format!("power-on {}", host(site)),
            Outside::KillServer(site) => format!("kill-server {}", host(site)),
            Outside::StartServer(site) => format!("start-server {}", host(site)),
            Outside::KillGuard(site) => format!("kill-guard {}", host(site)),
            Outside::Pause(site) => format!("pause {}", host(site)),
            Outside::Resume(site) => format!("resume {}", host(site)),
            Outside::Cut(site) => format!("cut {}", host(site)),
            Outside::Join(site) => format!("join {}", host(site)),
            Outside::CutOneWay(from, to) => format!("cut-one-way {} {}", host(from), host(to)),
            Outside::Mend(from, to) => format!("mend {} {}", host(from), host(to)),
            Outside::CutAll => "cut-all".to_owned(),
            Outside::MendAll => "mend-all".to_owned(),
            Outside::Slow(site, ms) => format!("slow-store {} {ms} ms", host(site)),
            Outside::Lag(site, ms) => format!("lag {} {ms} ms", host(site)),
            Outside::ReadOnly(site, true) => format!("read-only {}", host(site)),
            Outside::ReadOnly(site, false) => format!("writable {}", host(site)),
            Outside::Lead(site) => format!("lead {}", host(site)),
            Outside::Reseed(site) => format!("reseed {}", host(site)),
            Outside::Create(number) => format!("create {}", vm(number)),
            Outside::Ask(number, kind) => {
                format!("{kind} {}{}", vm(number), if kind.is_forced() { " force" } else { "" })
            }
            Outside::Delete(number, force) => format!("delete {}{}", vm(number), if *force { " force" } else { "" }),
            Outside::Ha(number, policy) => format!("ha {} {policy:?}", vm(number)).to_lowercase(),
            Outside::Mode(site, mode) => format!("{mode:?} {}", host(site)).to_lowercase(),
            Outside::Depart(site, leaving) => format!("depart {} {leaving:?}", host(site)).to_lowercase(),
            Outside::GuestDies(number) => format!("guest-dies {}", vm(number)),
            Outside::GuestPowersOff(number) => format!("guest-powers-off {}", vm(number)),
            Outside::Broken(number, site, true) => format!("broken {} {}", vm(number), host(site)),
            Outside::Broken(number, site, false) => format!("mended {} {}", vm(number), host(site)),
            Outside::TakeOut(site) => format!("take-out {}", host(site)),
            Outside::Timings(timings) => {
                let seconds = |ms: u64| format!("{}.{}s", ms / 1000, ms % 1000 / 100);
                let (beat, freeze, failover) = (timings.beat_ms, timings.freeze_after_ms, timings.failover_after_ms);
                let [beat, freeze, failover] = [beat, freeze, failover].map(seconds);
                format!("timings beat={beat} freeze={freeze} failover={failover}")
            }
            Outside::Heal => "heal".to_owned(),
        }
    }
}

fn number_of(number: u64) -> VmId {
    ids::vm(number)
}
