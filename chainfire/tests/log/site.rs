//! A log in a folder of its own, and entries whose content follows from their place.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use chainfire::log::{LogOptions, LogStore, OpenError};
use chainfire::raft::types::{Commands, Entry, LogId, StorageError};
use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};

/// The member that leads in all tests.
pub const LEADER: u64 = 7;

/// Where a log and its watermark lie.
#[derive(Debug, Clone)]
pub struct Site {
    pub root: PathBuf,
}

impl Site {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn watermark(&self) -> PathBuf {
        self.root.join("watermark")
    }

    pub fn options(&self) -> LogOptions {
        LogOptions::new(self.folder(), self.watermark())
    }

    pub fn open(&self) -> Result<LogStore, OpenError> {
        LogStore::open(self.options())
    }

    /// Opens with chunks so small that a little data fills several.
    pub fn open_with_small_chunks(&self) -> Result<LogStore, OpenError> {
        LogStore::open(LogOptions {
            chunk_bytes: 8 * 1024,
            ..self.options()
        })
    }
}

/// Reproducible numbers without a crate.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, LEADER), index)
}

/// The one entry that may ever stand at this place.
pub fn entry(term: u64, index: u64) -> Entry {
    let mut dice = Dice::new(term << 32 | index);
    let length = match dice.below(100) {
        0 => dice.below(300_000),
        1..10 => 0,
        _ => dice.below(900),
    };
    sized_entry(term, index, length as usize)
}

pub fn sized_entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut dice = Dice::new(term << 32 | index);
    let content: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| dice.next().to_be_bytes())
        .take(bytes)
        .collect();
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Commands(Bytes::from(content))),
    }
}

pub async fn append(store: &mut LogStore, entries: Vec<Entry>) -> Result<(), StorageError> {
    store.blocking_append(entries).await
}

pub async fn all_entries(store: &mut LogStore) -> Vec<Entry> {
    store.try_get_log_entries(..).await.unwrap()
}
