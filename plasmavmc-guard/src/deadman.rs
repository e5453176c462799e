//! Until when leased children may execute: the rule alone, without clock, signal or process.
//!
//! ```text
//!              Lease: same epoch, later            now >= until
//!   expired ----------------------------> ahead ----------------> expired: every leased child is stopped
//!      ^                                    |
//!      +--- Lease: higher epoch, earlier ---+     (an end that is past already is a lease that is over)
//! ```
//!
//! Times are milliseconds of CLOCK_BOOTTIME, given by the caller, so that a simulator runs what ships.
//!
//! Must never happen: a deadline moved by a session that a later one replaced; a deadline that comes nearer
//! within a session, since children were thawed on the word of the later one; one that is ahead without a
//! lease of this boot. What is ahead says that running is permitted; it thaws nothing by itself.

use plasmavmc_types::Epoch;
use serde::{Deserialize, Serialize};

/// How often what is frozen is stopped again, so that a foreign SIGCONT does not last.
pub const TICK_MS: u64 = 100;

/// The deadline and the session it is of. The default one is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadman {
    epoch: Option<Epoch>,
    until_ms: u64,
}

/// A lease of a session that another one replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is of an earlier session: the one held is of epoch {held}")]
pub struct StaleEpoch {
    pub held: Epoch,
}

impl Deadman {
    /// A lease of a session. A higher epoch replaces what is held, the same one only ever extends it, a lower
    /// one is refused.
    pub fn extend(&mut self, epoch: Epoch, until_ms: u64) -> Result<(), StaleEpoch> {
        match self.epoch {
            Some(held) if epoch < held => return Err(StaleEpoch { held }),
            Some(held) if epoch == held => self.until_ms = self.until_ms.max(until_ms),
            Some(_) | None => {
                self.epoch = Some(epoch);
                self.until_ms = until_ms;
            }
        }
        Ok(())
    }

    /// Whether what is leased must stand still.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }

    /// Whether a frozen child may be let go at this moment: the deadline is strictly ahead.
    pub fn may_thaw(&self, now_ms: u64) -> bool {
        !self.is_over(now_ms)
    }

    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// The session that the deadline is of; `None` before the first lease.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// How long the loop may sleep, given whether it holds leased children that live and whether any of them is
    /// frozen. `None`: as long as it likes.
    pub fn next_tick_ms(&self, now_ms: u64, leased: bool, frozen: bool) -> Option<u64> {
        if !leased && !frozen {
            return None;
        }
        let ahead_ms = self.until_ms.saturating_sub(now_ms);
        Some(match (ahead_ms, frozen) {
            (0, _) => TICK_MS,
            (_, true) => ahead_ms.min(TICK_MS),
            (_, false) => ahead_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    fn lease(epoch: u64, until_ms: u64) -> Deadman {
        let mut deadman = Deadman::default();
        deadman
            .extend(Epoch::from_raw(epoch), until_ms)
            .expect("nothing is held yet");
        deadman
    }

    #[test]
    fn without_a_lease_it_is_over_at_every_moment() {
        let deadman = Deadman::default();
        for now_ms in [0, 1, 4_000, u64::MAX] {
            assert!(deadman.is_over(now_ms) && !deadman.may_thaw(now_ms));
        }
        assert_eq!((deadman.epoch(), deadman.until_ms()), (None, 0));
    }

    #[test]
    fn a_lease_replaces_extends_or_is_refused() {
        // Held is epoch 5 until 1000; then comes this one, and this is held afterwards.
        let cases = [
            ((5, 2000), Ok(()), (5, 2000)),
            ((5, 1000), Ok(()), (5, 1000)),
            ((5, 999), Ok(()), (5, 1000)),
            ((6, 2000), Ok(()), (6, 2000)),
            ((6, 10), Ok(()), (6, 10)),
            ((4, 2000), Err(5), (5, 1000)),
            ((0, u64::MAX), Err(5), (5, 1000)),
        ];
        for ((epoch, until_ms), expected, held) in cases {
            let mut deadman = lease(5, 1000);
            let outcome = deadman.extend(Epoch::from_raw(epoch), until_ms);
            let expected = expected.map_err(|held| StaleEpoch {
                held: Epoch::from_raw(held),
            });
            assert_eq!(outcome, expected, "epoch {epoch} until {until_ms}");
            assert_eq!(deadman, lease(held.0, held.1), "epoch {epoch} until {until_ms}");
        }
    }

    #[test]
    fn it_is_over_from_the_very_moment_on() {
        for (now_ms, over) in [(0, false), (999, false), (1000, true), (1001, true)] {
            let deadman = lease(1, 1000);
            assert_eq!(deadman.is_over(now_ms), over, "at {now_ms}");
            assert_eq!(deadman.may_thaw(now_ms), !over, "at {now_ms}");
        }
    }

    #[test]
    fn the_loop_sleeps_until_something_is_to_be_done() {
        let cases = [
            // now, leased, frozen, sleep
            (0, false, false, None),
            (5000, false, false, None),
            (0, true, false, Some(1000)),
            (990, true, false, Some(10)),
            (1000, true, false, Some(TICK_MS)),
            (0, true, true, Some(TICK_MS)),
            (990, true, true, Some(10)),
            (5000, true, true, Some(TICK_MS)),
        ];
        for (now_ms, leased, frozen, expected) in cases {
            let sleep_ms = lease(1, 1000).next_tick_ms(now_ms, leased, frozen);
            assert_eq!(sleep_ms, expected, "at {now_ms}, leased {leased}, frozen {frozen}");
        }
    }

    /// Whatever sessions say in whatever order: the epoch never falls, the deadline falls with a new epoch
    /// alone, a refused lease changes nothing, and a loop that sleeps as told never oversleeps the deadline.
    #[test]
    fn random_leases_never_move_it_back_within_a_session() {
        let mut rng = rand::rng();
        for _ in 0..2000 {
            let mut deadman = Deadman::default();
            let mut now_ms = rng.random_range(0..5000);
            for _ in 0..50 {
                let before = deadman;
                let (epoch, until_ms) = (rng.random_range(0..4), now_ms + rng.random_range(0..300));
                let outcome = deadman.extend(Epoch::from_raw(epoch), until_ms);
                assert!(deadman.epoch() >= before.epoch());
                if outcome.is_err() {
                    assert_eq!(deadman, before);
                } else if deadman.epoch() == before.epoch() {
                    assert!(deadman.until_ms() >= before.until_ms());
                } else {
                    assert_eq!(deadman.until_ms(), until_ms);
                }
                let frozen = rng.random();
                let sleep_ms = deadman
                    .next_tick_ms(now_ms, true, frozen)
                    .expect("it holds leased children");
                assert!(sleep_ms > 0, "it spins");
                assert!(deadman.is_over(now_ms) || now_ms + sleep_ms <= deadman.until_ms());
                assert!(!frozen || sleep_ms <= TICK_MS);
                now_ms += rng.random_range(0..200);
            }
        }
    }
}
