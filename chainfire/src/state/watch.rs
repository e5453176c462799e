//! Who waits for which changes.
//!
//! A watcher has no queue that could overflow: it reads the shared window at its own pace and only
//! remembers the first revision that concerns it and that it has not read. If the flusher drops that
//! revision first, the watcher is told that it fell behind; it can never skip.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::read::State;
use super::window::Window;
use crate::kv::{Event, Key, KvError, Revision, WatchBatch, WatchStream};

/// A batch of a watch ends after this many events or bytes, at the next whole revision.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
/// How often an idle watch is told how far it has got.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);

/// Everyone who watches.
#[derive(Debug, Default)]
pub struct Hub {
    inner: Mutex<Registry>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Registry {
    by_prefix: HashMap<Key, Vec<Arc<Watcher>>>,
    /// How many distinct prefixes have this length: what a key is looked up by.
    lengths: BTreeMap<usize, usize>,
    count: usize,
    /// The newest revision that watchers have been told of.
    published: Revision,
}

#[derive(Debug)]
struct Watcher {
    prefix: Key,
    /// The first matching revision that was published and not read.
    unread: Mutex<Option<Revision>>,
    wake: Notify,
}

impl Hub {
    /// Tells watchers of the revisions up to `tip`. Called by the applier alone, after the window has
    /// them.
    pub fn publish(&self, window: &Window, tip: Revision) {
        let mut registry = self.inner.lock();
        let from = registry.published + 1;
        registry.published = tip;
        if registry.count == 0 {
            return;
        }
        for revision in from..=tip {
            for key in window.changed_keys(revision) {
                for length in registry.lengths.keys().take_while(|length| **length <= key.len()) {
                    let Some(watchers) = registry.by_prefix.get(&key[..*length]) else {
                        continue;
                    };
                    for watcher in watchers {
                        watcher.unread.lock().get_or_insert(revision);
                        watcher.wake.notify_one();
                    }
                }
            }
        }
    }

    /// The state was replaced as a whole: everyone looks for himself what that means for him.
    pub fn replaced(&self, tip: Revision) {
        let mut registry = self.inner.lock();
        let first_missed = registry.published + 1;
        registry.published = tip;
        for watcher in registry.by_prefix.values().flatten() {
            if first_missed <= tip {
                watcher.unread.lock().get_or_insert(first_missed);
            }
            watcher.wake.notify_one();
        }
    }

    /// Ends every watch.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for watcher in self.inner.lock().by_prefix.values().flatten() {
            watcher.wake.notify_one();
        }
    }

    pub fn count(&self) -> usize {
        self.inner.lock().count
    }

    /// Adds a watcher; answers with the revision up to which others have been told.
    fn register(&self, watcher: &Arc<Watcher>, limit: usize) -> Result<Revision, KvError> {
        let mut registry = self.inner.lock();
        if registry.count >= limit {
            return Err(KvError::TooMany { what: "watches", limit });
        }
        registry.count += 1;
        let published = registry.published;
        let watchers = registry.by_prefix.entry(watcher.prefix.clone()).or_default();
        watchers.push(Arc::clone(watcher));
        if watchers.len() == 1 {
            *registry.lengths.entry(watcher.prefix.len()).or_default() += 1;
        }
        Ok(published)
    }

    fn unregister(&self, watcher: &Arc<Watcher>) {
        let mut registry = self.inner.lock();
        let Some(watchers) = registry.by_prefix.get_mut(&watcher.prefix) else {
            return;
        };
        watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        if watchers.is_empty() {
            registry.by_prefix.remove(&watcher.prefix);
            let length = watcher.prefix.len();
            if let Some(count) = registry.lengths.get_mut(&length) {
                *count -= 1;
                if *count == 0 {
                    registry.lengths.remove(&length);
                }
            }
        }
        registry.count -= 1;
    }
}

/// One watch, as long as its stream is held.
struct Cursor {
    state: State,
    watcher: Arc<Watcher>,
    /// Everything below has been delivered.
    next: Revision,
    started: bool,
    failed: bool,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.state.hub().unregister(&self.watcher);
    }
}

/// Starts a watch: see [`Kv::watch`](crate::kv::Kv::watch).
pub fn watch(state: State, prefix: Key, from: Revision, limit: usize) -> Result<WatchStream, KvError> {
    let watcher = Arc::new(Watcher {
        prefix,
        // What was applied before the watcher is registered, it has to look for itself; a revision that
        // does not exist yet is simply not found there.
        unread: Mutex::new(Some(from).filter(|from| *from != 0)),
        wake: Notify::new(),
    });
    let published = state.hub().register(&watcher, limit)?;
    let cursor = Cursor {
        next: if from == 0 { published + 1 } else { from },
        state,
        watcher,
        started: false,
        failed: false,
    };
    {
        let window = cursor.state.window();
        if from != 0 && from <= window.floor() {
            return Err(KvError::Compacted {
                asked: from,
                compacted: window.floor(),
            });
        }
        if from > window.revision() + 1 {
            return Err(KvError::FutureRevision {
                asked: from,
                current: window.revision(),
            });
        }
    }
    Ok(Box::pin(futures::stream::unfold(cursor, |mut cursor| async move {
        let item = cursor.next_batch().await?;
        Some((item, cursor))
    })))
}

impl Cursor {
    async fn next_batch(&mut self) -> Option<Result<WatchBatch, KvError>> {
        if self.failed {
            return None;
        }
        if !self.started {
            self.started = true;
            return Some(Ok(self.bookmark()));
        }
        loop {
            if self.state.hub().closed.load(Ordering::Acquire) {
                return None;
            }
            let unread = self.watcher.unread.lock().take();
            match unread {
                Some(unread) => match self.read_from(unread.max(self.next)) {
                    Ok(batch) if batch.events.is_empty() => {}
                    Ok(batch) => return Some(Ok(batch)),
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                },
                None => {
                    let woken = tokio::time::timeout(BOOKMARK_EVERY, self.watcher.wake.notified()).await;
                    if woken.is_err() && self.advance() {
                        return Some(Ok(self.bookmark()));
                    }
                }
            }
        }
    }

    fn bookmark(&self) -> WatchBatch {
        WatchBatch {
            events: Vec::new(),
            next_revision: self.next,
        }
    }

    /// Nothing is unread, so everything published is behind us.
    fn advance(&mut self) -> bool {
        let registry = self.state.hub().inner.lock();
        if self.watcher.unread.lock().is_some() {
            return false;
        }
        self.next = self.next.max(registry.published + 1);
        true
    }

    /// Reads whole revisions from `from` on.
    fn read_from(&mut self, from: Revision) -> Result<WatchBatch, KvError> {
        let window = self.state.window();
        if from <= window.floor() {
            return Err(KvError::SlowWatcher {
                needed: from,
                compacted: window.floor(),
            });
        }
        let mut events: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut revision = from;
        while revision <= window.revision() {
            let seen = events.len();
            window.events(revision, &self.watcher.prefix, &mut events);
            #[cfg(feature = "faults")]
            crate::faults::skip_an_event(&mut events, seen);
            bytes += events[seen..].iter().map(|event| event.kv.value.len()).sum::<usize>();
            revision += 1;
            if events.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES {
                break;
            }
        }
        if revision <= window.revision() {
            self.watcher.unread.lock().replace(revision);
        }
        self.next = revision;
        Ok(WatchBatch {
            events,
            next_revision: revision,
        })
    }
}
