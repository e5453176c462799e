//! Snapshot files: the whole state at one log id, checked and synced. The log is never cut beyond the
//! last one, so together with the log it can rebuild a state that was lost.

mod format;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::read::State;
use super::row::Row;
use crate::codec::CodecError;
use crate::proto;
use crate::raft::types::{LogId, StoredMembership};

pub use format::{SnapshotReader, write_file};

use format::persist_as;

const SUFFIX: &str = "snap";
const BACKUP_SUFFIX: &str = "backup";

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a snapshot of ChainFire")]
    NotASnapshot { path: PathBuf },
    #[error("{path} was written by a newer version (format {format}): upgrade to read it")]
    Newer { path: PathBuf, format: u32 },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("the state could not be read: {0}")]
    Source(#[from] crate::kv::KvError),
}

impl SnapshotError {
    pub fn is_disk_full(&self) -> bool {
        matches!(self, SnapshotError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// A finished, checked snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// What the header says of the state.
    pub meta: proto::StateMeta,
    // Keeps the content readable when the name is gone.
    file: Arc<File>,
}

impl SnapshotFile {
    /// Opens a file and checks all of it.
    pub fn open_checked(path: &Path) -> Result<Self, SnapshotError> {
        let mut reader = SnapshotReader::open(path)?;
        while reader.next_row()?.is_some() {}
        Self::of(path, reader.into_meta())
    }

    fn of(path: &Path, meta: proto::StateMeta) -> Result<Self, SnapshotError> {
        let context = |source| SnapshotError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(context)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata().map_err(context)?.len(),
            meta,
            file: Arc::new(file),
        })
    }

    /// The raw bytes, for sending.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        use std::os::unix::fs::FileExt;
        let mut buffer = vec![0; length];
        let count = self.file.read_at(&mut buffer, offset)?;
        buffer.truncate(count);
        Ok(buffer.into())
    }

    pub fn last_log_id(&self) -> Option<LogId> {
        self.meta.applied.map(LogId::from)
    }

    pub fn membership(&self) -> Result<StoredMembership, CodecError> {
        self.meta
            .membership
            .clone()
            .map(StoredMembership::try_from)
            .transpose()
            .map(Option::unwrap_or_default)
    }

    /// Names the state, not the file: the same on every member.
    pub fn id(&self) -> String {
        name_of(&self.meta)
    }
}

fn name_of(meta: &proto::StateMeta) -> String {
    let at = meta.applied.unwrap_or_default();
    format!("{:020}-{:020}-{}", at.index, at.term, at.leader)
}

/// Where a member keeps its snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    folder: PathBuf,
}

impl SnapshotStore {
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        let store = Self {
            folder: folder.to_owned(),
        };
        let context = |source| SnapshotError::Io {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(context)?;
        for entry in std::fs::read_dir(folder).map_err(context)?.flatten() {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "tmp" || extension == BACKUP_SUFFIX)
            {
                std::fs::remove_file(entry.path()).map_err(context)?;
            }
        }
        Ok(store)
    }

    /// The newest snapshot that is whole, and what is wrong with newer ones.
    pub fn newest(&self) -> (Option<SnapshotFile>, Vec<SnapshotError>) {
        let mut damaged = Vec::new();
        for path in self.files().into_iter().rev() {
            match SnapshotFile::open_checked(&path) {
                Ok(file) => return (Some(file), damaged),
                Err(error) => damaged.push(error),
            }
        }
        (None, damaged)
    }

    /// Writes a snapshot: temporary file, sync, rename, sync of the folder.
    pub fn create(
        &self,
        meta: proto::StateMeta,
        rows: impl Iterator<Item = Result<(Bytes, Row), SnapshotError>>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let path = Self::path_of(&self.folder, &meta);
        write_file(&path, &meta, rows)?;
        SnapshotFile::of(&path, meta)
    }

    /// A snapshot of now, for a backup: the file has no name any more and goes with its last reader.
    pub fn create_unnamed(&self, state: &State) -> Result<SnapshotFile, SnapshotError> {
        let path = self
            .folder
            .join(uuid::Uuid::new_v4().to_string())
            .with_extension(BACKUP_SUFFIX);
        let pinned = state.pin(0)?;
        let meta = pinned.boundary().to_meta();
        write_file(&path, &meta, pinned.rows().map(|row| row.map_err(SnapshotError::from)))?;
        let file = SnapshotFile::of(&path, meta);
        std::fs::remove_file(&path).map_err(|source| SnapshotError::Io { path, source })?;
        file
    }

    /// The name that a snapshot of a state has here.
    pub fn path_of(folder: &Path, meta: &proto::StateMeta) -> PathBuf {
        folder.join(name_of(meta)).with_extension(SUFFIX)
    }

    /// A place for a snapshot that is being received; it counts only once [`adopt`](Self::adopt)ed.
    pub fn begin_receiving(&self) -> Result<(PathBuf, File), SnapshotError> {
        let path = self.folder.join(format!("received-{}.tmp", uuid::Uuid::new_v4()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|source| SnapshotError::Io {
                path: path.clone(),
                source,
            })?;
        Ok((path, file))
    }

    /// Checks a received file and gives it its name.
    pub fn adopt(&self, received: &Path) -> Result<SnapshotFile, SnapshotError> {
        let checked = SnapshotFile::open_checked(received)?;
        let path = Self::path_of(&self.folder, &checked.meta);
        persist_as(received, &path)?;
        SnapshotFile::of(&path, checked.meta)
    }

    /// Removes all snapshots but this one.
    pub fn keep_only(&self, newest: &SnapshotFile) {
        for path in self.files() {
            if path != newest.path {
                // What stays is removed the next time.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == SUFFIX))
            .collect();
        files.sort();
        files
    }
}
