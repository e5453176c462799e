//! How the disk is: how much room it has, and whether it has become slow. Writes are refused before it is full, so that what Raft itself must write
//! still fits; if it fills up all the same, the supervisor waits for room.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::kv::KvError;

/// How often the room is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A sync of the log that takes longer is slow: hosts that hear of nothing for some seconds hold their VMs still.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// One slow sync is a hiccup; a disk is slow when all of them are for so long.
const SLOW_FOR: Duration = Duration::from_secs(2);

/// The room on the disk of a folder, as of the last look, and the pace of its syncs.
#[derive(Debug)]
pub struct DiskRoom {
    folder: PathBuf,
    reserve: u64,
    free: AtomicU64,
    /// When the first began of the syncs that were all slow.
    slow_since: Mutex<Option<Instant>>,
}

impl DiskRoom {
    pub fn new(folder: &Path, reserve: u64) -> Self {
        let room = Self {
            folder: folder.to_owned(),
            reserve,
            free: AtomicU64::new(u64::MAX),
            slow_since: Mutex::new(None),
        };
        room.look();
        room
    }

    /// Looks again. A folder that cannot be asked is not a reason to refuse writes.
    pub fn look(&self) {
        let free = rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
        self.free.store(free, Ordering::Relaxed);
    }

    /// The log was synced.
    pub fn note_sync(&self, took: Duration) {
        let mut slow_since = self.slow_since.lock();
        if took < SLOW_SYNC {
            *slow_since = None;
        } else if slow_since.is_none() {
            *slow_since = Instant::now().checked_sub(took);
        }
    }

    /// Whether every sync has been slow for some time. A disk that answers nothing at all stops a leader by itself.
    pub fn is_slow(&self) -> bool {
        self.slow_since.lock().is_some_and(|since| since.elapsed() >= SLOW_FOR)
    }

    /// Whether a write may be accepted.
    pub fn check(&self) -> Result<(), KvError> {
        let free = self.free.load(Ordering::Relaxed);
        if free >= self.reserve {
            return Ok(());
        }
        Err(KvError::DiskFull {
            reason: format!(
                "{} has {} MiB left, {} MiB are kept in reserve",
                self.folder.display(),
                free >> 20,
                self.reserve >> 20
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_when_all_of_its_syncs_are_for_some_time() {
        let check = |took_ms: &[u64], expected: bool| {
            let room = DiskRoom::new(Path::new("."), 0);
            took_ms.iter().for_each(|ms| room.note_sync(Duration::from_millis(*ms)));
            assert_eq!(room.is_slow(), expected, "{took_ms:?}");
        };
        check(&[], false);
        check(&[999, 999, 999], false);
        check(&[1500], false);
        check(&[2100], true);
        check(&[2100, 1000], true);
        check(&[2100, 5], false);
    }
}
