//! The window: every version and every change after the floor, in memory.
//!
//! It is plain data under one lock, changed by three: the applier adds at the front, the flusher drops at
//! the back what the base has taken over, an installed snapshot replaces all of it. Every revision after
//! the floor has exactly one [`Change`], so a revision is found by subtraction.
//!
//! Keys are found by their hash. Their order is the base's, and for the keys that it does not have, a set
//! of those. What must never happen: a key with a version here that is in neither of the two, since no
//! scan would find it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::base::{Base, BaseError, RowChange};
use super::boundary::Boundary;
use super::row::{Head, Row};
use crate::kv::{Event, EventKind, Key, KeyValue, Revision};

/// Bytes that a change costs besides its key and value: two map entries and a queue entry.
const CHANGE_OVERHEAD_BYTES: usize = 256;

/// A flush takes at most about this many revisions, however few keys they touch.
const STEP_CHANGES: u64 = 2048;

/// The keys that one revision changed, in order.
#[derive(Debug)]
struct Change {
    keys: Box<[Key]>,
    bytes: usize,
}

/// Some rows, and the key to go on after when there may be more.
pub type ScanChunk = (Vec<(Key, Row)>, Option<Key>);

/// A key's state at a revision; `None`: deleted.
type Version = (Revision, Option<Row>);

#[derive(Debug)]
pub struct Window {
    base: Arc<Base>,
    floor: Revision,
    /// A flush up to here has begun: below it the base may already be newer.
    flushing_to: Revision,
    tip: Boundary,
    versions: HashMap<Key, Vec<Version>>,
    /// Keys with versions that the base does not have, or is about to lose.
    beside_base: BTreeSet<Key>,
    changes: VecDeque<Change>,
    boundaries: VecDeque<Boundary>,
    bytes: usize,
    pins: BTreeMap<Revision, usize>,
    generation: u64,
}

/// One step of moving the oldest entries to the base.
#[derive(Debug)]
pub struct Flush {
    pub base: Arc<Base>,
    pub rows: Vec<RowChange>,
    pub target: Boundary,
}

impl Window {
    /// An empty window over a base whose state is `tip`.
    pub fn new(base: Arc<Base>, tip: Boundary) -> Self {
        Self {
            base,
            floor: tip.revision,
            flushing_to: tip.revision,
            tip,
            versions: HashMap::new(),
            beside_base: BTreeSet::new(),
            changes: VecDeque::new(),
            boundaries: VecDeque::new(),
            bytes: 0,
            pins: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Forgets everything for another base, whose state is `tip`. What was pinned is lost, and found so
    /// by its holder.
    pub fn replace(&mut self, base: Arc<Base>, tip: Boundary) {
        let generation = self.generation + 1;
        *self = Self {
            generation,
            ..Self::new(base, tip)
        };
    }

    /// Goes up when the state is replaced as a whole.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn tip(&self) -> &Boundary {
        &self.tip
    }

    pub fn revision(&self) -> Revision {
        self.tip.revision
    }

    /// The oldest revision that can still be read; changes up to it are no longer known.
    pub fn floor(&self) -> Revision {
        self.floor.max(self.flushing_to)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// A key's row now.
    pub fn get(&self, key: &[u8]) -> Result<Option<Row>, BaseError> {
        match self.versions.get(key).and_then(|versions| versions.last()) {
            Some((_, row)) => Ok(row.clone()),
            None => self.base.get(key),
        }
    }

    /// A key's row now, without its value: in memory always.
    pub fn head(&self, key: &[u8]) -> Option<Head> {
        match self.versions.get(key).and_then(|versions| versions.last()) {
            Some((_, row)) => row.as_ref().map(|row| Head::of(key, row)),
            None => self.base.head(key),
        }
    }

    /// Records one revision: the keys it changed and what they are now.
    pub fn push(&mut self, revision: Revision, rows: Vec<(Key, Option<Row>)>) {
        debug_assert_eq!(revision, self.tip.revision + 1);
        let mut bytes = 0;
        let mut keys = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            bytes += key.len() + row.as_ref().map_or(0, |row| row.value.len()) + CHANGE_OVERHEAD_BYTES;
            // Most keys are written once while they are here.
            let versions = self.versions.entry(key.clone());
            let versions = versions.or_insert_with(|| Vec::with_capacity(1));
            // The base may lose at any moment what is deleted here.
            let is_in_order = match versions.last() {
                Some((_, row)) => row.is_some(),
                None => self.base.head(&key).is_some(),
            };
            if !is_in_order {
                self.beside_base.insert(key.clone());
            }
            versions.push((revision, row));
            keys.push(key);
        }
        self.changes.push_back(Change {
            keys: keys.into(),
            bytes,
        });
        self.bytes += bytes;
        self.tip.revision = revision;
    }

    /// Closes an entry. Between two calls the window is not at a boundary, which nobody sees, since the
    /// applier holds the lock.
    pub fn close_entry(&mut self, tip: Boundary) {
        debug_assert_eq!(tip.revision, self.tip.revision);
        if self.boundaries.back().is_some_and(|last| last.revision == tip.revision) {
            self.boundaries.pop_back();
        }
        self.boundaries.push_back(tip.clone());
        self.tip = tip;
    }

    /// The keys of one revision, if it is in the window.
    fn change(&self, revision: Revision) -> Option<&Change> {
        let offset = revision.checked_sub(self.first_revision())?;
        self.changes.get(usize::try_from(offset).ok()?)
    }

    fn first_revision(&self) -> Revision {
        self.tip.revision + 1 - self.changes.len() as u64
    }

    /// The keys that a revision changed.
    pub fn changed_keys(&self, revision: Revision) -> &[Key] {
        self.change(revision).map_or(&[], |change| &change.keys)
    }

    /// The events of one revision under a prefix.
    pub fn events(&self, revision: Revision, prefix: &[u8], out: &mut Vec<Event>) {
        for key in self.changed_keys(revision) {
            if !key.starts_with(prefix) {
                continue;
            }
            let version = self
                .versions
                .get(key)
                .and_then(|versions| versions.iter().find(|(at, _)| *at == revision));
            let Some((_, row)) = version else { continue };
            out.push(match row {
                Some(row) => Event {
                    kind: EventKind::Put,
                    kv: row.clone().into_key_value(key.clone()),
                },
                None => Event {
                    kind: EventKind::Delete,
                    kv: KeyValue {
                        key: key.clone(),
                        value: Key::new(),
                        create_revision: 0,
                        mod_revision: revision,
                        version: 0,
                    },
                },
            });
        }
    }

    /// Up to `limit` keys in `(after, end)` as of `revision`, which must not be below the floor. The
    /// second answer is the key to go on after, when there may be more.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: &[u8],
        end: Option<&[u8]>,
        revision: Revision,
        limit: usize,
    ) -> Result<ScanChunk, BaseError> {
        let low = if after.is_empty() {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        let high = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut beside = self.beside_base.range::<[u8], _>((low, high)).peekable();
        let mut stored = self.base.scan(prefix, after, end, limit)?.into_iter().peekable();
        let mut rows = Vec::new();
        let mut last = None;
        for _ in 0..limit {
            let next = match (beside.peek(), stored.peek()) {
                (None, None) => return Ok((rows, None)),
                (Some(key), Some((stored_key, _))) if stored_key < *key => stored.next(),
                (None, Some(_)) => stored.next(),
                (Some(_), _) => None,
            };
            let (key, below) = match next {
                Some((key, row)) => (key, Some(row)),
                None => {
                    let Some(key) = beside.next() else { continue };
                    let below = stored.next_if(|(stored_key, _)| stored_key == key);
                    (key.clone(), below.map(|(_, row)| row))
                }
            };
            last = Some(key.clone());
            let recent = self.versions.get(&key);
            let recent = recent.and_then(|versions| versions.iter().rev().find(|(at, _)| *at <= revision));
            if let Some(row) = recent.map_or(below, |(_, row)| row.clone()) {
                rows.push((key, row));
            }
        }
        Ok((rows, last))
    }

    /// Holds the floor at or below a revision, until [`unpin`](Self::unpin).
    pub fn pin(&mut self, revision: Revision) {
        *self.pins.entry(revision).or_default() += 1;
    }

    pub fn unpin(&mut self, revision: Revision) {
        if let Some(count) = self.pins.get_mut(&revision) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&revision);
            }
        }
    }

    /// Begins to move the oldest whole entries to the base: about `max_rows` distinct keys, nothing above
    /// a pin. `None` when there is nothing that may be moved.
    pub fn begin_flush(&mut self, max_rows: usize) -> Option<Flush> {
        let ceiling = self.pins.keys().next().copied().unwrap_or(Revision::MAX);
        let mut keys = Vec::new();
        let mut seen = HashSet::new();
        let mut target = None;
        let mut next = self.first_revision();
        for (index, boundary) in self.boundaries.iter().enumerate() {
            let enough = keys.len() >= max_rows || next - self.first_revision() >= STEP_CHANGES;
            if boundary.revision > ceiling || enough {
                break;
            }
            while next <= boundary.revision {
                keys.extend(self.changed_keys(next).iter().filter(|key| seen.insert(*key)));
                next += 1;
            }
            target = Some((index, boundary.revision));
        }
        let (index, revision) = target?;
        // In the order in which they were written: what came together will often be read together.
        let rows = keys.into_iter().filter_map(|key| {
            let mut versions = self.versions.get(key)?.iter().rev();
            let (_, row) = versions.find(|(at, _)| *at <= revision)?;
            Some((key.clone(), row.clone()))
        });
        let rows = rows.collect();
        let target = self.boundaries.drain(..=index).next_back()?;
        self.flushing_to = revision;
        Some(Flush {
            base: Arc::clone(&self.base),
            rows,
            target,
        })
    }

    /// Drops what the base now holds.
    pub fn finish_flush(&mut self, flush: &Flush) {
        if !Arc::ptr_eq(&self.base, &flush.base) {
            // A snapshot was installed meanwhile; what was flushed belongs to the base before it.
            return;
        }
        let first = self.first_revision();
        for revision in first..=flush.target.revision {
            let Some(change) = self.changes.pop_front() else { break };
            self.bytes -= change.bytes;
            for key in &change.keys {
                let Some(versions) = self.versions.get_mut(key) else {
                    continue;
                };
                versions.retain(|(at, _)| *at > revision);
                if versions.is_empty() {
                    self.versions.remove(key);
                    self.beside_base.remove(key);
                }
            }
        }
        self.floor = flush.target.revision;
    }
}

#[cfg(test)]
mod tests;
