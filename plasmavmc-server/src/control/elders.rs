//! Asking the other members since when they have listened, while this server leads: [`plasmavmc_core::elders`].
//!
//! ```text
//!   idle -- leadership --> every beat, while a host in session was not heard here: ask all, note who answers
//!    ^                                                                   |
//!    +------------------- leadership lost: all is forgotten -------------+
//! ```
//! Must never: hold the controller up, wait for a member longer than a beat, or guess for one that does not answer.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use plasmavmc_core::elders::{Elders, are_wanted};
use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{Address, HostId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::millis;
use crate::store::Mirror;

/// A member that takes longer counts as one that does not live; a shorter beat makes it less.
const ANSWERS_WITHIN: Duration = Duration::from_millis(700);

/// The way to the other members.
#[async_trait]
pub trait OtherMembers: Debug + Send + Sync {
    /// The revision since which a member has listened. `None`: it does not answer, does not know, or cannot be asked.
    async fn listens_since(&self, address: &Address) -> Option<u64>;
}

/// What the others said. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Known {
    elders: Arc<Mutex<Elders>>,
    began: Instant,
}

impl Known {
    pub fn new() -> Self {
        Self {
            elders: Arc::default(),
            began: Instant::now(),
        }
    }

    /// The lowest revision since which a member has listened that lives: this one with `own`, or another.
    pub fn lowest(&self, own: Option<u64>, view: &ClusterView, now: Instant) -> Option<u64> {
        self.elders.lock().lowest(own, &view.timings, self.ms(now))
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.began))
    }
}

/// Asks.
#[derive(Debug)]
pub struct Asking {
    /// Is not asked.
    pub own: HostId,
    pub mirror: Mirror,
    pub members: Arc<dyn OtherMembers>,
    pub leadership: watch::Receiver<bool>,
    pub known: Known,
}

impl Asking {
    /// Returns when nobody can tell any more who leads.
    pub async fn run(mut self) {
        while self.leadership.wait_for(|leads| *leads).await.is_ok() {
            let mut leadership = self.leadership.clone();
            tokio::select! {
                () = self.ask() => {}
                _ = leadership.wait_for(|leads| !leads) => {}
            }
            self.known.elders.lock().forget();
        }
    }

    async fn ask(&self) {
        loop {
            let asked = Instant::now();
            // Before the look, which holds the mirror's lock.
            let own = self.mirror.listens_since();
            let (beat, members) = self.mirror.read(|view| {
                let is_wanted = are_wanted(view, own);
                let members = if is_wanted { others(view, self.own) } else { Vec::new() };
                (Duration::from_millis(view.timings.beat_ms), members)
            });
            self.ask_all(members, asked, ANSWERS_WITHIN.min(beat)).await;
            sleep_until(asked + beat).await;
        }
    }

    /// Asks all at once, and notes each answer as it comes.
    async fn ask_all(&self, members: Vec<(HostId, Address)>, asked: Instant, within: Duration) {
        let questions = members.iter().map(|(member, address)| async move {
            let answer = timeout(within, self.members.listens_since(address)).await;
            (*member, answer.ok().flatten())
        });
        let mut answers: FuturesUnordered<_> = questions.collect();
        while let Some((member, since)) = answers.next().await {
            if let Some(since) = since {
                self.known.elders.lock().note(member, since, self.known.ms(asked));
            }
        }
    }
}

/// All members but this one.
fn others(view: &ClusterView, own: HostId) -> Vec<(HostId, Address)> {
    let others = view.hosts.iter().filter(|(host, _)| **host != own);
    let addresses = others.filter_map(|(host, known)| {
        let record = known.record.as_ref()?;
        Some((*host, record.value.cluster_address()?.clone()))
    });
    addresses.collect()
}
