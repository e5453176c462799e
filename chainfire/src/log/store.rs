//! The log as openraft wants it.

use std::fmt::{self, Debug};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::ahead::{Debt, SyncGate};
use super::error::{FailureKind, LogFailure, OpenError};
use super::flush::Waiter;
use super::open::{self, LogOptions};
use super::payload::{MAX_ENTRY_BYTES, StoredBallot, StoredLogId, StoredPayload};
use super::writer::{MAX_APPEND_BYTES, Writer};
use crate::raft::types::{Ballot, Entry, LogId, MemberId, StorageError, TypeConfig};

/// How much one message to a follower carries, unless a single entry is larger.
const REPLICATION_BYTES: usize = 1024 * 1024;

/// The durable log of one member. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct LogStore {
    handle: Arc<Handle>,
}

/// Closes the log with the last clone, on the thread of whoever drops that, never on the log's own.
struct Handle {
    writer: Arc<Writer>,
    own_id: Option<MemberId>,
    known_committed: Mutex<Option<LogId>>,
    gate: SyncGate,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.writer.close();
    }
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("failure", &self.last_failure())
            .finish_non_exhaustive()
    }
}

impl LogStore {
    /// Opens the log, making a new one where there is none. Blocks while it reads.
    pub fn open(options: LogOptions) -> Result<Self, OpenError> {
        let own_id = options.own_id;
        let writer = Arc::new(open::open(options)?);
        Ok(Self {
            handle: Arc::new(Handle {
                writer,
                own_id,
                known_committed: Mutex::new(None),
                gate: SyncGate::default(),
            }),
        })
    }

    /// Writes out what is pending, ends the thread of the log and frees its folder, whatever clones there
    /// still are: they answer with errors from then on.
    pub fn close(&self) {
        self.handle.writer.close();
    }

    /// Why the log stopped, if it did.
    pub fn last_failure(&self) -> Option<LogFailure> {
        self.handle.writer.failure()
    }

    /// What a snapshot covers was committed, even if the log has not noted it.
    pub fn know_committed(&self, at: Option<LogId>) {
        *self.handle.known_committed.lock() = at;
    }

    /// Where those wait who must not be ahead of this log's disk.
    pub fn sync_gate(&self) -> SyncGate {
        self.handle.gate.clone()
    }

    /// How often this log was opened: higher at each start of the member, even after a crash.
    pub fn boot_epoch(&self) -> u64 {
        self.handle.writer.epoch()
    }

    /// Bytes of the chunks on disk; none once closed.
    pub fn bytes_on_disk(&self) -> u64 {
        self.writer().ask(|log| log.on_disk_size()).unwrap_or(0)
    }

    fn writer(&self) -> &Arc<Writer> {
        &self.handle.writer
    }

    fn ballot(&self) -> io::Result<Option<Ballot>> {
        self.writer().ask(|log| log.log_state().vote().map(|ballot| ballot.0))
    }

    /// Last purged, last, last committed.
    fn positions(&self) -> io::Result<[Option<LogId>; 3]> {
        self.writer().ask(|log| {
            let state = log.log_state();
            [state.purged(), state.last(), state.committed()].map(|id| id.map(|id| id.0))
        })
    }

    /// Checks entries before any of them is written. What is purged was committed: such an entry, sent
    /// again, is known already.
    fn prepare(&self, entries: impl Iterator<Item = Entry>) -> io::Result<Vec<(StoredLogId, StoredPayload)>> {
        let [purged, ..] = self.positions()?;
        let mut total_bytes = 0;
        let mut prepared = Vec::with_capacity(entries.size_hint().0);
        for entry in entries.filter(|entry| purged.is_none_or(|purged| entry.log_id.index > purged.index)) {
            let payload = StoredPayload::from(&entry.payload);
            let bytes = payload.body_bytes();
            total_bytes += bytes;
            if bytes > MAX_ENTRY_BYTES || total_bytes > MAX_APPEND_BYTES {
                let reason = LogFailure {
                    kind: FailureKind::TooLarge,
                    detail: format!(
                        "entry {} has {bytes} bytes, with those before it {total_bytes}; at most {MAX_ENTRY_BYTES} \
                         and {MAX_APPEND_BYTES} are allowed",
                        entry.log_id
                    ),
                };
                self.writer().fail_as(reason.clone());
                return Err(reason.into_io());
            }
            prepared.push((StoredLogId(entry.log_id), payload));
        }
        Ok(prepared)
    }

    fn append_prepared(
        &self,
        entries: Vec<(StoredLogId, StoredPayload)>,
        callback: LogFlushed<TypeConfig>,
    ) -> io::Result<()> {
        let writer = self.writer();
        #[cfg(feature = "faults")]
        if writer.faults().lies() {
            return super::faults::append_and_lie(writer, entries, callback);
        }
        let Some(debt) = self.hand_on(&entries)? else {
            return writer.submit(Some(Waiter::Append(callback)), |log| log.append(entries).map(drop));
        };
        writer.submit(Some(Waiter::HandedOn(debt)), |log| log.append(entries).map(drop))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    /// Only a leader's own entries, of the term in which it leads, may be handed on before they are synced.
    fn hand_on(&self, entries: &[(StoredLogId, StoredPayload)]) -> io::Result<Option<Debt>> {
        let ([first, ..], Some(own)) = (entries, self.handle.own_id) else {
            return Ok(None);
        };
        let leads = |ballot: Ballot| ballot.committed && ballot.leader_id.node_id == own;
        let Some(ballot) = self.ballot()?.filter(|ballot| leads(*ballot)) else {
            return Ok(None);
        };
        let is_own = |id: LogId| id.leader_id.term == ballot.leader_id.term && id.leader_id.node_id == own;
        if !entries.iter().all(|(id, _)| is_own(id.0)) {
            return Ok(None);
        }
        let bytes = entries.iter().map(|(_, payload)| payload.body_bytes()).sum::<usize>();
        let last = entries[entries.len() - 1].0.0.index;
        Ok(self.handle.gate.hand_on(first.0.0.index, last, bytes + entries.len()))
    }

    async fn truncate_from(&self, index: u64) -> io::Result<()> {
        let [purged, last, _] = self.positions()?;
        if last.is_none_or(|last| last.index < index) {
            return Ok(());
        }
        let kept = match index.checked_sub(1) {
            None => None,
            Some(kept) if purged.is_some_and(|purged| purged.index == kept) => purged,
            Some(kept) => match self.writer().read(kept, index, 0)?.first() {
                Some(entry) => Some(entry.log_id),
                None => return Err(io::Error::other(format!("entry {kept}, to be the last, is not here"))),
            },
        };
        // A flush under way would raise the watermark again, so it must end first.
        self.writer().complete(|_| Ok(())).await?;
        self.writer().lower_watermark(kept)?;
        self.writer().complete(|log| log.truncate(index).map(drop)).await
    }

    fn note_committed(&self, committed: LogId) -> io::Result<()> {
        let [_, last, noted] = self.positions()?;
        // Only a hint for the next start: what the log does not have yet, it cannot note yet.
        if Some(committed) <= noted || Some(committed) > last {
            return Ok(());
        }
        self.writer()
            .submit(None, |log| log.commit(StoredLogId(committed)).map(drop))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (mut from, to) = half_open(&range);
        let mut entries = Vec::new();
        // In pieces, so that a long range does not keep appends waiting.
        loop {
            let piece = self
                .writer()
                .read(from, to, REPLICATION_BYTES)
                .map_err(|error| StorageIOError::read_logs(&error))?;
            match piece.last() {
                Some(last) => from = last.log_id.index + 1,
                None => return Ok(entries),
            }
            entries.extend(piece);
        }
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let entries = self
            .writer()
            .read(start, end, REPLICATION_BYTES)
            .map_err(|error| StorageIOError::read_logs(&error))?;
        Ok(entries)
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let [last_purged_log_id, last_log_id, _] =
            self.positions().map_err(|error| StorageIOError::read_logs(&error))?;
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), StorageError> {
        let ballot = StoredBallot(*vote);
        self.writer()
            .complete(|log| log.save_vote(ballot).map(drop))
            .await
            .map_err(|error| StorageIOError::write_vote(&error))?;
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, StorageError> {
        let ballot = self.ballot().map_err(|error| StorageIOError::read_vote(&error))?;
        // openraft would lead again at once, with what it last knew as committed: reads would then miss
        // writes that were acknowledged before the crash. A member that led must be elected anew.
        let own = self.handle.own_id;
        Ok(ballot.map(|ballot| match own {
            Some(id) if ballot.leader_id.node_id == id => Ballot::new(ballot.leader_id.term, id),
            _ => ballot,
        }))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        if let Some(committed) = committed {
            self.note_committed(committed)
                .map_err(|error| StorageIOError::write_logs(&error))?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let [_, last, committed] = self.positions().map_err(|error| StorageIOError::read_logs(&error))?;
        let known = (*self.handle.known_committed.lock()).filter(|known| Some(*known) <= last);
        Ok(committed.max(known))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.prepare(entries.into_iter())
            .and_then(|entries| self.append_prepared(entries, callback))
            .map_err(|error| StorageIOError::write_logs(&error))?;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.truncate_from(log_id.index)
            .await
            .map_err(|error| StorageIOError::write_logs(&error))?;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.writer()
            .complete(|log| log.purge(StoredLogId(log_id)).map(drop))
            .await
            .map_err(|error| StorageIOError::write_logs(&error))?;
        Ok(())
    }
}
