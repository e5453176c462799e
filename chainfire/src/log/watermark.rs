//! What was durable here, remembered outside of the log.
//!
//! A log that was cut, emptied or restored from an old copy opens without complaint and is merely shorter.
//! A member that votes with it can undo what was acknowledged. So whatever the log made durable is noted
//! here before it is acknowledged, and a log that has less is refused.
//!
//! The note must never promise more than the log has, or a healthy member would be refused: it is raised
//! only after the log's own sync, and lowered, durably, before the log is truncated. It may promise less:
//! ordinary notes are written but synced only now and then, which survives a crash of the process and
//! costs a microsecond. Ballots are rare and synced at once.
//!
//! Two slots are written in turn, so that a torn write leaves the other; what must not be forgotten
//! (ballots, truncations) goes to both.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use openraft::CommittedLeaderId;

use super::error::Rollback;
use super::folder::sync_parent;
use crate::raft::types::{Ballot, LogId};

const MAGIC: [u8; 4] = *b"CFW1";
/// Slots lie in different blocks of the disk.
const SLOT_STRIDE: u64 = 4096;
const FILE_BYTES: u64 = 2 * SLOT_STRIDE;
const SLOT_BYTES: usize = 4 + 8 + 8 + 2 * LOG_ID_BYTES + BALLOT_BYTES + 4;
const LOG_ID_BYTES: usize = 1 + 3 * 8;
const BALLOT_BYTES: usize = 1 + 2 * 8 + 1;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How far a log is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub last: Option<LogId>,
    pub purged: Option<LogId>,
    pub ballot: Option<Ballot>,
}

impl Mark {
    /// What in `log` is older than this mark says it was.
    pub fn regression(&self, log: &Mark) -> Option<Rollback> {
        let regression = |what, found: String, durable: String| Some(Rollback::Regressed { what, found, durable });
        if log.last < self.last {
            return regression("its last entry", shown(&log.last), shown(&self.last));
        }
        if log.purged < self.purged {
            return regression("its last purged entry", shown(&log.purged), shown(&self.purged));
        }
        // Ballots have no total order by their type: whatever is not known to be as new is older.
        let is_as_new = log.ballot >= self.ballot;
        if !is_as_new {
            return regression("its ballot", shown(&log.ballot), shown(&self.ballot));
        }
        None
    }
}

fn shown<T: fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}

/// The file with the mark.
#[derive(Debug)]
pub struct Watermark {
    file: File,
    slot: Slot,
    dirty: bool,
    synced_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    epoch: u64,
    mark: Mark,
}

impl Watermark {
    /// Reads the file; `None` if there is none. `InvalidData` if it says nothing that can be believed.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let newest = (0..2)
            .filter_map(|index| {
                let mut bytes = [0; SLOT_BYTES];
                file.read_exact_at(&mut bytes, index * SLOT_STRIDE).ok()?;
                Slot::decode(&bytes)
            })
            .max_by_key(|slot| slot.sequence);
        let slot = newest.ok_or_else(|| {
            let detail = format!("{} cannot be read", path.display());
            io::Error::new(io::ErrorKind::InvalidData, detail)
        })?;
        Ok(Some(Self {
            file,
            slot,
            dirty: false,
            synced_at: Instant::now(),
        }))
    }

    /// Makes the file of a new log. It is there as a whole or not at all.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&fresh)?;
        // Every byte is written, so that no later note needs room on the disk.
        file.write_all_at(&[0; FILE_BYTES as usize], 0)?;
        let mut watermark = Self {
            file,
            slot: Slot {
                sequence: 0,
                epoch: 0,
                mark: Mark::default(),
            },
            dirty: false,
            synced_at: Instant::now(),
        };
        watermark.write_both(Mark::default())?;
        watermark.file.sync_all()?;
        fs::rename(&fresh, path)?;
        sync_parent(path)?;
        Ok(watermark)
    }

    pub fn mark(&self) -> Mark {
        self.slot.mark
    }

    /// How often the log was opened.
    pub fn epoch(&self) -> u64 {
        self.slot.epoch
    }

    /// Counts an opening, with what the log has by then made durable.
    pub fn begin_epoch(&mut self, mark: Mark) -> io::Result<()> {
        self.slot.epoch += 1;
        self.write_both(mark)?;
        self.sync()
    }

    /// Notes what has become durable. A new ballot is in both slots and synced when this returns.
    pub fn raise(&mut self, mark: Mark) -> io::Result<()> {
        if mark.ballot != self.slot.mark.ballot {
            self.write_both(mark)?;
            return self.sync();
        }
        self.write_next(mark)
    }

    /// Gives up what lies after `last`, durably, so that the log may be truncated.
    pub fn lower(&mut self, last: Option<LogId>) -> io::Result<()> {
        if self.slot.mark.last <= last {
            return Ok(());
        }
        self.write_both(Mark { last, ..self.slot.mark })?;
        self.sync()
    }

    /// Syncs notes that are unsynced for a while.
    pub fn sync_if_due(&mut self) -> io::Result<()> {
        if self.dirty && self.synced_at.elapsed() >= SYNC_EVERY {
            return self.sync();
        }
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
            self.synced_at = Instant::now();
        }
        Ok(())
    }

    fn write_both(&mut self, mark: Mark) -> io::Result<()> {
        self.write_next(mark)?;
        self.write_next(mark)
    }

    fn write_next(&mut self, mark: Mark) -> io::Result<()> {
        self.slot.sequence += 1;
        self.slot.mark = mark;
        let offset = self.slot.sequence % 2 * SLOT_STRIDE;
        self.dirty = true;
        self.file.write_all_at(&self.slot.encode(), offset)
    }
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.epoch.to_be_bytes());
        for id in [self.mark.last, self.mark.purged] {
            let LogId { leader_id, index } = id.unwrap_or_default();
            bytes.push(u8::from(id.is_some()));
            bytes.extend(
                [leader_id.term, leader_id.node_id, index]
                    .map(u64::to_be_bytes)
                    .as_flattened(),
            );
        }
        let Ballot { leader_id, committed } = self.mark.ballot.unwrap_or_default();
        bytes.push(u8::from(self.mark.ballot.is_some()));
        bytes.extend([leader_id.term, leader_id.node_id].map(u64::to_be_bytes).as_flattened());
        bytes.push(u8::from(committed));
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        let mut slot = [0; SLOT_BYTES];
        slot.copy_from_slice(&bytes);
        slot
    }

    fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (content, checksum) = bytes.split_at(SLOT_BYTES - 4);
        if crc32fast::hash(content).to_be_bytes() != checksum {
            return None;
        }
        let mut rest = content.strip_prefix(&MAGIC)?;
        let sequence = take_u64(&mut rest)?;
        let epoch = take_u64(&mut rest)?;
        let last = take_log_id(&mut rest)?;
        let purged = take_log_id(&mut rest)?;
        let has_ballot = take_bool(&mut rest)?;
        let mut ballot = Ballot::new(take_u64(&mut rest)?, take_u64(&mut rest)?);
        if take_bool(&mut rest)? {
            ballot.commit();
        }
        let ballot = has_ballot.then_some(ballot);
        Some(Self {
            sequence,
            epoch,
            mark: Mark { last, purged, ballot },
        })
    }
}

fn take_u64(from: &mut &[u8]) -> Option<u64> {
    let (number, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_be_bytes(*number))
}

fn take_bool(from: &mut &[u8]) -> Option<bool> {
    let (byte, rest) = from.split_first()?;
    *from = rest;
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_log_id(from: &mut &[u8]) -> Option<Option<LogId>> {
    let is_some = take_bool(from)?;
    let (term, leader, index) = (take_u64(from)?, take_u64(from)?, take_u64(from)?);
    let id = LogId::new(CommittedLeaderId::new(term, leader), index);
    Some(is_some.then_some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, 1), index)
    }

    fn mark(term: u64, index: u64) -> Mark {
        Mark {
            last: Some(id(term, index)),
            purged: Some(id(1, 2)),
            ballot: Some(Ballot::new_committed(term, 9)),
        }
    }

    #[test]
    fn frozen_bytes_of_a_slot() {
        let slot = Slot {
            sequence: 5,
            epoch: 2,
            mark: mark(3, 7),
        };
        let hex = slot
            .encode()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(
            hex,
            "43465731000000000000000500000000000000020100000000000000030000000000000001000000000000000701000000000000000100000000000000010000000000000002010000000000000003000000000000000901d4721c25"
        );
        assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    }

    #[test]
    fn the_newest_note_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watermark");
        assert!(Watermark::load(&path).unwrap().is_none());
        let mut watermark = Watermark::create(&path).unwrap();
        watermark.begin_epoch(Mark::default()).unwrap();
        for index in 1..=5 {
            watermark.raise(mark(3, index)).unwrap();
            let read = Watermark::load(&path).unwrap().unwrap();
            assert_eq!((read.mark(), read.epoch()), (mark(3, index), 1));
        }
    }

    #[test]
    fn a_lost_slot_never_forgets_a_ballot_or_a_truncation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watermark");
        let mut watermark = Watermark::create(&path).unwrap();
        watermark.raise(mark(3, 9)).unwrap();
        watermark.lower(Some(id(3, 4))).unwrap();
        for slot in 0..2 {
            let whole = fs::read(&path).unwrap();
            watermark
                .file
                .write_all_at(&[0xff; SLOT_BYTES], slot * SLOT_STRIDE)
                .unwrap();
            let read = Watermark::load(&path).unwrap().unwrap().mark();
            assert_eq!((read.last, read.ballot), (Some(id(3, 4)), mark(3, 9).ballot));
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn two_lost_slots_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watermark");
        Watermark::create(&path).unwrap();
        fs::write(&path, [7; FILE_BYTES as usize]).unwrap();
        let error = Watermark::load(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        fs::write(&path, b"").unwrap();
        let error = Watermark::load(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn older_logs_are_told_from_newer_ones() {
        let durable = mark(3, 7);
        let none = |log: Mark| assert_eq!(durable.regression(&log), None);
        let older = |log: Mark, what: &str| {
            let evidence = durable.regression(&log).unwrap().to_string();
            assert!(evidence.starts_with(what), "{evidence}");
        };
        none(durable);
        none(mark(3, 8));
        none(mark(4, 5));
        older(mark(3, 6), "its last entry");
        older(mark(2, 70), "its last entry");
        older(Mark { last: None, ..durable }, "its last entry");
        older(
            Mark {
                purged: None,
                ..durable
            },
            "its last purged entry",
        );
        older(
            Mark {
                ballot: None,
                ..durable
            },
            "its ballot",
        );
        let uncommitted = Some(Ballot::new(3, 9));
        older(
            Mark {
                ballot: uncommitted,
                ..durable
            },
            "its ballot",
        );
    }
}
