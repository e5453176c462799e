//! What follows when QEMU died by itself: restart here after a growing pause, within a budget, then give up.
//!
//! The crashes are kept in the status, so a restarted server goes on counting where the last one stopped. A
//! guest that powers itself off has not crashed and never comes here.

use plasmavmc_types::RestartPolicy;

const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 30_000;

/// What to do after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartDecision {
    /// Start again at this time, which may have passed.
    At { at_ms: u64 },
    /// Until a person starts it. The reason is for that person.
    GiveUp { reason: String },
}

/// What follows after these crashes, oldest first, the last of which has just been. Times are of one host's wall
/// clock; after one that lies in the future (the clock was set back) there is no pause, since nobody knows when
/// it would end.
pub fn next(policy: RestartPolicy, crashes_at_ms: &[u64], now_ms: u64) -> RestartDecision {
    let RestartPolicy::OnCrash { tries, window_s } = policy else {
        let reason = "its policy is never to restart it".to_owned();
        return RestartDecision::GiveUp { reason };
    };
    let Some(last) = crashes_at_ms.iter().max().copied() else {
        return RestartDecision::At { at_ms: now_ms };
    };
    let window_ms = u64::from(window_s) * 1000;
    // Counted back from the last crash, not from now: while the pause runs, nothing is forgiven.
    let in_window = crashes_at_ms
        .iter()
        .filter(|at_ms| at_ms.saturating_add(window_ms) >= last);
    let count = u32::try_from(in_window.count()).unwrap_or(u32::MAX);
    if count > tries {
        let reason = format!("it crashed {count} times within {window_s} s, and {tries} restarts are allowed in that");
        return RestartDecision::GiveUp { reason };
    }
    let at_ms = if last > now_ms {
        now_ms
    } else {
        last.saturating_add(pause_ms(count))
    };
    RestartDecision::At { at_ms }
}

/// 1, 2, 4, 8, 16 s and then 30 s.
fn pause_ms(crashes: u32) -> u64 {
    let doublings = crashes.saturating_sub(1).min(10);
    (FIRST_PAUSE_MS << doublings).min(LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy::OnCrash {
        tries: 3,
        window_s: 600,
    };

    fn check(crashes_at_s: &[u64], now_s: u64, expected_at_s: Option<u64>) {
        let crashes: Vec<u64> = crashes_at_s.iter().map(|s| s * 1000).collect();
        let found = match next(POLICY, &crashes, now_s * 1000) {
            RestartDecision::At { at_ms } => Some(at_ms / 1000),
            RestartDecision::GiveUp { .. } => None,
        };
        assert_eq!(found, expected_at_s, "{crashes_at_s:?} at {now_s}");
    }

    #[test]
    fn the_pauses_grow_until_the_budget_is_used_up() {
        check(&[100], 100, Some(101));
        check(&[100, 110], 110, Some(112));
        check(&[100, 110, 120], 120, Some(124));
        check(&[100, 110, 120, 130], 130, None);
    }

    #[test]
    fn what_lies_before_the_window_is_forgiven() {
        check(&[100, 110, 120, 700], 700, None);
        check(&[100, 110, 120, 701], 701, Some(705));
        check(&[100, 110, 120, 1721], 1721, Some(1722));
    }

    #[test]
    fn a_pause_never_forgives() {
        check(&[100, 110, 120, 700], 100_000, None);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_postpone_for_ever() {
        check(&[5000], 100, Some(100));
    }

    #[test]
    fn many_tries_still_come_every_half_minute() {
        let policy = RestartPolicy::OnCrash {
            tries: 100,
            window_s: 86_400,
        };
        let crashes: Vec<u64> = (0..80).map(|n| n * 31_000).collect();
        let last = crashes[79];
        let expected = RestartDecision::At { at_ms: last + 30_000 };
        assert_eq!(next(policy, &crashes, last), expected);
    }

    #[test]
    fn never_means_never() {
        let found = next(RestartPolicy::Never, &[1000], 1000);
        assert!(matches!(found, RestartDecision::GiveUp { .. }), "{found:?}");
    }
}
