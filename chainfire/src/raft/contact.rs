//! When this member last heard from a leader: what elections and pre-votes go by.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The last sign of a leader, on this machine's monotonic clock.
#[derive(Debug)]
pub struct LeaderContact {
    last: Mutex<Instant>,
}

impl Default for LeaderContact {
    /// A member that has just started gives a leader the usual time to show itself.
    fn default() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
        }
    }
}

impl LeaderContact {
    /// A leader was heard, or a vote was given to one who will be.
    pub fn heard(&self) {
        *self.last.lock() = Instant::now();
    }

    /// How long the leader has been silent.
    pub fn silence(&self) -> Duration {
        self.last.lock().elapsed()
    }
}
