//! After a cold start hosts get their time to come.

use plasmavmc_core::liveness::BOOT_GRACE_MS;
use plasmavmc_types::HostId;

use super::Checker;
use crate::store::By;
use crate::world::World;

/// The word of a process that has died is fresh for two beats; then a round of the controller and a commit may take long.
const STILL_COUNTS_MS: u64 = 10_000;

impl Checker {
    /// A server has ended.
    pub fn note_end(&mut self, began_ms: u64, ended_ms: u64) {
        self.ended.push((began_ms, ended_ms));
    }
}

impl World {
    /// A host is given up. It had beaten in the life of a process that lives, or it was waited for.
    pub(super) fn check_cold(&mut self, by: By, host: HostId) {
        let By::Controller(site) = by else { return };
        let (Some(server), Some(last)) = (&self.sites[site].server, self.check.beats.get(&host).copied()) else {
            return;
        };
        let waited_ms = self.now_ms - server.began_ms;
        if self.store.leader != Some(site) || waited_ms >= self.sites[site].clock.real(BOOT_GRACE_MS) {
            return;
        }
        let mut living = self.sites.iter().filter_map(|site| site.server.as_ref());
        let mut ended = self.check.ended.iter();
        let is_recent = |ended_ms: u64| ended_ms + STILL_COUNTS_MS >= self.now_ms;
        let was_outlived = living.any(|server| server.began_ms <= last)
            || ended.any(|(began_ms, ended_ms)| *began_ms <= last && is_recent(*ended_ms));
        if !was_outlived {
            let name = self.host_name(host);
            self.violated(
                "time to come",
                format!("{name} was given up {waited_ms} ms after a cold start"),
            );
        }
    }
}
