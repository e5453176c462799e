//! The flusher: one thread that moves the oldest entries from the window to the base.
//!
//! It is the only writer of a base while a member runs. It works in small steps, so that a read never
//! waits long for sled, and each step is a whole number of entries with the record that says so. When it has had
//! nothing to do for a while, it gives back the memory that is free by then.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::read::State;
use crate::allocator;

/// Flushing begins when the window is larger, and ends when it is this much smaller.
#[derive(Debug, Clone, Copy)]
pub struct FlushLimits {
    pub begin_bytes: usize,
    pub end_bytes: usize,
    /// Applying waits while the window is larger than this.
    pub stop_bytes: usize,
}

impl Default for FlushLimits {
    fn default() -> Self {
        Self {
            begin_bytes: 8 << 20,
            end_bytes: 7 << 20,
            stop_bytes: 64 << 20,
        }
    }
}

/// How long nothing was to be flushed before memory is given back: who goes on writing would want it again.
const QUIET: Duration = Duration::from_secs(1);
/// Distinct keys of one step.
const STEP_ROWS: usize = 512;

/// The running flusher; dropping it ends the thread after the step it is in.
#[derive(Debug)]
pub struct Flusher {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub fn spawn(state: State, limits: FlushLimits) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("chainfire-flush".to_owned())
            .spawn(move || run(&state, limits, &stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its own message.
            let _ = thread.join();
        }
    }
}

fn run(state: &State, limits: FlushLimits, stop: &CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the flusher cannot start");
            return;
        }
    };
    // Opening the store has left some.
    let mut has_freed = true;
    while !stop.is_cancelled() {
        if state.window_bytes() > limits.begin_bytes {
            drain(state, limits.end_bytes, stop);
            hand_to_the_system(state);
            has_freed = true;
        }
        if state.window_bytes() > limits.begin_bytes && state.damage().is_none() {
            // A pin holds the floor: its end, or the next entry, wakes us.
            tracing::debug!("history is held by a reader");
        }
        runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = state.flush_wanted().notified() => {}
                () = tokio::time::sleep(QUIET), if has_freed => {
                    allocator::give_back();
                    has_freed = false;
                }
            }
        });
    }
}

/// What sled still buffers would be lost with the process, and its entries applied once more.
fn hand_to_the_system(state: &State) {
    let base = std::sync::Arc::clone(state.window().base());
    if let Err(error) = base.flush() {
        state.damaged(&error);
    }
}

fn drain(state: &State, end_bytes: usize, stop: &CancellationToken) {
    while state.window_bytes() > end_bytes && !stop.is_cancelled() {
        let Some(flush) = state.window_mut().begin_flush(STEP_ROWS) else {
            return;
        };
        if let Err(error) = flush.base.write(&flush.rows, &flush.target.to_meta()) {
            tracing::error!(%error, "the applied state cannot be stored");
            state.damaged(&error);
            state.flushed().notify_waiters();
            return;
        }
        state.window_mut().finish_flush(&flush);
        state.flushed().notify_waiters();
    }
}

#[cfg(test)]
impl State {
    /// Forgets history below a revision, as the flusher does when the window is full.
    pub fn compact(&self, revision: crate::kv::Revision) -> Result<(), crate::kv::KvError> {
        if revision < self.floor() {
            return Ok(());
        }
        let _pinned = self.pin(revision)?;
        loop {
            let Some(flush) = self.window_mut().begin_flush(STEP_ROWS) else {
                return Ok(());
            };
            flush
                .base
                .write(&flush.rows, &flush.target.to_meta())
                .map_err(|error| self.damaged(&error))?;
            self.window_mut().finish_flush(&flush);
        }
    }
}
