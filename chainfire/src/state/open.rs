//! Opening a member's stored state: find the newest base that adds up, or rebuild one.
//!
//! ```text
//! snapshot file beyond the end of the log ──────────────────► load it into a new base
//! base adds up and reaches the log ─────────────────────────► use it
//! else, newest whole snapshot file reaches the log ─────────► load it into a new base
//! else, the log still begins at its first entry ────────────► begin with nothing, replay it
//! else ─────────────────────────────────────────────────────► NeedsReseed: only the leader can help
//! ```
//! A base that failed is moved aside, never repaired in place and never silently deleted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{Base, BaseError};
use super::boundary::Boundary;
use super::machine::StateMachine;
use super::persist::FlushLimits;
use super::read::State;
use super::snapshot::{SnapshotError, SnapshotFile, SnapshotReader, SnapshotStore};
use super::window::Window;
use crate::codec::CodecError;
use crate::files;
use crate::kv::Limits;
use crate::metrics::StateMetrics;
use crate::raft::types::LogId;

/// Rows of one batch while a snapshot is loaded.
const LOAD_ROWS: usize = 1024;
/// Damaged bases that are kept for whoever wants to look.
const KEPT_DAMAGED: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the applied state is lost ({reason}) and the log no longer reaches back to the beginning")]
    NeedsReseed { reason: String },
}

impl StateError {
    pub fn is_disk_full(&self) -> bool {
        match self {
            StateError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            StateError::Base(BaseError::Sled(sled::Error::Io(source))) => source.kind() == io::ErrorKind::StorageFull,
            StateError::Snapshot(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

/// What a member's state is opened with.
#[derive(Debug, Clone)]
pub struct StateOptions {
    pub folder: PathBuf,
    pub limits: Limits,
    pub flush: FlushLimits,
}

/// Which entries the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogExtent {
    /// The last entry that it no longer has.
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenReport {
    Sound,
    /// The base was not usable and has been made anew from here.
    Rebuilt {
        reason: String,
    },
}

#[derive(Debug)]
pub struct Opened {
    pub machine: StateMachine,
    pub state: State,
    pub report: OpenReport,
    /// What the newest snapshot covers, which was committed.
    pub snapshot_at: Option<LogId>,
}

/// Opens the state in a folder, beside a log.
pub fn open(options: &StateOptions, log: LogExtent, metrics: Arc<StateMetrics>) -> Result<Opened, StateError> {
    let folder = StateFolder::open(&options.folder.join("state"))?;
    let snapshots = SnapshotStore::open(&options.folder.join("snapshots"))?;
    let (newest, damaged) = snapshots.newest();
    for error in &damaged {
        tracing::warn!(%error, "a snapshot is not usable");
    }
    let ((base, tip), report) = match open_base(&folder, log.purged) {
        // A snapshot beyond the log was received or restored, and not yet loaded.
        Ok(_) if newest.as_ref().is_some_and(|file| file.last_log_id() > log.last) => {
            let reason = "a snapshot is newer than the log".to_owned();
            let rebuilt = rebuild(&folder, newest.as_ref(), log.purged, &reason)?;
            (rebuilt, OpenReport::Sound)
        }
        Ok(sound) => (sound, OpenReport::Sound),
        Err(error) if error.is_disk_full() => return Err(error),
        Err(error) => {
            let reason = error.to_string();
            tracing::warn!(%reason, "the applied state is not usable; rebuilding it");
            let rebuilt = rebuild(&folder, newest.as_ref(), log.purged, &reason)?;
            (rebuilt, OpenReport::Rebuilt { reason })
        }
    };
    // A snapshot older than what the log has lost cannot be sent to anybody.
    let current = newest.filter(|file| file.last_log_id() >= log.purged);
    let snapshot_at = current.as_ref().and_then(SnapshotFile::last_log_id);
    let state = State::new(Window::new(base, tip), options.limits);
    let machine =
        StateMachine::new(state.clone(), snapshots, folder, current, options.flush, metrics).map_err(|source| {
            StateError::Io {
                path: options.folder.clone(),
                source,
            }
        })?;
    Ok(Opened {
        machine,
        state,
        report,
        snapshot_at,
    })
}

fn open_base(folder: &StateFolder, purged: Option<LogId>) -> Result<(Arc<Base>, Boundary), StateError> {
    let generation = folder.current()?;
    let (base, meta) = Base::open_verified(&folder.generation(generation))?;
    let tip = Boundary::from_meta(meta)?;
    if tip.applied < purged {
        return Err(StateError::NeedsReseed {
            reason: "it is older than the beginning of the log".to_owned(),
        });
    }
    folder.remove_others(generation);
    Ok((Arc::new(base), tip))
}

fn rebuild(
    folder: &StateFolder,
    newest: Option<&SnapshotFile>,
    purged: Option<LogId>,
    reason: &str,
) -> Result<(Arc<Base>, Boundary), StateError> {
    folder.set_aside_current()?;
    match newest {
        Some(file) if file.last_log_id() >= purged => {
            let (base, tip, _) = load_base(folder, file)?;
            Ok((base, tip))
        }
        _ if purged.is_none() => {
            let generation = folder.next_generation()?;
            let base = Base::create(&folder.generation(generation))?;
            folder.set_current(generation)?;
            Ok((Arc::new(base), Boundary::default()))
        }
        _ => Err(StateError::NeedsReseed {
            reason: reason.to_owned(),
        }),
    }
}

/// Makes a new base out of a snapshot and makes it the current one.
pub fn load_base(folder: &StateFolder, file: &SnapshotFile) -> Result<(Arc<Base>, Boundary, u64), StateError> {
    let generation = folder.next_generation()?;
    let base = Base::create(&folder.generation(generation))?;
    let mut reader = SnapshotReader::open(&file.path)?;
    let mut rows = Vec::with_capacity(LOAD_ROWS);
    while let Some(row) = reader.next_row()? {
        rows.push(row);
        if rows.len() == LOAD_ROWS {
            base.load(&rows)?;
            rows.clear();
        }
    }
    base.load(&rows)?;
    base.write(&[], reader.meta())?;
    base.flush()?;
    let tip = Boundary::from_meta(reader.into_meta())?;
    folder.set_current(generation)?;
    Ok((Arc::new(base), tip, generation))
}

/// The folder of the bases: `gen-N` each, and `CURRENT` that names the one in use.
#[derive(Debug, Clone)]
pub struct StateFolder {
    root: PathBuf,
}

impl StateFolder {
    fn open(root: &Path) -> Result<Self, StateError> {
        let folder = Self { root: root.to_owned() };
        std::fs::create_dir_all(root).map_err(|source| folder.io(source))?;
        Ok(folder)
    }

    fn generation(&self, generation: u64) -> PathBuf {
        self.root.join(format!("gen-{generation}"))
    }

    /// The generation in use; 1 in a new folder.
    fn current(&self) -> Result<u64, StateError> {
        match std::fs::read_to_string(self.root.join("CURRENT")) {
            Ok(text) => text.trim().parse().map_err(|_| StateError::NeedsReseed {
                reason: "the file that names the current state is not readable".to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.generations().is_empty() {
                    self.set_current(1)?;
                    return Ok(1);
                }
                Err(StateError::NeedsReseed {
                    reason: "the file that names the current state is missing".to_owned(),
                })
            }
            Err(error) => Err(self.io(error)),
        }
    }

    fn set_current(&self, generation: u64) -> Result<(), StateError> {
        files::replace(&self.root.join("CURRENT"), format!("{generation}\n").as_bytes())
            .map_err(|source| self.io(source))
    }

    /// A number that no folder here has, or had as the current one.
    fn next_generation(&self) -> Result<u64, StateError> {
        let highest = self.generations().into_iter().max().unwrap_or(0);
        let generation = highest.max(self.current().unwrap_or(0)) + 1;
        Ok(generation)
    }

    /// Removes the bases that are not in use: leftovers of an interrupted load.
    pub fn remove_others(&self, keep: u64) {
        for generation in self.generations() {
            if generation != keep {
                // What stays is removed the next time.
                let _ = std::fs::remove_dir_all(self.generation(generation));
            }
        }
    }

    fn set_aside_current(&self) -> Result<(), StateError> {
        let generations = self.generations();
        for generation in &generations {
            let from = self.generation(*generation);
            let to = self
                .root
                .join(format!("damaged-{}-{generation}", files::unix_seconds()));
            std::fs::rename(&from, &to).map_err(|source| self.io(source))?;
        }
        let mut damaged: Vec<PathBuf> = self.entries().filter(|path| named(path, "damaged-")).collect();
        damaged.sort();
        for path in damaged.iter().rev().skip(KEPT_DAMAGED) {
            let _ = std::fs::remove_dir_all(path);
        }
        Ok(())
    }

    fn generations(&self) -> Vec<u64> {
        self.entries()
            .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("gen-")?.parse().ok())
            .collect()
    }

    fn entries(&self) -> impl Iterator<Item = PathBuf> {
        std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io {
            path: self.root.clone(),
            source,
        }
    }
}

fn named(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}
