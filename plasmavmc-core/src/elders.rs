//! Since when other member processes have listened, as they told the leader: what tells a cold start from a loss.
//!
//! A leader whose own server has just begun has not heard the hosts that were lost a moment before. Another member that
//! was there all the time is the proof that they were not lost together with everything.
//!
//! Must never: count a member that does not answer any more, or one whose word is missing.

use std::collections::BTreeMap;

use plasmavmc_types::{HostId, Timings};

use crate::liveness::gap_ms;
use crate::view::ClusterView;

#[derive(Debug, Clone, Copy)]
struct Word {
    since_revision: u64,
    asked_ms: u64,
}

/// What other members said last. Times are those of one clock of the reader.
#[derive(Debug, Clone, Default)]
pub struct Elders {
    words: BTreeMap<HostId, Word>,
}

impl Elders {
    /// A member has answered a question of that time.
    pub fn note(&mut self, member: HostId, since_revision: u64, asked_ms: u64) {
        let word = Word {
            since_revision,
            asked_ms,
        };
        let known = self.words.entry(member).or_insert(word);
        // Answers may overtake each other.
        if known.asked_ms <= asked_ms {
            *known = word;
        }
    }

    /// The lowest revision since which one has listened that lives: the reader with `own`, or one that has answered
    /// within two beats.
    pub fn lowest(&self, own: Option<u64>, timings: &Timings, now_ms: u64) -> Option<u64> {
        let is_fresh = |word: &&Word| now_ms.saturating_sub(word.asked_ms) <= gap_ms(timings);
        let fresh = self.words.values().filter(is_fresh).map(|word| word.since_revision);
        fresh.chain(own).min()
    }

    pub fn forget(&mut self) {
        self.words.clear();
    }
}

/// Whether the answers could change anything: a host in session was not heard since the reader itself began to listen.
pub fn are_wanted(view: &ClusterView, own: Option<u64>) -> bool {
    view.hosts.values().any(|host| {
        let is_open = host.session.as_ref().is_some_and(|session| session.value.is_open());
        let beat = host.beat.as_ref().filter(|_| is_open);
        beat.is_some_and(|beat| own.is_none_or(|own| beat.revision <= own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Cluster, host_id};

    #[test]
    fn the_oldest_that_lives_counts() {
        let check = |words: &[(u32, u64, u64)], own, now_ms, expected| {
            let mut elders = Elders::default();
            for (member, since, asked_ms) in words {
                elders.note(host_id(*member), *since, *asked_ms);
            }
            let lowest = elders.lowest(own, &Timings::default(), now_ms);
            assert_eq!(lowest, expected, "{words:?} {own:?} {now_ms}");
        };
        check(&[], None, 0, None);
        check(&[], Some(7), 0, Some(7));
        check(&[(1, 5, 0)], None, 0, Some(5));
        check(&[(1, 5, 0)], Some(7), 2000, Some(5));
        check(&[(1, 5, 0)], Some(3), 2000, Some(3));
        // It has not answered for more than two beats.
        check(&[(1, 5, 0)], Some(7), 2001, Some(7));
        check(&[(1, 5, 0)], None, 2001, None);
        check(&[(1, 5, 0), (2, 6, 1000)], Some(7), 3000, Some(6));
        // It was restarted: what it said before is over, also if that comes later.
        check(&[(1, 5, 0), (1, 9, 1000)], None, 1000, Some(9));
        check(&[(1, 9, 1000), (1, 5, 0)], None, 1000, Some(9));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut elders = Elders::default();
        elders.note(host_id(1), 5, 0);
        elders.forget();
        assert_eq!(elders.lowest(None, &Timings::default(), 0), None);
    }

    #[test]
    fn nobody_is_asked_once_all_were_heard() {
        let mut cluster = Cluster::of_hosts(3);
        let beats = |cluster: &Cluster| {
            let hosts = cluster.view.hosts.values();
            let beats: Vec<u64> = hosts.filter_map(|host| Some(host.beat.as_ref()?.revision)).collect();
            (beats.iter().copied().min(), beats.iter().copied().max())
        };
        let (Some(oldest), Some(newest)) = beats(&cluster) else {
            panic!("no beats");
        };
        assert!(oldest < newest);
        assert!(are_wanted(&cluster.view, None));
        assert!(are_wanted(&cluster.view, Some(newest)));
        assert!(are_wanted(&cluster.view, Some(oldest)));
        assert!(!are_wanted(&cluster.view, Some(oldest - 1)));
        // A host that was given up is waited for by nobody.
        for host in cluster.view.hosts.values_mut() {
            host.session = None;
        }
        assert!(!are_wanted(&cluster.view, Some(newest)));
    }
}
