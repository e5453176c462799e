//! Backups: a snapshot file outside of any member, checked, and put back as the beginning of a new
//! cluster.

use std::path::{Path, PathBuf};

use crate::node::{FolderError, restore_folder};
use crate::state::{SnapshotError, SnapshotFile, SnapshotReader, write_snapshot_file};

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{folder} holds a store already: restore into an empty folder")]
    NotEmpty { folder: PathBuf },
    #[error("cannot restore: {reason}")]
    Restore { reason: String },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    pub bytes: u64,
    pub keys: u64,
    pub revision: u64,
    pub index: u64,
    pub term: u64,
    pub cluster_id: String,
    pub feature_level: u32,
    /// 32 hexadecimal digits, as in a member's status.
    pub state_digest: String,
}

/// Reads all of a backup and checks it.
pub fn verify(path: &Path) -> Result<Summary, BackupError> {
    let file = SnapshotFile::open_checked(path)?;
    let meta = file.meta;
    let at = meta.applied.unwrap_or_default();
    Ok(Summary {
        bytes: file.bytes,
        keys: meta.keys,
        revision: meta.revision,
        index: at.index,
        term: at.term,
        cluster_id: meta.cluster_id,
        feature_level: meta.feature_level,
        state_digest: meta.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Makes an empty folder into the single member of a NEW cluster that begins with a backup. Revisions go
/// on from the backup's; the cluster id is new, so that members of the old one and this one never mix.
pub fn restore(path: &Path, folder: &Path, name: &str, advertise: &str) -> Result<Summary, BackupError> {
    let summary = verify(path)?;
    let occupied = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(BackupError::NotEmpty {
            folder: folder.to_owned(),
        });
    }
    let mut reader = SnapshotReader::open(path)?;
    let restored = restore_folder(folder, name, advertise, reader.meta())?;
    let rows = std::iter::from_fn(|| reader.next_row().transpose());
    let written = write_snapshot_file(&restored.snapshot, &restored.meta, rows);
    if let Err(error) = written {
        // Nothing of a failed restore may look like a member.
        let _ = std::fs::remove_dir_all(folder);
        return Err(error.into());
    }
    Ok(summary)
}
