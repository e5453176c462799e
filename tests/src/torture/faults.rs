//! The kinds of faults, and which of them meet in a phase.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::Serialize;

/// A kind of fault. Every one must be met in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    KillOne,
    KillLeader,
    KillAll,
    PowerCut,
    Pause,
    PartitionLeaderMinority,
    PartitionLeaderMajority,
    PartitionBridge,
    PartitionOneWay,
    /// Remove a member and add a fresh one in its place.
    Membership,
    /// Grow and shrink: 3 to 5 to 3 voters, or 5 to 3 to 5.
    Resize,
    Snapshot,
    DiskFull,
}

impl Fault {
    pub const ALL: [Self; 13] = [
        Self::KillOne,
        Self::PartitionLeaderMinority,
        Self::Snapshot,
        Self::KillLeader,
        Self::Pause,
        Self::Membership,
        Self::KillAll,
        Self::PartitionOneWay,
        Self::DiskFull,
        Self::PowerCut,
        Self::PartitionBridge,
        Self::Resize,
        Self::PartitionLeaderMajority,
    ];

    const KILLS: [Self; 4] = [Self::KillOne, Self::KillLeader, Self::KillAll, Self::PowerCut];

    /// Faults that may strike while members are killed: they need no answer from anybody to be undone.
    const OVERLAPPING: [Self; 7] = [
        Self::Pause,
        Self::PartitionLeaderMinority,
        Self::PartitionLeaderMajority,
        Self::PartitionBridge,
        Self::PartitionOneWay,
        Self::Snapshot,
        Self::DiskFull,
    ];
}

/// A defect that a member is built with, to see that the judges find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Writes are acknowledged before the log is synced.
    AckBeforeFsync,
    /// A stale read is served as linearizable.
    StaleRead,
    /// A watch skips an event.
    WatchSkip,
}

impl Sabotage {
    /// The environment that switches it on in a member built with the feature `faults`.
    pub fn env(self) -> Vec<(String, String)> {
        let name = match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::StaleRead => "stale-read",
            Self::WatchSkip => "watch-skip",
        };
        let mut env = vec![("CHAINFIRE_FAULT_BREAK".to_owned(), name.to_owned())];
        if self == Self::AckBeforeFsync {
            // A window between acknowledgement and sync that a kill can hit.
            env.push(("CHAINFIRE_FAULT_LOG_DELAY_MS".to_owned(), "40".to_owned()));
        }
        env
    }

    fn faults(self) -> Vec<Fault> {
        match self {
            Self::AckBeforeFsync => vec![Fault::KillAll, Fault::PowerCut],
            Self::StaleRead => vec![Fault::PartitionLeaderMinority, Fault::Pause],
            Self::WatchSkip => vec![Fault::KillOne, Fault::PartitionOneWay],
        }
    }
}

/// What strikes in one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// In turn, each undone before the next.
    pub in_turn: Vec<Fault>,
    /// Meanwhile.
    pub meanwhile: Vec<Fault>,
}

/// Decides the mixes of a run: first every fault once, then at random.
#[derive(Debug)]
pub struct Schedule {
    first: Vec<Mix>,
    sabotage: Option<Sabotage>,
    random: StdRng,
}

impl Schedule {
    pub fn new(sabotage: Option<Sabotage>, random: StdRng) -> Self {
        let groups = Fault::ALL.chunks(3).rev().map(|faults| Mix {
            in_turn: faults.to_vec(),
            meanwhile: Vec::new(),
        });
        let first = if sabotage.is_some() {
            Vec::new()
        } else {
            groups.collect()
        };
        Self {
            first,
            sabotage,
            random,
        }
    }

    pub fn next(&mut self) -> Mix {
        if let Some(sabotage) = self.sabotage {
            return Mix {
                in_turn: sabotage.faults(),
                meanwhile: Vec::new(),
            };
        }
        if let Some(mix) = self.first.pop() {
            return mix;
        }
        match self.random.random_range(0..4) {
            0 => Mix {
                in_turn: self.some(&Fault::ALL, 3),
                meanwhile: Vec::new(),
            },
            1 => Mix {
                in_turn: self.some(&Fault::OVERLAPPING, 2),
                meanwhile: self.some(&Fault::KILLS, 1),
            },
            // Kills are short: many fit, and what a kill finds depends on the moment.
            _ => Mix {
                in_turn: self.some(&Fault::KILLS, 2),
                meanwhile: Vec::new(),
            },
        }
    }

    fn some(&mut self, faults: &[Fault], count: usize) -> Vec<Fault> {
        let mut chosen: Vec<Fault> = faults.sample(&mut self.random, count).copied().collect();
        chosen.shuffle(&mut self.random);
        chosen
    }
}

/// What has struck.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Processes that were ended by SIGKILL or a power cut.
    pub kills: u64,
    pub faults: BTreeMap<Fault, u64>,
}

impl Tally {
    pub fn count(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }

    pub fn missed(&self) -> Vec<Fault> {
        Fault::ALL
            .into_iter()
            .filter(|fault| !self.faults.contains_key(fault))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_first_phases_of_a_run_meet_every_fault() {
        let mut schedule = Schedule::new(None, StdRng::seed_from_u64(1));
        let mut tally = Tally::default();
        assert_eq!(tally.missed().len(), Fault::ALL.len());
        for _ in 0..Fault::ALL.len().div_ceil(3) {
            schedule.next().in_turn.into_iter().for_each(|fault| tally.count(fault));
        }
        assert_eq!(tally.missed(), []);
    }
}
