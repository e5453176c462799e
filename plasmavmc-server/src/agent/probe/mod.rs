//! The probe that a pool has to pass before it is offered as shared.
//!
//! ```text
//!   the configuration says shared --> mount: nothing rules it out --> presence: others are seen there, with locks
//!                                                                       --> verdict --> facts of this host
//! ```
//! High availability rests on two promises of such a pool: a lock that one host holds is seen by all others, and a
//! host that lost its locks cannot write any more. A mark in a file cannot promise that, so each host keeps a locked
//! file of its own in the pool, and looks at those of others: [`presence`] does it, [`mount`] knows what rules a pool
//! out, [`verdict`] decides, and this module looks again and again: once a second while others come, later now and
//! then.
//!
//! Must never: wait for storage that hangs; have more than one look at a pool under way.

mod mount;
mod presence;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use futures::future::join_all;
use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{HostId, InstanceNonce, PoolName};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pools::Pools;
use presence::Presence;
use verdict::{Looked, Memory, Other, Verdict};

/// Nobody waits longer for a look.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks, while there is something to find out, and otherwise.
const SOON_MS: u64 = 1000;
const LATER_MS: u64 = 30_000;
/// For so long after other hosts came is there something to find out.
const HURRIES_MS: u64 = 60_000;

/// The other hosts that live.
pub type Alive = BTreeMap<HostId, Other>;
type Done = (Presence, io::Result<Looked>);

/// The shared pools of this host, and what is known of each.
#[derive(Debug)]
pub struct Probes {
    host: HostId,
    probes: Vec<Probe>,
}

#[derive(Debug)]
struct Probe {
    name: PoolName,
    hand: Hand,
    memory: Memory,
    verdict: Verdict,
    /// Why nothing new is known. It takes nothing back: that storage does not answer does not unshare it.
    trouble: Option<String>,
    pace: Pace,
}

/// Whoever looks takes it along, so there is one look at a time, however long it takes.
#[derive(Debug)]
enum Hand {
    Idle(Presence),
    Looking(JoinHandle<Done>),
    /// A look has panicked.
    Lost,
}

impl Probes {
    pub fn new(host: HostId, instance: InstanceNonce, pools: &Pools) -> Self {
        let probe = |(name, folder): (&PoolName, &std::path::Path)| Probe {
            name: name.clone(),
            hand: Hand::Idle(Presence::new(host, instance, folder)),
            memory: Memory::default(),
            verdict: Verdict::default(),
            trouble: None,
            pace: Pace::default(),
        };
        Self {
            host,
            probes: pools.shared().map(probe).collect(),
        }
    }

    /// Looks at the pools whose time has come. Whether anything is known now that was not.
    pub async fn look(&mut self, now_ms: u64, read: impl Fn(&PoolName, HostId) -> Alive) -> bool {
        let host = self.host;
        let looks = self.probes.iter_mut().map(|probe| {
            let alive = read(&probe.name, host);
            probe.look(now_ms, alive)
        });
        join_all(looks).await.into_iter().any(|is_news| is_news)
    }

    /// The pools that passed.
    pub fn passed(&self) -> impl Iterator<Item = &PoolName> {
        let passed = self.probes.iter().filter(|probe| probe.verdict == Verdict::Shared);
        passed.map(|probe| &probe.name)
    }

    /// What a person should look at.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.probes.iter().filter_map(|probe| {
            let name = &probe.name;
            match (&probe.verdict, &probe.trouble) {
                (_, Some(trouble)) => Some(format!("shared pool {name} cannot be looked at: {trouble}")),
                (Verdict::NotShared(why), None) => Some(format!("pool {name} is not offered as shared: {why}")),
                _ => None,
            }
        });
        warnings.collect()
    }
}

/// The other hosts that live, and what they say of a pool.
pub fn alive(view: &ClusterView, pool: &PoolName, me: HostId) -> Alive {
    let others = view.hosts.iter().filter(|(id, _)| **id != me);
    let alive = others.filter_map(|(id, known)| {
        let (record, session, beat) = (known.record.as_ref()?, known.session.as_ref()?, known.beat.as_ref()?);
        let facts = &beat.value.facts;
        let other = Other {
            name: record.value.name().to_string(),
            instance: session.value.instance,
            has_it: facts.pools.contains(pool),
            offers_it: facts.shared_pools.contains(pool),
        };
        beat.value.belongs_to(&session.value).then_some((*id, other))
    });
    alive.collect()
}

impl Probe {
    async fn look(&mut self, now_ms: u64, alive: Alive) -> bool {
        let is_settled = self.verdict == Verdict::Shared;
        let mut looking = match std::mem::replace(&mut self.hand, Hand::Lost) {
            Hand::Idle(presence) if self.pace.is_due(is_settled, &alive, now_ms) => self.begin(presence, &alive),
            Hand::Looking(looking) if looking.is_finished() => looking,
            resting => {
                self.hand = resting;
                return false;
            }
        };
        let before = (self.verdict.clone(), self.trouble.take());
        match timeout(LOOK_WITHIN, &mut looking).await {
            Ok(Ok((presence, looked))) => {
                self.hand = Hand::Idle(presence);
                match looked {
                    Ok(looked) => self.verdict = self.memory.learn(&looked, &alive, now_ms),
                    Err(error) => self.trouble = Some(error.to_string()),
                }
            }
            Ok(Err(stopped)) => self.trouble = Some(stopped.to_string()),
            Err(_) => {
                self.hand = Hand::Looking(looking);
                let seconds = LOOK_WITHIN.as_secs();
                self.trouble = Some(format!("its storage has not answered within {seconds} s"));
            }
        }
        let is_news = before != (self.verdict.clone(), self.trouble.clone());
        if is_news {
            // The proof, or its end, is written with the next one.
            self.pace.hurry();
            self.tell();
        }
        is_news
    }

    fn begin(&self, mut presence: Presence, alive: &Alive) -> JoinHandle<Done> {
        let others: BTreeSet<HostId> = alive.keys().copied().collect();
        let expected = alive.iter().filter(|(_, other)| other.has_it);
        let expected: BTreeSet<HostId> = expected.map(|(host, _)| *host).collect();
        let is_proven = self.memory.is_proven;
        tokio::task::spawn_blocking(move || {
            let looked = presence.look(&others, &expected, is_proven);
            (presence, looked)
        })
    }

    fn tell(&self) {
        let pool = &self.name;
        match (&self.verdict, &self.trouble) {
            (_, Some(trouble)) => tracing::warn!(%pool, trouble, "a shared pool cannot be looked at"),
            (Verdict::NotShared(why), None) => tracing::warn!(%pool, why, "the pool is not offered as shared"),
            (Verdict::Shared, None) => tracing::info!(%pool, "the pool is shared with other hosts"),
            (Verdict::Alone | Verdict::Open, None) => {}
        }
    }
}

/// When to look.
#[derive(Debug, Default)]
struct Pace {
    looked_ms: Option<u64>,
    hurries: bool,
    company: BTreeSet<(HostId, InstanceNonce)>,
    company_since_ms: u64,
}

impl Pace {
    /// Whether it is time, and then it counts as done.
    fn is_due(&mut self, is_settled: bool, alive: &Alive, now_ms: u64) -> bool {
        let company = alive.iter().filter(|(_, other)| other.has_it);
        let company: BTreeSet<_> = company.map(|(host, other)| (*host, other.instance)).collect();
        if company != self.company {
            (self.company, self.company_since_ms) = (company, now_ms);
        }
        let is_new = !self.company.is_empty() && now_ms.saturating_sub(self.company_since_ms) < HURRIES_MS;
        let every_ms = match (is_new && !is_settled) || self.hurries {
            true => SOON_MS,
            false => LATER_MS,
        };
        let is_due = self
            .looked_ms
            .is_none_or(|looked_ms| now_ms.saturating_sub(looked_ms) >= every_ms);
        if is_due {
            (self.looked_ms, self.hurries) = (Some(now_ms), false);
        }
        is_due
    }

    fn hurry(&mut self) {
        self.hurries = true;
    }
}

#[cfg(test)]
mod tests;
