//! The base: the rows of all keys as of one log id, and the record that says which.
//!
//! ```text
//!   flush ──► blocks (sled), in the order in which rows were stored
//!             ┌────┐┌────┐┌────┐          ┌────┐
//!   given up ◄│  7 ││  8 ││  9 │   ...    │ 91 │◄ stored: some 12 rows a block
//!             └────┘└────┘└────┘          └────┘
//!                       ▲    ▲              ▲
//!   index (memory)   key ► block 8, row 3; create revision, version, hash
//! ```
//!
//! sled takes three to four times as much processor time for a row of its own in a tree of a million as in
//! one of a thousand, and hardly more for a dozen rows at once than for one. So rows are stored in the
//! order in which they come, and an index in memory knows the newest of every key. Once much of what is
//! stored no longer counts, the oldest blocks are given up, and what still counts in them is stored again.
//!
//! - Of two rows of a key the later one counts: by the number of the block, then by the place in it.
//! - A key that is gone has a row without content, which hides the older ones until the last of them is
//!   given up: blocks are given up oldest first, so that it goes after all it hides.
//! - A block is removed one step after it was given up, when the index has long pointed elsewhere: who
//!   reads holds the index, so that no block goes between the look-up and the read.
//!
//! sled's writes are not synced to the disk (its flush is `sync_file_range`), so after a power loss the
//! tree may be older, torn or unreadable. Nothing rests on it: [`Base::open_verified`] adds up all rows at
//! start-up, and a base that does not add up is thrown away and rebuilt from the last snapshot file and
//! the log.

mod block;
mod index;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

use std::ops::{Bound, Range};
use std::path::Path;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sled::IVec;

use super::row::{Head, Row};
use crate::proto;
use block::{Packer, Place, StoredRow};
use index::{Entry, Index};
use tree::{Change, Tree};

/// How much of the tree sled may keep in memory; it takes no more than the blocks need. What is not there
/// is read in up to ten pieces.
const CACHE_BYTES: u64 = 512 << 20;
/// Keys whose new places the index learns at a time: whoever reads gets in between.
const LEARN_AT_ONCE: usize = 64;
/// A step gives up at most so many blocks, and two for each of its rows: more than keeps pace.
const GIVE_UP_BLOCKS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error("the state tree cannot be read or written: {0}")]
    Sled(#[from] sled::Error),
    #[error("the state tree holds something unreadable: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("block {number} of the state tree is missing")]
    MissingBlock { number: u64 },
    #[error("block {number} of the state tree does not hold what it should")]
    DamagedBlock { number: u64 },
    #[error("the state tree has a block without a number")]
    StrangeKey,
    #[error("the state tree was written by an earlier version, in another format")]
    EarlierFormat,
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
    tree: Tree,
    index: RwLock<Index>,
    /// The blocks that the last step gave up and the next one removes. Held by whoever stores.
    given_up: Mutex<Range<u64>>,
}

impl Base {
    /// Makes an empty base in a folder that has none.
    pub fn create(folder: &Path) -> Result<Self, BaseError> {
        Ok(Self::of(Tree::open(folder, CACHE_BYTES)?, Index::default()))
    }

    /// Opens a base whose rows add up, and answers what its record says.
    pub fn open_verified(folder: &Path) -> Result<(Self, proto::StateMeta), BaseError> {
        let (index, meta) = verify::read_all(folder)?;
        Ok((Self::of(Tree::open(folder, CACHE_BYTES)?, index), meta))
    }

    fn of(tree: Tree, index: Index) -> Self {
        Self {
            tree,
            index: RwLock::new(index),
            given_up: Mutex::default(),
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, BaseError> {
        let index = self.index.read();
        match index.get(key) {
            None => Ok(None),
            Some(entry) => Ok(Some(row_of(key, entry.place, &self.tree.block(entry.place.block)?)?)),
        }
    }

    /// A key's row without its value, from memory.
    pub fn head(&self, key: &[u8]) -> Option<Head> {
        Some(self.index.read().get(key)?.head)
    }

    /// Up to `limit` rows with keys in `(after, end)`, or from `start` on when `after` is empty, in order.
    pub fn scan(
        &self,
        start: &[u8],
        after: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Row)>, BaseError> {
        let low = if after.is_empty() {
            Bound::Included(start)
        } else {
            Bound::Excluded(after)
        };
        let high = end.map_or(Bound::Unbounded, Bound::Excluded);
        let index = self.index.read();
        // Keys that were stored together often lie together.
        let mut last: Option<(u64, IVec)> = None;
        let mut rows = Vec::new();
        for (key, entry) in index.range(low, high).take(limit) {
            let number = entry.place.block;
            let block = match last.take() {
                Some((known, block)) if known == number => block,
                _ => self.tree.block(number)?,
            };
            rows.push((Bytes::copy_from_slice(key), row_of(key, entry.place, &block)?));
            last = Some((number, block));
        }
        Ok(rows)
    }

    /// Changes rows and the record in one step, which a crash leaves whole or undone.
    pub fn write(&self, rows: &[RowChange], meta: &proto::StateMeta) -> Result<(), BaseError> {
        self.store(rows.iter().map(|(key, row)| (key, row.as_ref())), Some(meta))
    }

    /// Writes rows of a snapshot, before the record says that they are complete.
    pub fn load(&self, rows: &[(Bytes, Row)]) -> Result<(), BaseError> {
        self.store(rows.iter().map(|(key, row)| (key, Some(row))), None)
    }

    fn store<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = (&'a Bytes, Option<&'a Row>)>,
        meta: Option<&proto::StateMeta>,
    ) -> Result<(), BaseError> {
        let mut given_up = self.given_up.lock();
        let first = self.index.read().next();
        let mut packer = Packer::new(first);
        // Before the new rows: of two rows of a key the later one counts.
        let moves = self.store_oldest_again(GIVE_UP_BLOCKS + 2 * rows.len(), &mut packer)?;
        let mut news = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            if row.is_none() && self.head(key).is_none() {
                continue;
            }
            let place = packer.add(key, row)?;
            let head = row.map(|row| Head::of(key, row));
            news.push((key, head.map(|head| Entry { place, head })));
        }
        let blocks = packer.finish();
        let sizes: Vec<usize> = blocks.iter().map(Vec::len).collect();
        let mut change = Change::default();
        for number in given_up.clone() {
            change.remove(number);
        }
        for (number, block) in (first..).zip(blocks) {
            change.insert(number, block);
        }
        if let Some(meta) = meta {
            change.set_meta(meta);
        }
        self.tree.apply(change)?;
        self.learn(&sizes, &moves.rows, &news);
        self.index.write().give_up(moves.emptied.end);
        *given_up = moves.emptied;
        Ok(())
    }

    /// Packs what still counts of the oldest blocks once more, while much is stored that does not.
    fn store_oldest_again(&self, at_most: usize, packer: &mut Packer) -> Result<Moves, BaseError> {
        let index = self.index.read();
        let mut usage = index.usage();
        let mut moves = Moves {
            rows: Vec::new(),
            emptied: index.first()..index.first(),
        };
        for (number, block) in index.oldest().take(at_most) {
            if !usage.is_wasteful() {
                break;
            }
            usage.stored -= block.bytes;
            moves.emptied.end = number + 1;
            if block.is_dead() {
                continue;
            }
            let rows = block::rows(number, Bytes::copy_from_slice(&self.tree.block(number)?))?;
            for row in rows.iter().filter(|row| block.is_live(row.place.slot)) {
                usage.stored += u64::from(row.place.bytes);
                moves.rows.push((row.decode()?.0, packer.add_again(row)?));
            }
        }
        Ok(moves)
    }

    /// Tells the index what has been stored.
    fn learn(&self, sizes: &[usize], moved: &[(Bytes, Place)], news: &[(&Bytes, Option<Entry>)]) {
        let mut index = self.index.write();
        for bytes in sizes {
            index.push_newest(*bytes);
        }
        drop(index);
        for some in moved.chunks(LEARN_AT_ONCE) {
            let mut index = self.index.write();
            for (key, to) in some {
                index.moved(key, *to);
            }
        }
        for some in news.chunks(LEARN_AT_ONCE) {
            let mut index = self.index.write();
            for (key, entry) in some {
                match entry {
                    Some(entry) => index.set(key, *entry),
                    None => index.remove(key),
                }
            }
        }
    }

    pub fn flush(&self) -> Result<(), BaseError> {
        self.tree.flush()
    }
}

/// What one step takes from the oldest blocks.
#[derive(Debug)]
struct Moves {
    /// Where what still counted lies now.
    rows: Vec<(Bytes, Place)>,
    /// The blocks that are given up.
    emptied: Range<u64>,
}

/// The row at a place of a block, which must be of this key.
fn row_of(key: &[u8], place: Place, block: &[u8]) -> Result<Row, BaseError> {
    match StoredRow::at(place, block)?.decode()? {
        (stored_key, Some(row)) if stored_key == key => Ok(row),
        _ => Err(BaseError::DamagedBlock { number: place.block }),
    }
}
