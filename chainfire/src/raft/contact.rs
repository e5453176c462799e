//! When this member last heard from a leader, and whom it told that it would vote for him: what elections and
//! pre-votes go by.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The last sign of a leader, and the last promise, on this machine's monotonic clock.
#[derive(Debug)]
pub struct LeaderContact {
    last: Mutex<Instant>,
    promised_until: Mutex<Option<Instant>>,
    /// Votes for others that are on their way to the disk.
    voting: AtomicUsize,
    /// Candidacies of its own whose outcome is not known yet.
    standing: AtomicUsize,
    /// Times that this member leads and keeps silent, so that another one can be elected.
    giving_way: AtomicUsize,
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for LeaderContact {
    /// A member that has just started gives a leader the usual time to show itself.
    fn default() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
            promised_until: Mutex::new(None),
            voting: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            giving_way: AtomicUsize::new(0),
        }
    }
}

impl LeaderContact {
    /// A leader was heard, or a vote was given to one who will be.
    pub fn heard(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Somebody was told that he would be voted for: for so long this member does not stand against him.
    pub fn promised(&self, span: Duration) {
        *self.promised_until.lock() = Some(Instant::now() + span);
    }

    /// A vote for somebody else is being kept; until it is, this member does not stand against him.
    pub fn begin_voting(&self) -> UnderWay<'_> {
        UnderWay::begin(&self.voting)
    }

    pub fn is_voting(&self) -> bool {
        self.voting.load(Ordering::Acquire) > 0
    }

    /// This member stands; until the outcome is known, it tells nobody that it would vote for him.
    pub fn begin_standing(&self) -> UnderWay<'_> {
        UnderWay::begin(&self.standing)
    }

    pub fn is_standing(&self) -> bool {
        self.standing.load(Ordering::Acquire) > 0
    }

    /// This leader keeps silent: whatever it sent would keep the others from electing.
    pub fn begin_giving_way(&self) -> UnderWay<'_> {
        UnderWay::begin(&self.giving_way)
    }

    pub fn is_giving_way(&self) -> bool {
        self.giving_way.load(Ordering::Acquire) > 0
    }

    /// How much of a promise is left.
    pub fn promise_left(&self) -> Option<Duration> {
        let left = self
            .promised_until
            .lock()
            .as_ref()?
            .checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }

    /// How long the leader has been silent.
    pub fn silence(&self) -> Duration {
        self.last.lock().elapsed()
    }
}
