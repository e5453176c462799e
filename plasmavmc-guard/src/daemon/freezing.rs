//! Keeping the deadline: who is stopped when it passes, and who may go on.
//!
//! ```text
//!                 deadline passed: SIGSTOP
//!   executes -----------------------------------------------> frozen ---+ every 100 ms: SIGSTOP again and
//!      ^                                                       |  ^ |   | cgroup.freeze, whatever the deadline
//!      |   Thaw, with the deadline ahead at that moment        |  | +---+
//!      +-------------------------------------------------------+  |
//!                                                                 |
//!   adopted from a guard that died -------------------------------+
//! ```
//!
//! Stopping comes first, for all, and everything that merely reports it after that. The cgroup is the second
//! hand and comes with the next tick: a process that a cgroup froze before it took its signal looks like one that
//! sleeps, and who looks for a stopped one (state `T`) would not find it. An extended lease thaws
//! nothing: whether a child may go on is asked of the cluster, by whoever orders the thaw.
//!
//! Must never happen: a SIGCONT from anywhere but [`Guard::thaw`]; one sent without a look at the clock right
//! before it; a leased child that executes past the deadline because something else was served first.

use std::os::fd::AsFd;
use std::time::Duration;

use plasmavmc_types::{Epoch, VmId};
use rustix::time::{ClockId, clock_gettime};

use super::Guard;
use super::child::{Child, Reaped, reap};
use crate::deadman::{StaleEpoch, TICK_MS};
use crate::journal::say;
use crate::wire::{Event, Held, Key, Refusal};
use crate::{cgroup, records, sentinel};

/// A lease is seconds long. One that ends later than this was counted in another unit or by another clock, and
/// would never end.
const LONGEST_LEASE_MS: u64 = 60 * 60 * 1000;

impl From<StaleEpoch> for Refusal {
    fn from(StaleEpoch { held }: StaleEpoch) -> Self {
        Self::StaleEpoch { held }
    }
}

/// The clock of deadlines: it also counts while a host sleeps.
pub(super) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
    whole.saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
}

impl Guard {
    /// Freezes what has no lease any more, and stops again what is frozen. Cheap when there is nothing to do: it
    /// is called before and after everything else.
    pub(super) fn keep_deadline(&mut self) {
        let now_ms = now_ms();
        if self.deadman.is_over(now_ms) {
            self.freeze_all(now_ms);
        }
        if now_ms >= self.next_tick_ms {
            self.next_tick_ms = now_ms.saturating_add(TICK_MS);
            for child in self.children.values().filter(|child| child.is_frozen()) {
                stop(child);
                freeze_cgroup(child);
            }
            self.post_sentinel();
        }
    }

    /// Sees to it that one stands there for what was adopted; where it cannot be had, that is tried at every tick.
    fn post_sentinel(&mut self) {
        let adopted = self.children.values().filter(|child| child.needs_sentinel());
        let mut pidfds = adopted.filter_map(Child::pidfd).map(AsFd::as_fd).peekable();
        if self.sentinel.is_some() || pidfds.peek().is_none() {
            return;
        }
        match sentinel::start(pidfds) {
            Ok(sentinel) => self.sentinel = Some(sentinel),
            Err(error) => say(&format!("no sentinel for what was adopted: {error}")),
        }
    }

    /// It ended, which it should not.
    pub(super) fn replace_sentinel(&mut self) {
        let Some(sentinel) = &self.sentinel else { return };
        if matches!(reap(sentinel.as_fd()), Reaped::NotYet) {
            return;
        }
        say("its sentinel ended; another takes its place");
        self.sentinel = None;
        self.post_sentinel();
    }

    fn freeze_all(&mut self, now_ms: u64) {
        let mut frozen: Vec<VmId> = Vec::new();
        for (vm, child) in self.children.iter_mut().filter(|(_, child)| child.is_freezable()) {
            child.set_frozen(true);
            stop(child);
            frozen.push(*vm);
        }
        for child in frozen.iter().filter_map(|vm| self.children.get(vm)) {
            record(child);
            self.clients.publish(&Event::Frozen(child.held()));
        }
        if !frozen.is_empty() {
            self.next_tick_ms = now_ms.saturating_add(TICK_MS);
            say(&format!("the lease is over: {} children are frozen", frozen.len()));
        }
    }

    /// How long the loop may sleep for the deadline's sake.
    pub(super) fn until_next_tick(&self, now_ms: u64) -> Option<Duration> {
        let leased = self.children.values().any(Child::is_leased);
        let frozen = self.children.values().any(Child::is_frozen);
        // It passed since the last look: the next one is due now, not at a tick.
        if self.deadman.is_over(now_ms) && self.children.values().any(Child::is_freezable) {
            return Some(Duration::ZERO);
        }
        let sleep_ms = self.deadman.next_tick_ms(now_ms, leased, frozen)?;
        // The tick is counted from the last one, however often the loop turned since.
        let tick_ms = match frozen {
            true => self.next_tick_ms.saturating_sub(now_ms),
            false => u64::MAX,
        };
        Some(Duration::from_millis(sleep_ms.min(tick_ms)))
    }

    pub(super) fn extend_lease(&mut self, epoch: Epoch, until_ms: u64) -> Result<(), Refusal> {
        let ahead_ms = until_ms.saturating_sub(now_ms());
        if ahead_ms > LONGEST_LEASE_MS {
            let problem =
                format!("a lease of {ahead_ms} ms is longer than {LONGEST_LEASE_MS} ms: which clock is it of?");
            let problems = vec![problem];
            return Err(Refusal::Invalid { problems });
        }
        Ok(self.deadman.extend(epoch, until_ms)?)
    }

    /// Refuses what may only be done with the deadline ahead.
    pub(super) fn require_lease(&self) -> Result<(), Refusal> {
        let now_ms = now_ms();
        if self.deadman.may_thaw(now_ms) {
            return Ok(());
        }
        if self.deadman.epoch().is_none() {
            return Err(Refusal::NoLease);
        }
        let over_for_ms = now_ms.saturating_sub(self.deadman.until_ms());
        Err(Refusal::LeaseOver { over_for_ms })
    }

    pub(super) fn thaw(&mut self, key: Key, epoch: Epoch) -> Result<Held, Refusal> {
        let child = self.child(key)?;
        if child.is_frozen() {
            self.require_lease()?;
            if let Some(held) = self.deadman.epoch().filter(|held| *held != epoch) {
                return Err(Refusal::StaleEpoch { held });
            }
            if child.needs_sentinel() && self.sentinel.is_none() {
                let problem = "no sentinel would stop what was adopted if the guard died".to_owned();
                return Err(Refusal::Failed { problem });
            }
            self.let_go(child)?;
        }
        let Some(child) = self.children.get_mut(&key.vm) else {
            return Err(Refusal::Unknown { key, instead: None });
        };
        if child.is_frozen() {
            child.set_frozen(false);
            record(child);
        }
        Ok(child.held())
    }

    fn let_go(&self, child: &Child) -> Result<(), Refusal> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Refusal::Failed {
            problem: format!("{what} of pid {}: {error}", child.record.pid),
        };
        // While it is stopped by signal too, opening its cgroup lets nothing run.
        let opened = match &child.record.cgroup {
            Some(mark) => cgroup::set_frozen(mark, false).map_err(|error| failed("the cgroup", &error)),
            None => Ok(false),
        };
        let outcome = opened
            // That may have taken a while: the last look is the one right before the signal.
            .and_then(|_| self.require_lease())
            .and_then(|()| child.go_on().map_err(|errno| failed("SIGCONT", &errno)));
        if outcome.is_err() {
            freeze_cgroup(child);
        }
        outcome
    }
}

/// What cannot be stopped is tried again at the next tick.
pub(super) fn stop(child: &Child) {
    if let Err(errno) = child.stop() {
        let vm = child.record.key.vm;
        say(&format!(
            "VM {vm} could not be stopped (pid {}): {errno}",
            child.record.pid
        ));
    }
}

/// A second hand on it. The signal alone does; so where there is none it is not worth a word.
pub(super) fn freeze_cgroup(child: &Child) {
    if let Some(mark) = &child.record.cgroup
        && let Err(error) = cgroup::set_frozen(mark, true)
    {
        say(&format!("the cgroup {} could not be frozen: {error}", mark.folder));
    }
}

/// A guard after this one takes it for frozen in any case; whoever reads the records should see it too.
pub(super) fn record(child: &Child) {
    if let Err(error) = records::write(&child.record) {
        let vm = child.record.key.vm;
        say(&format!("whether VM {vm} is frozen could not be recorded: {error}"));
    }
}
