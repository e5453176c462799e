//! Everything that is stored, as one value, followed live.
//!
//! ```text
//!            list all at one revision
//!   empty ----------------------------> following --- watch fails, falls behind, is compacted ---+
//!                                        ^   | batch: applied whole, then the revision is told   |
//!                                        |   +--> changes() to readers                           |
//!                                        +--- list again; the difference is told as changes <----+
//! ```
//! One task owns the view and alone changes it. A reader sees whole batches, which are whole transactions, in
//! the store's order. While the store is away the view stays as it was: how old it is, is for the reader to
//! judge ([`Mirror::figures`], or a linearizable read and [`Mirror::reached`]).
//!
//! Must never: show half a transaction, invent a change or swallow one, or take a value it cannot read for one
//! that is missing without saying so.

mod flow;
mod follow;
mod replica;

fn heard_by(replica: &Replica, now: Instant) -> Heard {
    let ago = |at: &Instant| millis(now.saturating_duration_since(*at));
    Heard {
        ago_ms: replica.heard.iter().map(|(host, at)| (*host, ago(at))).collect(),
        leading_for_ms: None,
        contact: replica.flow.contact(now, &replica.view.timings),
    }
}

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chainfire::kv::{Kv, Revision};
use parking_lot::RwLock;
use plasmavmc_core::view::{ClusterView, Heard, Stored};
use plasmavmc_types::{RequestId, TokenId};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::ParsedKey;
use super::values::{ClusterConfig, Request, StoredValue, Token};
use crate::clock::millis;
use replica::Replica;

/// Batches that a reader of changes may fall behind by.
const CHANGES_KEPT: usize = 1024;

/// One key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction that changed it. Of a deletion that happened unseen: no later than this.
    pub revision: Revision,
    pub key: ParsedKey,
    pub before: Option<StoredValue>,
    pub after: Option<StoredValue>,
    /// There is a value now, but this version cannot read it: `after` is missing, and nothing was deleted.
    pub is_unreadable: bool,
}

/// Why changes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    #[error(
        "{missed} batches of changes were missed, because this reader was too slow: read anew and go on from there"
    )]
    Lagged { missed: u64 },
    #[error("the mirror has stopped")]
    Stopped,
}

/// The changes from some moment on, batch by batch.
#[derive(Debug)]
pub struct Changes {
    batches: broadcast::Receiver<Arc<Vec<Change>>>,
}

impl Changes {
    /// The next batch, never empty. After an error there is no next one: take new [`Mirror::changes`].
    pub async fn next(&mut self) -> Result<Arc<Vec<Change>>, ChangesError> {
        self.batches.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => ChangesError::Lagged { missed },
            broadcast::error::RecvError::Closed => ChangesError::Stopped,
        })
    }
}

/// Why a revision was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    #[error("revision {wanted} was not reached within {waited_ms} ms; this server is at {at}")]
    Late { wanted: u64, at: u64, waited_ms: u64 },
    #[error("the first listing of the store was not done within {waited_ms} ms")]
    Empty { waited_ms: u64 },
    #[error("the mirror has stopped")]
    Stopped,
}

/// A value that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub key: ParsedKey,
    pub revision: Revision,
    pub problem: String,
}

/// The mirror in numbers, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    pub revision: Revision,
    /// It hears of every change as it happens.
    pub is_following: bool,
    /// How long it has not; 0 while it does.
    pub behind_ms: u64,
    pub keys: usize,
    pub vms: usize,
    pub hosts: usize,
    pub operations: usize,
    pub decisions: usize,
    pub requests: usize,
    pub unreadable: usize,
    /// Since the start.
    pub listings: u64,
    pub batches: u64,
    pub events: u64,
    /// The longest that readers were kept waiting by a change.
    pub slowest_apply_us: u64,
}

/// A live copy of the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
    /// Closed when the task has ended: the task alone holds the sender.
    revision: watch::Receiver<Revision>,
    following: watch::Receiver<Following>,
}

#[derive(Debug, Clone, Copy)]
struct Following {
    is_following: bool,
    is_listed: bool,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    replica: RwLock<Replica>,
    changes: ChangesSender,
    listings: AtomicU64,
    batches: AtomicU64,
    events: AtomicU64,
    slowest_apply_us: AtomicU64,
}

/// Gone when the mirror stops, so that readers of changes hear of it.
type ChangesSender = parking_lot::Mutex<Option<broadcast::Sender<Arc<Vec<Change>>>>>;

impl Mirror {
    /// Begins to follow the store, until `stop`.
    pub fn start(kv: Arc<dyn Kv>, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            replica: RwLock::default(),
            changes: parking_lot::Mutex::new(Some(broadcast::Sender::new(CHANGES_KEPT))),
            listings: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            events: AtomicU64::new(0),
            slowest_apply_us: AtomicU64::new(0),
        });
        let (revision_tx, revision) = watch::channel(0);
        let (following_tx, following) = watch::channel(Following {
            is_following: false,
            is_listed: false,
            since: Instant::now(),
        });
        let follower = follow::Follower {
            kv,
            shared: Arc::clone(&shared),
            revision: revision_tx,
            following: following_tx,
        };
        tokio::spawn(follower.run(stop));
        Self {
            shared,
            revision,
            following,
        }
    }

    /// Looks at the view. Changes wait meanwhile, so only look: no await, no I/O.
    pub fn read<R>(&self, look: impl FnOnce(&ClusterView) -> R) -> R {
        look(&self.shared.replica.read().view)
    }

    /// The revision that the view shows; closed when the mirror has stopped.
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.clone()
    }

    /// Waits until the view shows this revision.
    pub async fn reached(&self, wanted: Revision, within: Duration) -> Result<(), MirrorError> {
        let mut revision = self.revision.clone();
        let reached = revision.wait_for(|revision| *revision >= wanted);
        match tokio::time::timeout(within, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => Err(MirrorError::Stopped),
            Err(_late) => Err(MirrorError::Late {
                wanted,
                at: *self.revision.borrow(),
                waited_ms: millis(within),
            }),
        }
    }

    /// Waits until the store was listed once: before that, nothing seems to exist.
    pub async fn listed(&self, within: Duration) -> Result<(), MirrorError> {
        let mut following = self.following.clone();
        let listed = following.wait_for(|following| following.is_listed);
        match tokio::time::timeout(within, listed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => Err(MirrorError::Stopped),
            Err(_late) => Err(MirrorError::Empty {
                waited_ms: millis(within),
            }),
        }
    }

    /// When each host was last heard of, by this server's own clock: the beat's arrival, not what it says.
    pub fn heard(&self, now: Instant) -> Heard {
        heard_by(&self.shared.replica.read(), now)
    }

    /// Looks at the view, and at when the hosts in it were heard: both as of the same commit. A beat that came between
    /// two looks would be judged by the age of the one before, and fenced though it was just sent. Only look, as in
    /// [`Self::read`].
    pub fn look<R>(&self, now: Instant, look: impl FnOnce(&ClusterView, Heard) -> R) -> R {
        let replica = self.shared.replica.read();
        look(&replica.view, heard_by(&replica, now))
    }

    /// The revision since which this process has heard of every commit; `None`: it cannot tell yet.
    pub fn listens_since(&self) -> Option<Revision> {
        self.shared.replica.read().flow.listens_since()
    }

    /// All changes after the view as it is now.
    pub fn changes(&self) -> Changes {
        self.follow(|_| ()).1
    }

    /// Looks at the view, and answers with all changes after exactly that.
    pub fn follow<R>(&self, look: impl FnOnce(&ClusterView) -> R) -> (R, Changes) {
        let replica = self.shared.replica.read();
        let batches = match &*self.shared.changes.lock() {
            Some(sender) => sender.subscribe(),
            // Its sender is gone at once: the first `next` says that the mirror has stopped.
            None => broadcast::channel(1).1,
        };
        (look(&replica.view), Changes { batches })
    }

    /// Looks at the view together with all changes that led to exactly that; `changes` goes on after it.
    pub fn catch_up<R>(
        &self,
        changes: &mut Changes,
        look: impl FnOnce(&ClusterView, &[Arc<Vec<Change>>]) -> R,
    ) -> Result<R, ChangesError> {
        // Batches are sent while the view is changed, so with the view held still there are no others.
        let replica = self.shared.replica.read();
        let mut batches = Vec::new();
        loop {
            match changes.batches.try_recv() {
                Ok(batch) => batches.push(batch),
                Err(broadcast::error::TryRecvError::Empty) => return Ok(look(&replica.view, &batches)),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => return Err(ChangesError::Lagged { missed }),
                Err(broadcast::error::TryRecvError::Closed) => return Err(ChangesError::Stopped),
            }
        }
    }

    /// The settings of the cluster, once it is founded.
    pub fn config(&self) -> Option<Stored<ClusterConfig>> {
        self.shared.replica.read().config.clone()
    }

    /// What a call with this id did, if it was carried out.
    pub fn request(&self, id: &RequestId) -> Option<Stored<Request>> {
        self.shared.replica.read().requests.get(id).cloned()
    }

    /// Requests to be forgotten, oldest first: those carried out before some time, and those beyond the newest
    /// `keep`. At most `limit`, with their revisions.
    pub fn old_requests(&self, before_ms: u64, keep: usize, limit: usize) -> Vec<(RequestId, Revision)> {
        let replica = self.shared.replica.read();
        let surplus = replica.requests.len().saturating_sub(keep);
        let mut by_age: Vec<_> = replica.requests.iter().collect();
        by_age.sort_unstable_by_key(|(id, request)| (request.value.at_ms, *id));
        let old = by_age.into_iter().enumerate();
        old.take_while(|(index, (_, request))| *index < surplus || request.value.at_ms < before_ms)
            .take(limit)
            .map(|(_, (id, request))| (id.clone(), request.revision))
            .collect()
    }

    pub fn token(&self, id: &TokenId) -> Option<Stored<Token>> {
        self.shared.replica.read().tokens.get(id).cloned()
    }

    /// All join tokens with their revisions.
    pub fn tokens(&self) -> Vec<(TokenId, Stored<Token>)> {
        let replica = self.shared.replica.read();
        let tokens = replica.tokens.iter();
        tokens.map(|(id, token)| (id.clone(), token.clone())).collect()
    }

    /// The oldest decisions, which are too many. At most `limit`.
    pub fn surplus_decisions(&self, limit: usize) -> Vec<String> {
        self.shared.replica.read().surplus_decisions(limit)
    }

    /// How many values are kept out of the view because this version cannot read them.
    pub fn problems(&self) -> usize {
        self.shared.replica.read().unreadable.len()
    }

    /// Which values those are, and why.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.shared.replica.read().unreadable.values().cloned().collect()
    }

    pub fn figures(&self) -> Figures {
        let following = *self.following.borrow();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let replica = self.shared.replica.read();
        Figures {
            revision: replica.view.revision,
            is_following: following.is_following,
            behind_ms: if following.is_following {
                0
            } else {
                millis(following.since.elapsed())
            },
            keys: replica.keys(),
            vms: replica.view.vms.len(),
            hosts: replica.view.hosts.len(),
            operations: replica.view.operations.len(),
            decisions: replica.view.decisions.len(),
            requests: replica.requests.len(),
            unreadable: replica.unreadable.len(),
            listings: count(&self.shared.listings),
            batches: count(&self.shared.batches),
            events: count(&self.shared.events),
            slowest_apply_us: count(&self.shared.slowest_apply_us),
        }
    }
}
