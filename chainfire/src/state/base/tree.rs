//! The blocks and the record in sled, and what has to be known of sled to open it.

use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use sled::IVec;

use super::BaseError;
use crate::proto;

/// The keys of blocks are this and their number, so that they cannot collide with the record.
const BLOCK: u8 = b'b';
const META: &[u8] = b"m";
const TREE: &str = "blocks";
/// Where bases of an earlier format have their rows.
const EARLIER_TREE: &[u8] = b"rows";
/// sled frees its file on a thread of its own, a moment after the last user of a tree.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const FREE_AGAIN: Duration = Duration::from_millis(2);

/// One tree of one database.
#[derive(Debug)]
pub struct Tree {
    // Dropped before the database that it belongs to.
    tree: sled::Tree,
    _db: sled::Db,
}

impl Tree {
    /// Opens a tree that may have so much of it in memory.
    pub fn open(folder: &Path, cache_bytes: u64) -> Result<Self, BaseError> {
        let db = open_database(folder, cache_bytes)?;
        if db.tree_names().iter().any(|name| name == EARLIER_TREE) {
            return Err(BaseError::EarlierFormat);
        }
        let tree = db.open_tree(TREE)?;
        Ok(Self { tree, _db: db })
    }

    pub fn block(&self, number: u64) -> Result<IVec, BaseError> {
        let block = self.tree.get(block_key(number))?;
        block.ok_or(BaseError::MissingBlock { number })
    }

    /// The numbers of the oldest and of the newest block.
    pub fn extent(&self) -> Result<Option<(u64, u64)>, BaseError> {
        let mut blocks = self.tree.range(vec![BLOCK]..vec![BLOCK + 1]).keys();
        let Some(oldest) = blocks.next().transpose()? else {
            return Ok(None);
        };
        let newest = match blocks.next_back().transpose()? {
            Some(newest) => number_of(&newest)?,
            None => number_of(&oldest)?,
        };
        Ok(Some((number_of(&oldest)?, newest)))
    }

    pub fn meta(&self) -> Result<proto::StateMeta, BaseError> {
        match self.tree.get(META)? {
            None => Ok(proto::StateMeta::default()),
            Some(bytes) => Ok(proto::StateMeta::decode(&bytes[..])?),
        }
    }

    /// Carries out a change, which a crash leaves whole or undone.
    pub fn apply(&self, change: Change) -> Result<(), BaseError> {
        Ok(self.tree.apply_batch(change.0)?)
    }

    pub fn flush(&self) -> Result<(), BaseError> {
        self.tree.flush()?;
        Ok(())
    }
}

pub(super) fn open_database(folder: &Path, cache_bytes: u64) -> Result<sled::Db, sled::Error> {
    remove_unfinished_sled_snapshots(folder);
    let config = sled::Config::new()
        .path(folder)
        .cache_capacity(cache_bytes)
        // sled's own flusher would hold up a shutdown for as long as it sleeps; ours flushes.
        .flush_every_ms(None);
    let deadline = Instant::now() + FREE_WITHIN;
    loop {
        match config.open() {
            Err(error) if is_still_open(&error) && Instant::now() < deadline => pause(),
            opened => return opened,
        }
    }
}

/// What is changed in one step.
#[derive(Debug, Default)]
pub struct Change(sled::Batch);

impl Change {
    pub fn insert(&mut self, number: u64, block: Vec<u8>) {
        self.0.insert(block_key(number), block);
    }

    pub fn remove(&mut self, number: u64) {
        self.0.remove(block_key(number));
    }

    pub fn set_meta(&mut self, meta: &proto::StateMeta) {
        self.0.insert(META, meta.encode_to_vec());
    }
}

fn block_key(number: u64) -> IVec {
    let mut key = [BLOCK; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    IVec::from(&key)
}

fn number_of(key: &[u8]) -> Result<u64, BaseError> {
    let number = key.get(1..).and_then(|number| number.try_into().ok());
    number.map(u64::from_be_bytes).ok_or(BaseError::StrangeKey)
}

/// Whether sled has not let go of the file yet. Another process cannot have it: the folder above is locked.
fn is_still_open(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "opening blocks anyhow; bounded by its deadline"
)]
fn pause() {
    std::thread::sleep(FREE_AGAIN);
}

/// sled refuses to open when a crash left one of these behind.
fn remove_unfinished_sled_snapshots(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            // If it cannot be removed, opening says so.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
