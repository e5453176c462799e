//! How much room the disk has. Writes are refused before it is full, so that what Raft itself must write
//! still fits; if it fills up all the same, the supervisor waits for room.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kv::KvError;

/// How often the room is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The room on the disk of a folder, as of the last look.
#[derive(Debug)]
pub struct DiskRoom {
    folder: PathBuf,
    reserve: u64,
    free: AtomicU64,
}

impl DiskRoom {
    pub fn new(folder: &Path, reserve: u64) -> Self {
        let room = Self {
            folder: folder.to_owned(),
            reserve,
            free: AtomicU64::new(u64::MAX),
        };
        room.look();
        room
    }

    /// Looks again. A folder that cannot be asked is not a reason to refuse writes.
    pub fn look(&self) {
        let free = rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize);
        self.free.store(free, Ordering::Relaxed);
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
