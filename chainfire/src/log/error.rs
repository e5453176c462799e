//! Why a log does not open, and why it stopped.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log was not opened. Nothing acknowledged was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process: two servers cannot share one data folder", folder.display())]
    Locked { folder: PathBuf },
    #[error("{} has format {found}, this version reads up to {supported}: upgrade this server", folder.display())]
    NewerFormat {
        folder: PathBuf,
        found: u32,
        supported: u32,
    },
    #[error("{} is damaged: {detail}; this member must be seeded anew under another id", folder.display())]
    Corrupt { folder: PathBuf, detail: String },
    #[error(
        "{} is not what it was: {evidence}; this member must not vote with it and must be seeded anew under \
         another id",
        folder.display()
    )]
    RolledBack { folder: PathBuf, evidence: Rollback },
    #[error("no room for the log in {}: {source}", folder.display())]
    DiskFull {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the log in {}: {source}", folder.display())]
    Io {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What tells that a log is older than it was, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    #[error("{what} is {found}, but {durable} was durable here")]
    Regressed {
        what: &'static str,
        found: String,
        durable: String,
    },
    #[error("the log has entries or a ballot, but its watermark is missing")]
    WatermarkMissing,
    #[error("its watermark cannot be read, so nobody knows how far it was durable")]
    WatermarkUnreadable,
}

impl OpenError {
    pub(super) fn from_io(folder: &Path, source: io::Error) -> Self {
        let folder = folder.to_path_buf();
        match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { folder },
            // `Other` is how the log beneath reports records that contradict each other.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other => OpenError::Corrupt {
                folder,
                detail: source.to_string(),
            },
            kind if is_out_of_room(kind) => OpenError::DiskFull { folder, source },
            _ => OpenError::Io { folder, source },
        }
    }
}

/// Why the log stopped. It takes no writes from then on; closed and opened again it goes on from what was
/// durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log stopped: {detail}")]
pub struct LogFailure {
    pub kind: FailureKind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Out of space, quota or file size: goes away when there is room.
    DiskFull,
    /// An entry above the limit of the log: a bug of whoever proposed it.
    TooLarge,
    /// The disk, or an order that contradicts the log.
    Io,
}

impl LogFailure {
    pub(super) fn from_io(error: &io::Error) -> Self {
        let kind = match error.kind() {
            kind if is_out_of_room(kind) => FailureKind::DiskFull,
            _ => FailureKind::Io,
        };
        Self {
            kind,
            detail: error.to_string(),
        }
    }

    pub(super) fn into_io(self) -> io::Error {
        let kind = match self.kind {
            FailureKind::DiskFull => io::ErrorKind::StorageFull,
            FailureKind::TooLarge | FailureKind::Io => io::ErrorKind::Other,
        };
        io::Error::new(kind, self.to_string())
    }
}

fn is_out_of_room(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
