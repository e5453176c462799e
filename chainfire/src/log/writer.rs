//! Orders to the log, and their common sync.
//!
//! The log beneath writes and syncs on a thread of its own; an order passes through no other thread on its
//! way there, and is acknowledged from it. While one flush is under way the orders that come share the
//! next. After the first error nothing is written any more: what is on the disk is then uncertain, and only
//! opening the log again can tell.
//!
//! Locking: `running` may be held while `watermark` or `failure` is taken, never the other way round. The
//! thread that syncs takes `running` too, so whoever holds it must not wait for that thread: one call hands
//! over at most `MAX_APPEND_BYTES`, which the queue between the two always has room for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::oneshot;

use super::error::LogFailure;
use super::faults::Faults;
use super::flush::{FlushGroup, Waiter};
use super::folder::LogFolder;
use super::payload::LogTypes;
use super::watermark::{Mark, Watermark};
use crate::raft::types::{Entry, LogId};

/// The most that one call may append; half of what the queue to the log beneath holds.
pub const MAX_APPEND_BYTES: usize = 32 * 1024 * 1024;

/// Told how long each write and sync took, on the thread that made it.
pub type SyncObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// Shared by all handles to one open log.
pub struct Writer {
    /// `None` once closed.
    running: RwLock<Option<Running>>,
    watermark: Mutex<Watermark>,
    failure: Mutex<Option<Failure>>,
    observe_sync: SyncObserver,
    faults: Faults,
}

struct Failure {
    reason: LogFailure,
    /// The thread of the log has ended, and only the log beneath knows why.
    is_hearsay: bool,
}

/// Dropped in this order: the folder is free only when the thread of the log has ended.
struct Running {
    raft_log: RaftLog<LogTypes>,
    is_flushing: bool,
    waiting: Vec<Waiter>,
    _folder: LogFolder,
}

impl Writer {
    pub fn new(
        raft_log: RaftLog<LogTypes>,
        folder: LogFolder,
        watermark: Watermark,
        observe_sync: SyncObserver,
    ) -> Self {
        Self {
            running: RwLock::new(Some(Running {
                raft_log,
                is_flushing: false,
                waiting: Vec::new(),
                _folder: folder,
            })),
            watermark: Mutex::new(watermark),
            failure: Mutex::new(None),
            observe_sync,
            faults: Faults::from_environment(),
        }
    }

    #[cfg(feature = "faults")]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    pub fn epoch(&self) -> u64 {
        self.watermark.lock().epoch()
    }

    pub fn failure(&self) -> Option<LogFailure> {
        self.find_reason();
        self.failure.lock().as_ref().map(|failure| failure.reason.clone())
    }

    /// Asks the log something, without waiting for orders under way.
    pub fn ask<T>(&self, question: impl FnOnce(&RaftLog<LogTypes>) -> T) -> io::Result<T> {
        let running = self.running.read();
        let running = running.as_ref().ok_or_else(closed)?;
        Ok(question(&running.raft_log))
    }

    /// Reads entries from `from` to before `to`, at least one if there is one, ending before `budget_bytes`
    /// are exceeded.
    pub fn read(&self, from: u64, to: u64, budget_bytes: usize) -> io::Result<Vec<Entry>> {
        self.ask(|raft_log| {
            let mut entries = Vec::new();
            let mut bytes = 0;
            if from >= to {
                return Ok(entries);
            }
            for record in raft_log.read(from, to) {
                let (id, payload) = record?;
                bytes += payload.body_bytes();
                if !entries.is_empty() && bytes > budget_bytes {
                    break;
                }
                entries.push(payload.into_entry(id)?);
            }
            Ok(entries)
        })?
    }

    /// Gives an order. With a waiter it is synced, and the waiter told; without one it goes with the next
    /// order that has one.
    pub fn submit(
        self: &Arc<Self>,
        waiter: Option<Waiter>,
        order: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut running = self.running.write();
        let running = running.as_mut().ok_or_else(closed)?;
        if let Some(failure) = self.failure.lock().as_ref() {
            return Err(failure.reason.clone().into_io());
        }
        order(&mut running.raft_log).inspect_err(|error| self.fail(error))?;
        if let Some(waiter) = waiter {
            running.waiting.push(waiter);
            running.flush(self).inspect_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Gives an order and waits until it is durable. The wait ends when the sync does, well or not.
    pub async fn complete(
        self: &Arc<Self>,
        order: impl FnOnce(&mut RaftLog<LogTypes>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (answer, durable) = oneshot::channel();
        self.submit(Some(Waiter::Order(answer)), order)?;
        durable.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Prepares the watermark for a truncation. Nothing may be in flight.
    pub fn lower_watermark(&self, last: Option<LogId>) -> io::Result<()> {
        self.watermark.lock().lower(last).inspect_err(|error| self.fail(error))
    }

    /// Stops all writing, for good. The first reason is kept.
    pub fn fail(&self, error: &io::Error) {
        // The log beneath fails for a cause, with its kind, or because its thread is gone.
        self.stop(LogFailure::from_io(error), error.kind() == io::ErrorKind::Other);
    }

    pub fn fail_as(&self, reason: LogFailure) {
        self.stop(reason, false);
    }

    fn stop(&self, reason: LogFailure, is_hearsay: bool) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(kind = ?reason.kind, detail = %reason.detail, "the log stopped");
            *failure = Some(Failure { reason, is_hearsay });
        }
    }

    /// Replaces hearsay with what ended the thread of the log: a write without a waiter may have failed.
    fn find_reason(&self) {
        let is_hearsay = self.failure.lock().as_ref().is_some_and(|failure| failure.is_hearsay);
        if !is_hearsay {
            return;
        }
        // No wait: the thread is gone, and left its reason before.
        if let Ok(Err(error)) = self.ask(|raft_log| raft_log.wait_worker_idle()) {
            let reason = LogFailure::from_io(&error);
            tracing::error!(kind = ?reason.kind, detail = %reason.detail, "why the log stopped");
            *self.failure.lock() = Some(Failure {
                reason,
                is_hearsay: false,
            });
        }
    }

    /// Ends the thread of the log and frees the folder. Whoever still waits is told that it failed.
    pub fn close(&self) {
        self.find_reason();
        let running = self.running.write().take();
        if running.is_none() {
            return;
        }
        // Outside of the lock: the thread that ends may still want it.
        drop(running);
        if let Err(error) = self.watermark.lock().sync() {
            tracing::warn!(%error, "the watermark was not synced at the end");
        }
    }

    pub(super) fn note_synced(&self, mark: Mark, began: Instant) -> io::Result<()> {
        self.faults.delay_sync();
        self.watermark.lock().raise(mark)?;
        (self.observe_sync)(began.elapsed());
        Ok(())
    }

    pub(super) fn flush_next(self: &Arc<Self>) {
        if let Err(error) = self.watermark.lock().sync_if_due() {
            self.fail(&error);
        }
        let mut running = self.running.write();
        let Some(running) = running.as_mut() else { return };
        running.is_flushing = false;
        if let Err(error) = running.flush(self) {
            self.fail(&error);
        }
    }
}

impl Running {
    fn flush(&mut self, writer: &Arc<Writer>) -> io::Result<()> {
        if self.is_flushing || self.waiting.is_empty() {
            return Ok(());
        }
        let group = FlushGroup {
            writer: Arc::clone(writer),
            mark: mark_of(&self.raft_log),
            waiters: std::mem::take(&mut self.waiting),
            began: Instant::now(),
            ended: false,
        };
        self.is_flushing = true;
        self.raft_log.flush(true, Some(group))
    }
}

/// How far a log is, once all that was ordered is synced.
pub fn mark_of(raft_log: &RaftLog<LogTypes>) -> Mark {
    let state = raft_log.log_state();
    Mark {
        last: state.last().map(|id| id.0),
        purged: state.purged().map(|id| id.0),
        ballot: state.vote().map(|vote| vote.0),
    }
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}
