//! The task that owns the view.
//!
//! The first listing and every later one may be stale: what it lacks, the watch delivers, since it begins right
//! after the listing's revision. Only a listing that is older than the view is asked for again, linearizably.
//!
//! Beside it one linearizable read is asked for, until it is answered: from when on this process listens, see `flow`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chainfire::kv::{Consistency, EventKind, Key, Kv, KvError, RangeQuery, Revision, WatchBatch};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::keys;
use super::replica::{Replica, Step};
use super::{Change, Following, Shared};

/// How long one page, or the beginning of a watch, is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pause after a failure: doubled with each, forgotten after a batch.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The pause before it is asked again from when on it listens: without a leader there is no answer.
const LISTENING_PAUSE: Duration = Duration::from_millis(250);

/// Why the store is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Refused(#[from] KvError),
    #[error("the store did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    #[error("the store ended the watch")]
    Ended,
}

pub(super) struct Follower {
    pub kv: Arc<dyn Kv>,
    pub shared: Arc<Shared>,
    pub revision: watch::Sender<Revision>,
    pub following: watch::Sender<Following>,
}

impl Follower {
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(self.follow_on(&stop), stop.run_until_cancelled(self.begin_to_listen()),);
        self.shared.changes.lock().take();
    }

    async fn follow_on(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let Some(lost) = stop.run_until_cancelled(self.follow(&mut pause)).await else {
                break;
            };
            self.set_following(false);
            // Being told to list again is no failure; a store that is away need not be reported every second.
            tracing::debug!(reason = %lost, pause_ms = pause.as_millis(), "the store is listed again");
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Notes once when all that is older than this process is shown.
    async fn begin_to_listen(&self) {
        let since = loop {
            let asked = self.kv.get(keys::config(), Consistency::Linearizable);
            if let Ok(Ok(answer)) = timeout(ANSWER_WITHIN, asked).await {
                break answer.revision;
            }
            tokio::time::sleep(LISTENING_PAUSE).await;
        };
        let (mut following, mut revision) = (self.following.subscribe(), self.revision.subscribe());
        let listed = following.wait_for(|following| following.is_listed).await.is_ok();
        // Neither can fail: the senders are here.
        if listed && revision.wait_for(|shown| *shown >= since).await.is_ok() {
            self.shared.replica.write().flow.note_listening(Instant::now(), since);
            tracing::info!(since, "this server hears of every commit from now on");
        }
    }

    /// Lists and watches until something is wrong.
    async fn follow(&self, pause: &mut Duration) -> Lost {
        match self.try_follow(pause).await {
            Ok(()) => Lost::Ended,
            Err(lost) => lost,
        }
    }

    async fn try_follow(&self, pause: &mut Duration) -> Result<(), Lost> {
        let shown = *self.revision.borrow();
        let (mut listed, mut revision) = self.list(Consistency::Stale).await?;
        if revision < shown {
            (listed, revision) = self.list(Consistency::Linearizable).await?;
        }
        self.shared.listings.fetch_add(1, Ordering::Relaxed);
        self.change(|replica, now| replica.relist(listed, revision, now));
        // Everything, not only our keys: else the revision would stand still while others are written, and
        // whoever waits for it would wait in vain.
        let watch = self.kv.watch(Key::new(), revision + 1);
        let mut batches = timeout(ANSWER_WITHIN, watch).await.map_err(|_| Lost::Silent)??;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            self.take(batch);
            self.set_following(true);
            *pause = FIRST_PAUSE;
        }
        Ok(())
    }

    /// All keys at one revision.
    async fn list(&self, consistency: Consistency) -> Result<(Vec<Step>, Revision), Lost> {
        let mut query = Some(RangeQuery {
            consistency,
            ..RangeQuery::prefix(keys::ALL)
        });
        let mut steps = Vec::new();
        let mut revision = 0;
        while let Some(asked) = query {
            let page = timeout(ANSWER_WITHIN, self.kv.range(asked.clone())).await;
            let page = page.map_err(|_| Lost::Silent)??;
            revision = page.revision;
            let ours = page
                .kvs
                .iter()
                .filter_map(|kv| Step::put(&kv.key, &kv.value, kv.mod_revision));
            steps.extend(ours);
            query = asked.next_page(&page);
        }
        Ok((steps, revision))
    }

    fn take(&self, batch: WatchBatch) {
        let Some(revision) = batch.next_revision.checked_sub(1) else {
            return;
        };
        let steps = steps_of(&batch);
        let events = u64::try_from(steps.len()).unwrap_or(u64::MAX);
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.events.fetch_add(events, Ordering::Relaxed);
        self.change(|replica, now| replica.apply(steps, revision, now));
    }

    /// Changes the view as a whole. Readers of changes get them under the same lock, so that whoever begins to
    /// read sees each change either in the view or as a change.
    fn change(&self, change: impl FnOnce(&mut Replica, Instant) -> Vec<Change>) {
        let (mut replica, now) = (self.shared.replica.write(), Instant::now());
        let changes = change(&mut replica, now);
        let revision = replica.view.revision;
        if let (false, Some(sender)) = (changes.is_empty(), &*self.shared.changes.lock()) {
            // An error says that nobody reads.
            let _ = sender.send(Arc::new(changes));
        }
        drop(replica);
        let took_us = u64::try_from(now.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.slowest_apply_us.fetch_max(took_us, Ordering::Relaxed);
        self.revision
            .send_if_modified(|told| std::mem::replace(told, revision) != revision);
        self.following
            .send_if_modified(|following| !std::mem::replace(&mut following.is_listed, true));
    }

    fn set_following(&self, is_following: bool) {
        self.following.send_if_modified(|following| {
            let changed = following.is_following != is_following;
            if changed {
                following.is_following = is_following;
                following.since = Instant::now();
            }
            changed
        });
    }
}

/// What a batch does to keys of ours.
fn steps_of(batch: &WatchBatch) -> Vec<Step> {
    let events = batch.events.iter();
    events
        .filter_map(|event| match event.kind {
            EventKind::Put => Step::put(&event.kv.key, &event.kv.value, event.kv.mod_revision),
            EventKind::Delete => Step::delete(&event.kv.key, event.kv.mod_revision),
        })
        .collect()
}
