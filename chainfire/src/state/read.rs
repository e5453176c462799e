//! The handle that everyone shares: reading the state, waiting for it, and saying that it is damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{Notify, watch as channel};

use super::base::BaseError;
use super::boundary::Boundary;
use super::row::Row;
use super::watch::{self, Hub};
use super::window::{ScanChunk, Window};
use crate::kv::{GetAnswer, Key, KvError, Limits, RangeAnswer, RangeQuery, Revision, WatchStream, prefix_end};

/// Keys that a scan visits before it lets the applier go on.
const SCAN_CHUNK: usize = 256;

/// How far this member has applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    pub index: u64,
    pub revision: Revision,
}

/// A member's applied state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    window: RwLock<Window>,
    hub: Hub,
    applied: channel::Sender<Applied>,
    limits: Limits,
    /// Wakes the flusher, and whoever waits for it.
    flush_wanted: Notify,
    flushed: Notify,
    damage: Mutex<Option<String>>,
    snapshot_bytes: AtomicU64,
}

impl State {
    pub(super) fn new(window: Window, limits: Limits) -> Self {
        let (applied, _) = channel::channel(applied_of(window.tip()));
        let hub = Hub::default();
        hub.replaced(window.revision());
        Self {
            shared: Arc::new(Shared {
                window: RwLock::new(window),
                hub,
                applied,
                limits,
                flush_wanted: Notify::new(),
                flushed: Notify::new(),
                damage: Mutex::new(None),
                snapshot_bytes: AtomicU64::new(0),
            }),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Reads one key as it is now.
    pub fn get(&self, key: &Key) -> Result<GetAnswer, KvError> {
        let window = self.window();
        let row = window.get(key).map_err(|error| self.damaged(&error))?;
        Ok(GetAnswer {
            revision: window.revision(),
            kv: row.map(|row| row.into_key_value(key.clone())),
        })
    }

    /// Reads one page.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeAnswer, KvError> {
        let limits = &self.shared.limits;
        let limit = limits.check_range(query)?;
        let pinned = self.pin(query.revision)?;
        let end = prefix_end(&query.prefix);
        let mut answer = RangeAnswer {
            revision: pinned.revision(),
            kvs: Vec::new(),
            more: false,
        };
        let mut bytes = 0;
        let mut after = query.after.clone();
        loop {
            let wanted = (limit + 1 - answer.kvs.len()).min(SCAN_CHUNK);
            let (rows, more) = pinned.scan(&query.prefix, &after, end.as_deref(), wanted)?;
            for (key, row) in rows {
                bytes += key.len() + if query.keys_only { 0 } else { row.value.len() };
                if answer.kvs.len() == limit || (bytes > limits.page_bytes && !answer.kvs.is_empty()) {
                    answer.more = true;
                    return Ok(answer);
                }
                let mut kv = row.into_key_value(key);
                if query.keys_only {
                    kv.value = Key::new();
                }
                answer.kvs.push(kv);
            }
            match more {
                Some(last) => after = last,
                None => return Ok(answer),
            }
        }
    }

    /// Streams the changes under a prefix.
    pub fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        self.shared.limits.check_prefix(&prefix)?;
        watch::watch(self.clone(), prefix, from, self.shared.limits.watches)
    }

    /// Waits until an index of the log is applied here.
    pub async fn wait_applied(&self, index: u64, at_most: Duration) -> Result<(), KvError> {
        let mut applied = self.shared.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.index >= index);
        match tokio::time::timeout(at_most, reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(KvError::Timeout {
                waited_ms: u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX),
                reason: format!("this member has not applied index {index} yet"),
            }),
        }
    }

    pub fn applied(&self) -> channel::Receiver<Applied> {
        self.shared.applied.subscribe()
    }

    /// The state after the last applied entry.
    pub fn boundary(&self) -> Boundary {
        self.window().tip().clone()
    }

    pub fn revision(&self) -> Revision {
        self.window().revision()
    }

    /// The oldest revision that can still be read.
    pub fn floor(&self) -> Revision {
        self.window().floor()
    }

    pub fn window_bytes(&self) -> usize {
        self.window().bytes()
    }

    pub fn watches(&self) -> usize {
        self.shared.hub.count()
    }

    /// Ends every watch, for a shutdown.
    pub fn close_watches(&self) {
        self.shared.hub.close();
    }

    /// What made this state unusable, if anything did.
    pub fn damage(&self) -> Option<String> {
        self.shared.damage.lock().clone()
    }

    /// The size of the last snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.shared.snapshot_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn note_snapshot(&self, bytes: u64) {
        self.shared.snapshot_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Holds history at a revision (0: now) for as long as the guard lives.
    pub fn pin(&self, revision: Revision) -> Result<Pinned, KvError> {
        let mut window = self.window_mut();
        let current = window.revision();
        if revision > current {
            return Err(KvError::FutureRevision {
                asked: revision,
                current,
            });
        }
        let at = if revision == 0 { current } else { revision };
        if at < window.floor() {
            return Err(KvError::Compacted {
                asked: at,
                compacted: window.floor(),
            });
        }
        window.pin(at);
        Ok(Pinned {
            boundary: window.tip().clone(),
            revision: at,
            generation: window.generation(),
            state: self.clone(),
        })
    }

    pub(super) fn window(&self) -> RwLockReadGuard<'_, Window> {
        self.shared.window.read()
    }

    pub(super) fn window_mut(&self) -> RwLockWriteGuard<'_, Window> {
        self.shared.window.write()
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    pub(super) fn flush_wanted(&self) -> &Notify {
        &self.shared.flush_wanted
    }

    pub(super) fn flushed(&self) -> &Notify {
        &self.shared.flushed
    }

    /// Tells watchers and waiters what has just been applied.
    pub(super) fn publish(&self) {
        let applied = {
            let window = self.window();
            self.shared.hub.publish(&window, window.revision());
            applied_of(window.tip())
        };
        self.shared.applied.send_replace(applied);
    }

    pub(super) fn publish_replaced(&self) {
        let applied = applied_of(self.window().tip());
        self.shared.hub.replaced(applied.revision);
        self.shared.applied.send_replace(applied);
    }

    /// Remembers that the stored state cannot be trusted; the member's supervisor acts on it.
    pub(super) fn damaged(&self, error: &BaseError) -> KvError {
        let reason = error.to_string();
        self.shared.damage.lock().get_or_insert_with(|| reason.clone());
        KvError::Unavailable { reason }
    }
}

fn applied_of(tip: &Boundary) -> Applied {
    Applied {
        index: tip.applied.map_or(0, |id| id.index),
        revision: tip.revision,
    }
}

/// A revision that stays readable.
#[derive(Debug)]
pub struct Pinned {
    state: State,
    revision: Revision,
    generation: u64,
    boundary: Boundary,
}

impl Pinned {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The state at the moment of pinning; its rows are those at [`revision`](Self::revision) if now was
    /// pinned.
    pub fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    /// Rows at the pinned revision: see [`Window::scan`].
    pub fn scan(&self, prefix: &[u8], after: &[u8], end: Option<&[u8]>, limit: usize) -> Result<ScanChunk, KvError> {
        let window = self.state.window();
        if window.generation() != self.generation {
            return Err(KvError::Compacted {
                asked: self.revision,
                compacted: window.floor(),
            });
        }
        window
            .scan(prefix, after, end, self.revision, limit)
            .map_err(|error| self.state.damaged(&error))
    }

    /// Every row at the pinned revision, in order.
    pub fn rows(&self) -> impl Iterator<Item = Result<(Key, Row), KvError>> + '_ {
        let mut chunk = Vec::new().into_iter();
        let mut after = Some(Key::new());
        std::iter::from_fn(move || {
            loop {
                if let Some(row) = chunk.next() {
                    return Some(Ok(row));
                }
                match self.scan(b"", &after.take()?, None, SCAN_CHUNK) {
                    Ok((rows, more)) => {
                        chunk = rows.into_iter();
                        after = more;
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut window = self.state.window_mut();
        if window.generation() == self.generation {
            window.unpin(self.revision);
        }
    }
}
