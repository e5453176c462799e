//! The state as openraft sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{AnyError, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use parking_lot::Mutex;

use super::apply::{self, ApplyError};
use super::open::{self, StateFolder};
use super::persist::{FlushLimits, Flusher};
use super::read::State;
use super::snapshot::{SnapshotError, SnapshotFile, SnapshotStore};
use crate::log::SyncGate;
use crate::metrics::StateMetrics;
use crate::raft::types::{Answers, Entry, LogId, MemberId, Peer, StorageError, StoredMembership, TypeConfig};

/// How long applying may wait for the flusher before the member gives up.
const FLUSH_DEADLINE: Duration = Duration::from_secs(30);

/// The only writer of a member's window: openraft hands it committed entries, in order.
#[derive(Debug)]
pub struct StateMachine {
    state: State,
    snapshots: SnapshotStore,
    folder: StateFolder,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    metrics: Arc<StateMetrics>,
    flush_limits: FlushLimits,
    gate: SyncGate,
    _flusher: Flusher,
}

impl StateMachine {
    pub(super) fn new(
        state: State,
        snapshots: SnapshotStore,
        folder: StateFolder,
        current: Option<SnapshotFile>,
        flush_limits: FlushLimits,
        metrics: Arc<StateMetrics>,
    ) -> std::io::Result<Self> {
        state.note_snapshot(current.as_ref().map_or(0, |file| file.bytes));
        let flusher = Flusher::spawn(state.clone(), flush_limits)?;
        Ok(Self {
            state,
            snapshots,
            folder,
            current: Arc::new(Mutex::new(current)),
            metrics,
            flush_limits,
            gate: SyncGate::default(),
            _flusher: flusher,
        })
    }

    /// Applies nothing that this member's log has not synced.
    pub fn behind(self, gate: SyncGate) -> Self {
        Self { gate, ..self }
    }

    pub fn state(&self) -> State {
        self.state.clone()
    }

    pub fn snapshots(&self) -> SnapshotStore {
        self.snapshots.clone()
    }

    fn apply_entry(&self, entry: Entry) -> Result<Answers, ApplyError> {
        let at = entry.log_id;
        let mut window = self.state.window_mut();
        match entry.payload {
            EntryPayload::Normal(commands) => apply::apply_commands(&mut window, at, commands.0),
            EntryPayload::Blank => {
                apply::apply_blank(&mut window, at);
                Ok(Answers::new())
            }
            EntryPayload::Membership(membership) => {
                apply::apply_membership(&mut window, at, StoredMembership::new(Some(at), membership));
                Ok(Answers::new())
            }
        }
    }

    /// Holds applying back while the flusher is far behind.
    async fn wait_for_room(&self) -> Result<(), StorageError> {
        let begun = tokio::time::Instant::now();
        loop {
            let flushed = self.state.flushed().notified();
            let bytes = self.state.window_bytes();
            if bytes > self.flush_limits.begin_bytes {
                self.state.flush_wanted().notify_one();
            }
            if let Some(reason) = self.state.damage() {
                return Err(write_error(&std::io::Error::other(reason)));
            }
            if bytes <= self.flush_limits.stop_bytes {
                return Ok(());
            }
            if begun.elapsed() > FLUSH_DEADLINE {
                return Err(write_error(&std::io::Error::other(
                    "the state could not be flushed for 30 s",
                )));
            }
            // A reader that holds the floor may end without a flush: look again soon.
            let _ = tokio::time::timeout(Duration::from_millis(100), flushed).await;
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let boundary = self.state.boundary();
        Ok((boundary.applied, boundary.settings.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let at = entry.log_id;
            self.gate.wait(at.index).await.map_err(|error| write_error(&error))?;
            let answer = self.apply_entry(entry).map_err(|error| {
                tracing::error!(%error, index = at.index, "an entry cannot be applied");
                if let ApplyError::Base(error) = &error {
                    self.state.damaged(error);
                }
                StorageError::from(StorageIOError::apply(at, AnyError::new(&error)))
            })?;
            self.state.publish();
            self.wait_for_room().await?;
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
            current: Arc::clone(&self.current),
            metrics: Arc::clone(&self.metrics),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        // Snapshots are received as files; whoever asks here gets one to write over: of what there is.
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        tokio::task::spawn_blocking(move || snapshots.create_unnamed(&state))
            .await
            .map_err(|error| write_error(&std::io::Error::other(error)))?
            .map(Box::new)
            .map_err(|error| write_error(&error))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<MemberId, Peer>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        tracing::info!(snapshot = %meta.snapshot_id, bytes = snapshot.bytes, "installing a snapshot");
        let folder = self.folder.clone();
        let file = (*snapshot).clone();
        let loaded = tokio::task::spawn_blocking(move || open::load_base(&folder, &file))
            .await
            .map_err(|error| write_error(&std::io::Error::other(error)))?;
        let (base, tip, generation) = loaded.map_err(|error| snapshot_error(meta, &error))?;
        self.state.window_mut().replace(base, tip);
        self.state.publish_replaced();
        self.folder.remove_others(generation);
        self.snapshots.keep_only(&snapshot);
        self.state.note_snapshot(snapshot.bytes);
        self.current.lock().replace(*snapshot);
        self.metrics.snapshots_installed.inc();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.current.lock().clone();
        match current {
            Some(file) => Ok(Some(to_snapshot(file)?)),
            None => Ok(None),
        }
    }
}

/// Builds a snapshot while entries are applied.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    snapshots: SnapshotStore,
    current: Arc<Mutex<Option<SnapshotFile>>>,
    metrics: Arc<StateMetrics>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let state = self.state.clone();
        let snapshots = self.snapshots.clone();
        let begun = std::time::Instant::now();
        let file = tokio::task::spawn_blocking(move || write_snapshot(&state, &snapshots))
            .await
            .map_err(|error| write_error(&std::io::Error::other(error)))?
            .map_err(|error| write_error(&error))?;
        self.metrics.snapshot_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.snapshots_built.inc();
        self.snapshots.keep_only(&file);
        self.state.note_snapshot(file.bytes);
        self.current.lock().replace(file.clone());
        to_snapshot(file)
    }
}

fn write_snapshot(state: &State, snapshots: &SnapshotStore) -> Result<SnapshotFile, SnapshotError> {
    let pinned = state.pin(0)?;
    let rows = pinned.rows().map(|row| row.map_err(SnapshotError::from));
    snapshots.create(pinned.boundary().to_meta(), rows)
}

#[expect(clippy::result_large_err, reason = "the error is openraft's")]
fn to_snapshot(file: SnapshotFile) -> Result<Snapshot<TypeConfig>, StorageError> {
    let last_membership = file.membership().map_err(|error| write_error(&error))?;
    Ok(Snapshot {
        meta: SnapshotMeta {
            last_log_id: file.last_log_id(),
            last_membership,
            snapshot_id: file.id(),
        },
        snapshot: Box::new(file),
    })
}

fn write_error(error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageError::from_io_error(
        ErrorSubject::StateMachine,
        ErrorVerb::Write,
        std::io::Error::other(error.to_string()),
    )
}

fn snapshot_error(meta: &SnapshotMeta<MemberId, Peer>, error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(error)).into()
}

/// Commands as they are proposed.
pub fn encode_commands(commands: Vec<crate::proto::Command>) -> Bytes {
    use prost::Message;
    crate::proto::CommandBatch { commands }.encode_to_vec().into()
}
