//! Entries that a leader hands on while its own disk is still writing them.
//!
//! openraft waits for the leader's own log before it sends an entry to anybody, so that a write pays for two
//! syncs one after the other. Here a leader's log answers at once for what it appends, and everything that
//! could betray the haste waits instead: nothing is applied, and no follower hears that an entry is committed,
//! before it is synced here too. A write still needs this disk and a quorum; they work side by side.
//!
//! Why no lie can outlive the leader:
//! - What a crash takes from the unsynced end was applied nowhere and reported to nobody. The log writes in
//!   order, so a note of what is committed never survives the entry that it names.
//! - A member that stops leading saves a ballot first, which waits for the sync of all before it. So whoever
//!   follows, votes or stands has nothing unsynced, and only what this leader appends in its own term is ever
//!   answered for early.
//!
//! Never may the unsynced end grow without bound: the thread that syncs and whoever appends share a queue,
//! and a full one would make each wait for the other.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

/// How much may be unsynced before an append waits for the disk like everybody else's.
const MAX_UNSYNCED_BYTES: usize = 8 * 1024 * 1024;

/// The end of the log that is handed on but not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Unsynced {
    first: Option<u64>,
    last: u64,
    bytes: usize,
    /// A sync failed: what is unsynced stays so.
    has_failed: bool,
}

impl Unsynced {
    fn covers(&self, index: u64) -> bool {
        self.first.is_some_and(|first| index >= first)
    }
}

/// Lets those wait who must not be ahead of this member's disk. Clones share it.
#[derive(Debug, Clone)]
pub struct SyncGate {
    unsynced: Arc<watch::Sender<Unsynced>>,
    /// The last entry that this member appended as a leader.
    appended: Arc<watch::Sender<u64>>,
}

impl Default for SyncGate {
    fn default() -> Self {
        Self {
            unsynced: Arc::new(watch::Sender::new(Unsynced::default())),
            appended: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl SyncGate {
    /// Returns once the entry is synced. Fails if its sync has failed.
    pub async fn wait(&self, index: u64) -> io::Result<()> {
        if self.is_synced(index) {
            return Ok(());
        }
        let mut seen = self.unsynced.subscribe();
        let ended = seen
            .wait_for(|unsynced| !unsynced.covers(index) || unsynced.has_failed)
            .await
            .map_err(io::Error::other)?;
        if ended.covers(index) {
            Err(io::Error::other(format!("entry {index} was not synced")))
        } else {
            Ok(())
        }
    }

    pub fn is_synced(&self, index: u64) -> bool {
        !self.unsynced.borrow().covers(index)
    }

    /// Returns once this leader appends an entry after `index`.
    pub async fn appended_after(&self, index: u64) {
        let mut appended = self.appended.subscribe();
        // It cannot be closed while the gate is there.
        let _ = appended.wait_for(|last| *last > index).await;
    }

    /// Notes entries that are about to be handed on. `None` if too much is unsynced already.
    pub(crate) fn hand_on(&self, first: u64, last: u64, bytes: usize) -> Option<Debt> {
        self.appended.send_replace(last);
        let is_noted = self.unsynced.send_if_modified(|unsynced| {
            if unsynced.has_failed || unsynced.bytes + bytes > MAX_UNSYNCED_BYTES {
                return false;
            }
            unsynced.first.get_or_insert(first);
            unsynced.last = last;
            unsynced.bytes += bytes;
            true
        });
        is_noted.then(|| Debt {
            gate: self.clone(),
            last,
            bytes,
        })
    }
}

/// The sync that is owed for entries handed on. Dropped unpaid, it counts as failed.
#[derive(Debug)]
pub struct Debt {
    gate: SyncGate,
    last: u64,
    bytes: usize,
}

impl Debt {
    /// All entries up to the last of these are synced.
    pub(crate) fn pay(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let last = self.last;
        self.gate.unsynced.send_modify(|unsynced| {
            unsynced.bytes -= bytes;
            unsynced.first = (unsynced.last > last).then_some(last + 1);
        });
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.gate.unsynced.send_modify(|unsynced| unsynced.has_failed = true);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_waiting(gate: &SyncGate, index: u64) -> bool {
        gate.wait(index).now_or_never().is_none()
    }

    #[test]
    fn what_was_never_handed_on_is_synced() {
        let gate = SyncGate::default();
        assert!(!is_waiting(&gate, 7));
        let _debt = gate.hand_on(5, 6, 10).unwrap();
        assert!(!is_waiting(&gate, 4));
        assert!(is_waiting(&gate, 5));
        assert!(is_waiting(&gate, 6));
    }

    #[test]
    fn syncs_open_the_gate_in_order() {
        let gate = SyncGate::default();
        let first = gate.hand_on(5, 6, 10).unwrap();
        let second = gate.hand_on(7, 9, 10).unwrap();
        first.pay();
        assert!(!is_waiting(&gate, 6));
        assert!(is_waiting(&gate, 7));
        second.pay();
        assert!(!is_waiting(&gate, 9));
        assert!(gate.is_synced(9));
    }

    #[test]
    fn a_failed_sync_is_told_to_those_who_wait_and_nothing_is_handed_on_after_it() {
        let gate = SyncGate::default();
        let first = gate.hand_on(5, 6, 10).unwrap();
        let second = gate.hand_on(7, 9, 10).unwrap();
        first.pay();
        drop(second);
        assert!(gate.wait(6).now_or_never().unwrap().is_ok());
        let error = gate.wait(8).now_or_never().unwrap().unwrap_err();
        assert!(error.to_string().contains("entry 8"), "{error}");
        assert!(gate.hand_on(10, 10, 1).is_none());
    }

    #[test]
    fn the_unsynced_end_is_bounded() {
        let gate = SyncGate::default();
        let debt = gate.hand_on(1, 1, MAX_UNSYNCED_BYTES).unwrap();
        assert!(gate.hand_on(2, 2, 1).is_none());
        debt.pay();
        assert!(gate.hand_on(2, 2, 1).is_some());
    }
}
