//! How long contact may be lost before something happens. One set for the whole cluster.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::invalid::Checks;

/// What the election of a new leader may take; longer, and a leader's death would freeze other hosts.
const ELECTION_MS: u64 = 1500;
const MIN_MARGIN_MS: u64 = 1000;

/// The fields, to be filled in freely and then checked by [`Timings::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingsFields {
    /// Time between two beats of a host.
    pub beat_ms: u64,
    /// A host freezes its leased VMs this long after it sent its last beat that was acknowledged.
    pub freeze_after_ms: u64,
    /// The controller fences a host this long after its last beat.
    pub failover_after_ms: u64,
}

/// Checked timings: a host has always frozen before anybody fences it, even if clocks run differently
/// fast and the guard wakes late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TimingsFields", into = "TimingsFields")]
pub struct Timings(TimingsFields);

impl Timings {
    pub fn new(fields: TimingsFields) -> Result<Self, Invalid> {
        let TimingsFields {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        } = fields;
        let mut checks = Checks::of("timings");
        checks.require_range("beat_ms", beat_ms, 100..=60_000);
        checks.require_range("freeze_after_ms", freeze_after_ms, 1000..=600_000);
        checks.require_range("failover_after_ms", failover_after_ms, 2000..=3_600_000);

        let least = beat_ms.saturating_mul(2).saturating_add(ELECTION_MS);
        checks.require(freeze_after_ms >= least, "freeze_after_ms", || {
            format!("is {freeze_after_ms}, but two beats and an election take {least}")
        });
        let least = Self::least_failover_ms(freeze_after_ms);
        let margin = least.saturating_sub(freeze_after_ms);
        checks.require(failover_after_ms >= least, "failover_after_ms", || {
            format!("is {failover_after_ms}, but must be at least freeze_after_ms plus {margin}, which is {least}")
        });
        checks.finish(Self(fields))
    }

    /// The soonest at which a host may be fenced whose leased VMs may execute for so long: clocks run differently fast,
    /// and guards are late.
    pub const fn least_failover_ms(freeze_after_ms: u64) -> u64 {
        let quarter_ms = freeze_after_ms / 4;
        let margin_ms = if quarter_ms > MIN_MARGIN_MS {
            quarter_ms
        } else {
            MIN_MARGIN_MS
        };
        freeze_after_ms.saturating_add(margin_ms)
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self(TimingsFields {
            beat_ms: 1000,
            freeze_after_ms: 4000,
            failover_after_ms: 6000,
        })
    }
}

impl Deref for Timings {
    type Target = TimingsFields;

    fn deref(&self) -> &TimingsFields {
        &self.0
    }
}

impl TryFrom<TimingsFields> for Timings {
    type Error = Invalid;

    fn try_from(fields: TimingsFields) -> Result<Self, Invalid> {
        Self::new(fields)
    }
}

impl From<Timings> for TimingsFields {
    fn from(timings: Timings) -> Self {
        timings.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> TimingsFields {
        TimingsFields {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        }
    }

    #[test]
    fn the_defaults_pass_their_own_check() {
        assert_eq!(Timings::new(*Timings::default()), Ok(Timings::default()));
    }

    #[test]
    fn the_margins_are_exact() {
        assert!(Timings::new(fields(1000, 4000, 5000)).is_ok());
        assert!(
            Timings::new(fields(1000, 4000, 4999))
                .unwrap_err()
                .mentions("failover_after_ms")
        );
        assert!(
            Timings::new(fields(1000, 20_000, 24_999))
                .unwrap_err()
                .mentions("failover_after_ms")
        );
        assert!(Timings::new(fields(1000, 20_000, 25_000)).is_ok());
        assert!(Timings::new(fields(1000, 3500, 5000)).is_ok());
        assert!(
            Timings::new(fields(1000, 3499, 5000))
                .unwrap_err()
                .mentions("freeze_after_ms")
        );
    }

    #[test]
    fn what_is_fenced_has_frozen_before_by_a_quarter_or_a_second() {
        for (freeze, least) in [
            (1000, 2000),
            (4000, 5000),
            (4004, 5005),
            (20_000, 25_000),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(Timings::least_failover_ms(freeze), least);
        }
    }

    proptest! {
        #[test]
        fn a_margin_that_is_too_small_is_refused(freeze in 4000u64..100_000, short in 1u64..1000) {
            let least = freeze + (freeze / 4).max(MIN_MARGIN_MS);
            let refused = Timings::new(fields(1000, freeze, least - short)).unwrap_err();
            prop_assert!(refused.mentions("failover_after_ms"));
        }

        #[test]
        fn timings_of_a_usual_size_with_margins_are_taken(
            beat in 100u64..5000, slack in 0u64..10_000, late in 0u64..10_000,
        ) {
            let freeze = 2 * beat + ELECTION_MS + slack;
            let failover = freeze + (freeze / 4).max(MIN_MARGIN_MS) + late;
            prop_assert!(Timings::new(fields(beat, freeze, failover)).is_ok());
        }
    }
}
