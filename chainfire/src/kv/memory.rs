//! The store in memory: plain enough to be seen right, for tests and simulation.
//!
//! It is the yardstick that other stores are compared with, so it shares nothing with them but the
//! interface: every version of every key is kept in full, and every question is answered by looking
//! through them. It must never become clever.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    Consistency, Event, EventKind, GetAnswer, Key, KeyValue, Kv, KvError, Limits, Op, OpResult, RangeAnswer,
    RangeQuery, Revision, Txn, TxnAnswer, Value, WatchBatch, WatchStream,
};

/// A watch batch is closed once it has so many events; its last revision is still delivered whole.
const BATCH_EVENTS: usize = 1000;

/// A watch whose prefix nobody touches hears of progress every so many revisions.
const BOOKMARK_REVISIONS: u64 = 100;

/// A store in memory. It ends its watches when it is dropped.
#[derive(Debug)]
pub struct MemoryKv {
    history: Arc<Mutex<History>>,
    /// Announces the current revision to watches.
    announced: watch::Sender<Revision>,
    limits: Limits,
    free_watches: Arc<Semaphore>,
}

impl MemoryKv {
    pub fn new(limits: Limits) -> Self {
        Self {
            history: Arc::default(),
            announced: watch::Sender::new(0),
            limits,
            free_watches: Arc::new(Semaphore::new(limits.watches)),
        }
    }

    /// Forgets what was before `revision`. The state at `revision` itself stays readable.
    pub fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.history.lock().compact(revision)
    }
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

#[async_trait]
impl Kv for MemoryKv {
    async fn get(&self, key: Key, _consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.limits.check_key(&key)?;
        let history = self.history.lock();
        Ok(GetAnswer {
            revision: history.revision,
            kv: history.at(&key, history.revision).cloned(),
        })
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        let page_keys = self.limits.check_range(&query)?;
        self.history.lock().range(&query, page_keys, self.limits.page_bytes)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        self.limits.check_txn(&txn)?;
        let mut history = self.history.lock();
        let answer = history.run(&txn);
        // Announced under the lock: revisions reach watches in order.
        self.announced.send_replace(history.revision);
        Ok(answer)
    }

    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        self.limits.check_prefix(&prefix)?;
        let place = Arc::clone(&self.free_watches)
            .try_acquire_owned()
            .map_err(|_| KvError::TooMany {
                what: "watches",
                limit: self.limits.watches,
            })?;
        let announced = self.announced.subscribe();
        let next = self.history.lock().first_watched(from)?;
        let watcher = Watcher {
            history: Arc::clone(&self.history),
            announced,
            prefix,
            next,
            bookmarked: None,
            _place: place,
        };
        Ok(stream::unfold(Some(watcher), Watcher::step).boxed())
    }
}

/// One state of a key: the row, or that it was deleted.
#[derive(Debug)]
struct Version {
    since: Revision,
    row: Option<KeyValue>,
}

#[derive(Debug, Default)]
struct History {
    revision: Revision,
    /// Nothing is known of what was before this revision.
    compacted: Revision,
    /// Every key's versions, oldest first.
    versions: BTreeMap<Key, Vec<Version>>,
    /// The changes of every revision, by key.
    changes: BTreeMap<Revision, Vec<Event>>,
}

impl History {
    fn at(&self, key: &Key, revision: Revision) -> Option<&KeyValue> {
        let versions = self.versions.get(key)?;
        versions.iter().rfind(|version| version.since <= revision)?.row.as_ref()
    }

    fn check_revision(&self, asked: Revision) -> Result<(), KvError> {
        if asked > self.revision {
            return Err(KvError::FutureRevision {
                asked,
                current: self.revision,
            });
        }
        if asked < self.compacted {
            return Err(KvError::Compacted {
                asked,
                compacted: self.compacted,
            });
        }
        Ok(())
    }

    fn range(&self, query: &RangeQuery, page_keys: usize, page_bytes: usize) -> Result<RangeAnswer, KvError> {
        let revision = if query.revision == 0 {
            self.revision
        } else {
            query.revision
        };
        self.check_revision(revision)?;
        let mut page = RangeAnswer {
            revision,
            kvs: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        for key in self.versions.keys() {
            if !key.starts_with(&query.prefix) || (!query.after.is_empty() && *key <= query.after) {
                continue;
            }
            let Some(row) = self.at(key, revision) else { continue };
            let mut row = row.clone();
            if query.keys_only {
                row.value = Value::new();
            }
            bytes += row.key.len() + row.value.len();
            if page.kvs.len() == page_keys || (bytes > page_bytes && !page.kvs.is_empty()) {
                page.more = true;
                break;
            }
            page.kvs.push(row);
        }
        Ok(page)
    }

    fn run(&mut self, txn: &Txn) -> TxnAnswer {
        let succeeded = txn
            .compares
            .iter()
            .all(|compare| compare.holds(self.at(&compare.key, self.revision)));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut draft = Draft {
            history: self,
            revision: self.revision + 1,
            rows: BTreeMap::new(),
        };
        let results = ops.iter().map(|op| draft.run(op)).collect();
        let (rows, events) = draft.finish();
        if !events.is_empty() {
            self.revision += 1;
            for (key, row) in rows {
                let since = self.revision;
                self.versions.entry(key).or_default().push(Version { since, row });
            }
            self.changes.insert(self.revision, events);
        }
        TxnAnswer {
            succeeded,
            revision: self.revision,
            results,
        }
    }

    fn first_watched(&self, from: Revision) -> Result<Revision, KvError> {
        let next = self.revision + 1;
        if from > next {
            return Err(KvError::FutureRevision {
                asked: from,
                current: self.revision,
            });
        }
        if from != 0 && from <= self.compacted {
            return Err(KvError::Compacted {
                asked: from,
                compacted: self.compacted,
            });
        }
        Ok(if from == 0 { next } else { from })
    }

    fn compact(&mut self, revision: Revision) -> Result<(), KvError> {
        if revision > self.revision {
            return Err(KvError::FutureRevision {
                asked: revision,
                current: self.revision,
            });
        }
        if revision <= self.compacted {
            return Ok(());
        }
        self.compacted = revision;
        self.changes.retain(|changed, _| *changed > revision);
        self.versions.retain(|_, versions| {
            let shown = versions.iter().rposition(|version| version.since <= revision);
            versions.drain(..shown.unwrap_or(0));
            // A deletion that nothing follows says no more than no version at all.
            versions.len() > 1 || versions.iter().any(|version| version.row.is_some())
        });
        Ok(())
    }
}

/// What a transaction has done so far, on top of the history.
struct Draft<'a> {
    history: &'a History,
    /// The revision it will make if it changes anything.
    revision: Revision,
    rows: BTreeMap<Key, Option<KeyValue>>,
}

impl Draft<'_> {
    fn before(&self, key: &Key) -> Option<&KeyValue> {
        self.history.at(key, self.history.revision)
    }

    fn now(&self, key: &Key) -> Option<&KeyValue> {
        match self.rows.get(key) {
            Some(row) => row.as_ref(),
            None => self.before(key),
        }
    }

    fn run(&mut self, op: &Op) -> OpResult {
        match op {
            Op::Get { key } => OpResult::Got(self.now(key).cloned()),
            Op::Put { key, value } => {
                self.put(key, value);
                OpResult::Touched(1)
            }
            Op::Delete { key } => OpResult::Touched(self.delete(key)),
            Op::DeletePrefix { prefix } => {
                let mut keys: Vec<Key> = self.history.versions.keys().cloned().collect();
                keys.extend(self.rows.keys().cloned());
                keys.retain(|key| key.starts_with(prefix));
                // The second time it meets a key, the key is gone.
                OpResult::Touched(keys.iter().map(|key| self.delete(key)).sum())
            }
        }
    }

    fn put(&mut self, key: &Key, value: &Value) {
        let (create_revision, version) = match self.now(key) {
            None => (self.revision, 1),
            // Put twice in one transaction: still one change.
            Some(row) if row.mod_revision == self.revision => (row.create_revision, row.version),
            Some(row) => (row.create_revision, row.version + 1),
        };
        let row = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision,
            mod_revision: self.revision,
            version,
        };
        self.rows.insert(key.clone(), Some(row));
    }

    fn delete(&mut self, key: &Key) -> u64 {
        if self.now(key).is_none() {
            return 0;
        }
        self.rows.insert(key.clone(), None);
        1
    }

    /// The rows that differ from before, and their events, both by key.
    fn finish(self) -> (BTreeMap<Key, Option<KeyValue>>, Vec<Event>) {
        let mut rows = self.rows;
        rows.retain(|key, row| row.is_some() || self.history.at(key, self.history.revision).is_some());
        let events = rows
            .iter()
            .map(|(key, row)| match row {
                Some(row) => Event {
                    kind: EventKind::Put,
                    kv: row.clone(),
                },
                None => Event {
                    kind: EventKind::Delete,
                    kv: KeyValue {
                        key: key.clone(),
                        value: Value::new(),
                        create_revision: 0,
                        mod_revision: self.revision,
                        version: 0,
                    },
                },
            })
            .collect();
        (rows, events)
    }
}

/// One watch: a place in the history, so that it needs no queue of its own.
struct Watcher {
    history: Arc<Mutex<History>>,
    announced: watch::Receiver<Revision>,
    prefix: Key,
    next: Revision,
    /// Where the last batch ended; `None` before the first bookmark.
    bookmarked: Option<Revision>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    async fn step(watcher: Option<Self>) -> Option<(Result<WatchBatch, KvError>, Option<Self>)> {
        let mut watcher = watcher?;
        loop {
            match watcher.poll_history() {
                Ok(Some(batch)) => return Some((Ok(batch), Some(watcher))),
                Ok(None) => watcher.announced.changed().await.ok()?,
                Err(error) => return Some((Err(error), None)),
            }
        }
    }

    /// What can be delivered right now.
    fn poll_history(&mut self) -> Result<Option<WatchBatch>, KvError> {
        self.announced.mark_unchanged();
        let Some(bookmarked) = self.bookmarked else {
            return Ok(Some(self.batch(Vec::new())));
        };
        let history = Arc::clone(&self.history);
        let history = history.lock();
        if self.next <= history.compacted {
            return Err(KvError::SlowWatcher {
                needed: self.next,
                compacted: history.compacted,
            });
        }
        let mut events = Vec::new();
        for (revision, changes) in history.changes.range(self.next..) {
            let ours = changes.iter().filter(|event| event.kv.key.starts_with(&self.prefix));
            events.extend(ours.cloned());
            self.next = revision + 1;
            if events.len() >= BATCH_EVENTS {
                break;
            }
        }
        let worth_telling = !events.is_empty() || self.next >= bookmarked + BOOKMARK_REVISIONS;
        Ok(worth_telling.then(|| self.batch(events)))
    }

    fn batch(&mut self, events: Vec<Event>) -> WatchBatch {
        self.bookmarked = Some(self.next);
        WatchBatch {
            events,
            next_revision: self.next,
        }
    }
}

#[cfg(test)]
mod tests;
