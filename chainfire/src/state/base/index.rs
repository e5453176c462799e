//! Where the newest row of every key lies, in memory, and how much of each block still counts.
//!
//! It never says more than the blocks do: at start-up it is made from them. A put asks it for what it
//! replaces, so that neither a large store nor a cold one makes a put read anything. It asks a hash map,
//! since the way down a tree of a million keys is a dozen waits for memory; the order of the keys is kept
//! beside it and changes only with the keys that there are.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::super::row::Head;
use super::block::Place;

/// Blocks are given up once twice as much is stored as is needed, and this much more.
const SLACK_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub head: Head,
}

/// What is known of a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockUse {
    pub bytes: u64,
    /// A bit for each row that still counts.
    live: u64,
}

impl BlockUse {
    pub fn is_dead(&self) -> bool {
        self.live == 0
    }

    pub fn is_live(&self, slot: u8) -> bool {
        self.live & bit(slot) != 0
    }
}

fn bit(slot: u8) -> u64 {
    1 << slot
}

/// How much is stored, and how much of that still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub stored: u64,
    pub needed: u64,
}

impl Usage {
    /// Whether old blocks are to be given up. What lies in them is stored again at most once for each
    /// time that as much became useless.
    pub fn is_wasteful(&self) -> bool {
        self.stored > 2 * self.needed + SLACK_BYTES
    }
}

#[derive(Debug, Default)]
pub struct Index {
    entries: Entries,
    /// The keys of the entries.
    order: BTreeSet<Arc<[u8]>>,
    first: u64,
    blocks: VecDeque<BlockUse>,
    usage: Usage,
}

impl Index {
    /// An index of no blocks; the first will have this number.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn range<'a>(
        &'a self,
        low: Bound<&'a [u8]>,
        high: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Entry)> {
        let inside = !is_empty(low, high);
        inside
            .then(|| self.order.range::<[u8], _>((low, high)))
            .into_iter()
            .flatten()
            .filter_map(|key| Some((&**key, self.entries.get(key)?)))
    }

    pub fn keys(&self) -> u64 {
        self.order.len() as u64
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The number of the oldest block.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next block gets.
    pub fn next(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// Blocks and their numbers, the oldest first.
    pub fn oldest(&self) -> impl Iterator<Item = (u64, BlockUse)> {
        (self.first..).zip(self.blocks.iter().copied())
    }

    /// Adds a block behind all others. None of its rows counts yet.
    pub fn push_newest(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.blocks.push_back(BlockUse { bytes, live: 0 });
        self.usage.stored += bytes;
    }

    /// Adds a block before all others, while an index is made.
    pub fn push_oldest(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.first -= 1;
        self.blocks.push_front(BlockUse { bytes, live: 0 });
        self.usage.stored += bytes;
    }

    /// A key's row is this one from now on.
    pub fn set(&mut self, key: &[u8], entry: Entry) {
        self.enliven(entry.place);
        if let Some(known) = self.entries.get_mut(key) {
            let before = std::mem::replace(known, entry);
            self.kill(before.place);
        } else {
            let key: Arc<[u8]> = key.into();
            self.order.insert(Arc::clone(&key));
            self.entries.insert(key, entry);
        }
    }

    /// A key's row, unchanged, lies elsewhere from now on.
    pub fn moved(&mut self, key: &[u8], to: Place) {
        if let Some(&Entry { head, .. }) = self.get(key) {
            self.set(key, Entry { place: to, head });
        }
    }

    /// A key is gone.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(before) = self.entries.remove(key) {
            self.order.remove(key);
            self.kill(before.place);
        }
    }

    /// Forgets the oldest blocks, none of whose rows counts any more, up to a number.
    pub fn give_up(&mut self, until: u64) {
        while self.first < until {
            let Some(block) = self.blocks.pop_front() else { break };
            debug_assert!(block.is_dead(), "block {} is still needed", self.first);
            self.usage.stored -= block.bytes;
            self.first += 1;
        }
    }

    fn enliven(&mut self, place: Place) {
        if let Some(block) = self.block_mut(place.block) {
            block.live |= bit(place.slot);
        }
        self.usage.needed += u64::from(place.bytes);
    }

    fn kill(&mut self, place: Place) {
        if let Some(block) = self.block_mut(place.block) {
            block.live &= !bit(place.slot);
        }
        self.usage.needed -= u64::from(place.bytes);
    }

    fn block_mut(&mut self, number: u64) -> Option<&mut BlockUse> {
        let offset = number.checked_sub(self.first)?;
        self.blocks.get_mut(usize::try_from(offset).ok()?)
    }
}

/// The parts of the entries: a map that grows moves all it has, which for a million keys takes a third of a
/// second in which nothing could be applied.
const PARTS: usize = 256;

#[derive(Debug)]
struct Entries(Box<[HashMap<Arc<[u8]>, Entry>]>);

impl Default for Entries {
    fn default() -> Self {
        Self((0..PARTS).map(|_| HashMap::new()).collect())
    }
}

impl Entries {
    fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.0[part_of(key)].get(key)
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.0[part_of(key)].get_mut(key)
    }

    fn insert(&mut self, key: Arc<[u8]>, entry: Entry) {
        self.0[part_of(&key)].insert(key, entry);
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.0[part_of(key)].remove(key)
    }
}

/// Not by the hash of the maps: what is alike in a part would not tell its keys apart.
#[expect(clippy::cast_possible_truncation, reason = "smaller than the number of parts")]
fn part_of(key: &[u8]) -> usize {
    (xxh3_64(key) % PARTS as u64) as usize
}

/// Whether nothing lies between two bounds; a map does not want to be asked for that.
fn is_empty(low: Bound<&[u8]>, high: Bound<&[u8]>) -> bool {
    match (low, high) {
        (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::base::block::Packer;
    use crate::state::row::Row;

    #[test]
    fn a_key_that_goes_leaves_nothing_behind() {
        let row = Row {
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            value: "v".into(),
        };
        let place = Packer::new(0).add(&"k".into(), Some(&row)).unwrap();
        let head = Head::of(b"k", &row);
        let mut index = Index::default();
        index.push_newest(100);
        index.set(b"k", Entry { place, head });
        assert_eq!((index.keys(), index.get(b"k").unwrap().place), (1, place));
        assert_eq!(index.usage().needed, u64::from(place.bytes));
        index.remove(b"k");
        assert_eq!((index.keys(), index.get(b"k")), (0, None));
        assert_eq!(index.usage(), Usage { stored: 100, needed: 0 });
        index.give_up(1);
        assert_eq!(index.usage(), Usage::default());
        assert_eq!((index.first(), index.next()), (1, 1));
    }
}
