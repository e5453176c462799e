//! What happens when a flush has ended: the watermark, then the acknowledgements, then the next flush.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::storage::LogFlushed;
use tokio::sync::oneshot;

use super::ahead::Debt;
use super::watermark::Mark;
use super::writer::Writer;
use crate::raft::types::TypeConfig;

/// Who wants to know that an order is durable. Dropped unanswered, it counts as failed.
pub enum Waiter {
    Append(LogFlushed<TypeConfig>),
    /// The append was answered before.
    HandedOn(Debt),
    Order(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn answer(self, result: &io::Result<()>) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match self {
            Waiter::Append(flushed) => flushed.log_io_completed(result),
            Waiter::HandedOn(debt) if result.is_ok() => debt.pay(),
            Waiter::HandedOn(unpaid) => drop(unpaid),
            // Whoever gave the order may have gone; it is durable all the same.
            Waiter::Order(answer) => drop(answer.send(result)),
        }
    }
}

/// Everything that one sync of the log makes durable.
pub struct FlushGroup {
    pub(super) writer: Arc<Writer>,
    pub(super) mark: Mark,
    pub(super) waiters: Vec<Waiter>,
    pub(super) began: Instant,
    pub(super) ended: bool,
}

impl FlushGroup {
    fn end(&mut self, result: io::Result<()>) {
        let result = result.and_then(|()| self.writer.note_synced(self.mark, self.began));
        if let Err(error) = &result {
            self.writer.fail(error);
        }
        for waiter in self.waiters.drain(..) {
            waiter.answer(&result);
        }
        if result.is_ok() {
            self.writer.flush_next();
        }
        self.ended = true;
    }
}

/// Runs on the thread that has just synced.
impl raft_log::Callback for FlushGroup {
    fn send(mut self, result: Result<(), io::Error>) {
        self.end(result);
    }
}

/// Also after a panic, so that nobody waits for a flush that will not come.
impl Drop for FlushGroup {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(io::Error::other("the log ended before it was synced")));
        }
    }
}
