//! The base: one sled tree with a row per key as of one log id, and the record that says which.
//!
//! sled's writes are not synced to the disk (its flush is `sync_file_range`), so after a power loss the
//! tree may be older, torn or unreadable. Nothing rests on it: [`Base::verify`] adds up all rows at
//! start-up, and a base that does not add up is thrown away and rebuilt from the last snapshot file and
//! the log.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use super::row::{Digest, Row};
use crate::proto;

/// Row keys carry this prefix, so that they cannot collide with the record.
const ROW: u8 = b'r';
const META: &[u8] = b"m";
/// How much of the tree sled may keep in memory; it takes no more than the rows need. A put into a page that is not
/// there reads that page in up to ten pieces: with 8 MiB, a store of a million keys took 40 % of the puts of a small one.
const CACHE_BYTES: u64 = 512 << 20;
/// The same while every row is read once, at the start: what was read then would stay though nobody needs it.
const VERIFY_CACHE_BYTES: u64 = 8 << 20;
/// sled frees its file on a thread of its own, a moment after the last user of a tree.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const FREE_AGAIN: Duration = Duration::from_millis(2);
/// sled looks at its cache only after 64 touches in one of 256 parts of it, and a scan touches each page
/// once: without touches in between, everything that was read would stay in memory.
const CACHE_TOUCHES: u64 = 3 * 64 * 256;

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error("the state tree cannot be read or written: {0}")]
    Sled(#[from] sled::Error),
    #[error("the state tree holds something unreadable: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("the rows do not add up: {found} rows found, {expected} recorded{detail}")]
    Digest {
        found: u64,
        expected: u64,
        detail: &'static str,
    },
}

/// A change to one row on its way to the base.
pub type RowChange = (Bytes, Option<Row>);

#[derive(Debug)]
pub struct Base {
    // Dropped before the database that it belongs to.
    tree: sled::Tree,
    _db: sled::Db,
}

impl Base {
    pub fn open(folder: &Path) -> Result<Self, BaseError> {
        Self::open_with(folder, CACHE_BYTES)
    }

    /// Opens a base whose rows add up, and answers what its record says.
    pub fn open_verified(folder: &Path) -> Result<(Self, proto::StateMeta), BaseError> {
        let meta = Self::open_with(folder, VERIFY_CACHE_BYTES)?.verify()?;
        Ok((Self::open(folder)?, meta))
    }

    fn open_with(folder: &Path, cache_bytes: u64) -> Result<Self, BaseError> {
        remove_unfinished_sled_snapshots(folder);
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            // sled's own flusher would hold up a shutdown for as long as it sleeps; ours flushes.
            .flush_every_ms(None);
        let deadline = Instant::now() + FREE_WITHIN;
        let db = loop {
            match config.open() {
                Err(error) if is_still_open(&error) && Instant::now() < deadline => pause(),
                opened => break opened?,
            }
        };
        let tree = db.open_tree("rows")?;
        Ok(Self { tree, _db: db })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, BaseError> {
        match self.tree.get(row_key(key))? {
            None => Ok(None),
            Some(bytes) => Ok(Some(Row::decode(Bytes::copy_from_slice(&bytes))?)),
        }
    }

    /// The rows with keys in `(after, end)`, or from `start` on when `after` is empty, in order.
    pub fn scan<'a>(
        &'a self,
        start: &[u8],
        after: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Bytes, Row), BaseError>> + use<'a> {
        use std::ops::Bound;
        let low = if after.is_empty() {
            Bound::Included(row_key(start))
        } else {
            Bound::Excluded(row_key(after))
        };
        let high = Bound::Excluded(end.map_or_else(|| vec![ROW + 1], row_key));
        self.tree.range::<Vec<u8>, _>((low, high)).map(|item| {
            let (key, bytes) = item?;
            let row = Row::decode(Bytes::copy_from_slice(&bytes))?;
            Ok((Bytes::copy_from_slice(&key[1..]), row))
        })
    }

    pub fn meta(&self) -> Result<proto::StateMeta, BaseError> {
        match self.tree.get(META)? {
            None => Ok(proto::StateMeta::default()),
            Some(bytes) => Ok(proto::StateMeta::decode(&bytes[..])?),
        }
    }

    /// Changes rows and the record in one step, which a crash leaves whole or undone.
    pub fn write(&self, rows: &[RowChange], meta: &proto::StateMeta) -> Result<(), BaseError> {
        let mut batch = sled::Batch::default();
        for (key, row) in rows {
            match row {
                Some(row) => batch.insert(row_key(key), row.encode()),
                None => batch.remove(row_key(key)),
            }
        }
        batch.insert(META, meta.encode_to_vec());
        self.tree.apply_batch(batch)?;
        Ok(())
    }

    /// Writes rows of a snapshot, before the record says that they are complete.
    pub fn load(&self, rows: &[(Bytes, Row)]) -> Result<(), BaseError> {
        let mut batch = sled::Batch::default();
        for (key, row) in rows {
            batch.insert(row_key(key), row.encode());
        }
        self.tree.apply_batch(batch)?;
        Ok(())
    }

    pub fn flush(&self) -> Result<(), BaseError> {
        self.tree.flush()?;
        Ok(())
    }

    /// Reads every row and compares with the record. The cost of an honest start: some 0.2 s for
    /// 100,000 keys.
    fn verify(&self) -> Result<proto::StateMeta, BaseError> {
        let meta = self.meta()?;
        let mut digest = Digest::default();
        let mut found = 0;
        let touch_every = (meta.keys / CACHE_TOUCHES).max(1);
        for item in self.scan(b"", b"", None) {
            let (key, row) = item?;
            digest.add(&key, &row);
            found += 1;
            if found % touch_every == 0 {
                self.tree.get(row_key(&key))?;
            }
        }
        let expected = meta.keys;
        if found != expected {
            return Err(BaseError::Digest {
                found,
                expected,
                detail: "",
            });
        }
        if Digest::from_bytes(&meta.digest) != Some(digest) {
            return Err(BaseError::Digest {
                found,
                expected,
                detail: ", and their content differs",
            });
        }
        Ok(meta)
    }
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

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(ROW);
    out.extend_from_slice(key);
    out
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
