//! The data folder: who may use it, and what is where in it.
//!
//! ```text
//! FORMAT        the layout's version        identity.json   who this member is
//! LOCK          held while in use           peers.json      who the others are, for a re-seed
//! log/          entries and ballots         watermark       what the log must at least hold
//! state/        applied state               snapshots/      checked snapshot files
//! quarantine-N/ what was set aside          recovered.snap  a recovery that is not completed
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::claim::{Claim, ClaimError, claim};
use crate::files;

/// The layout that this version writes.
const FORMAT: u32 = 1;
/// Stores that were set aside and are kept for whoever wants to look.
const KEPT_QUARANTINES: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another server: stop it, or give this one a folder of its own")]
    Locked { path: PathBuf },
    #[error(
        "{path} was written by a newer version (format {found}, this version knows {FORMAT}): upgrade, nothing was changed"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("{path} is not readable as a version number: this is not a data folder of ChainFire, or it is damaged")]
    Format { path: PathBuf },
}

/// Paths inside a data folder.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Takes a folder into use, making it if needed. Blocks for a moment while another process holds it.
    pub fn take(root: &Path) -> Result<(Self, Claim), FolderError> {
        let folder = Self { root: root.to_owned() };
        std::fs::create_dir_all(root).map_err(|source| folder.io(source))?;
        let held = claim(&root.join("LOCK")).map_err(|error| match error {
            ClaimError::Io(source) => folder.io(source),
            ClaimError::Held => FolderError::Locked { path: root.to_owned() },
        })?;
        folder.check_format()?;
        Ok((folder, held))
    }

    fn check_format(&self) -> Result<(), FolderError> {
        let path = self.root.join("FORMAT");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(found) if found > FORMAT => Err(FolderError::Newer { path, found }),
                Ok(_) => Ok(()),
                // The log has a version of its own and refuses what it does not know, so that a folder which
                // is certainly ours gets its mark back.
                Err(_) if self.identity().exists() => self.mark_format(&path),
                Err(_) => Err(FolderError::Format { path }),
            },
            // Bytes that are no text: damaged, like any other text that is no number.
            Err(error) if error.kind() == io::ErrorKind::InvalidData && self.identity().exists() => {
                self.mark_format(&path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.mark_format(&path),
            Err(source) => Err(self.io(source)),
        }
    }

    fn mark_format(&self, path: &Path) -> Result<(), FolderError> {
        files::replace(path, format!("{FORMAT}\n").as_bytes()).map_err(|source| self.io(source))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn watermark(&self) -> PathBuf {
        self.root.join("watermark")
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    pub fn peers(&self) -> PathBuf {
        self.root.join("peers.json")
    }

    /// The state of a recovery that has begun: the folder is of no use until it is completed.
    pub fn recovered(&self) -> PathBuf {
        Self::recovered_in(&self.root)
    }

    pub fn recovered_in(root: &Path) -> PathBuf {
        root.join("recovered.snap")
    }

    /// Sets the whole store aside. Its parts are moved, none is deleted; the oldest such sets are.
    pub fn quarantine(&self) -> Result<PathBuf, FolderError> {
        let mut number = files::unix_seconds();
        let mut aside = self.root.join(format!("quarantine-{number}"));
        while aside.exists() {
            number += 1;
            aside = self.root.join(format!("quarantine-{number}"));
        }
        std::fs::create_dir(&aside).map_err(|source| self.io(source))?;
        for part in ["log", "watermark", "state", "snapshots"] {
            match std::fs::rename(self.root.join(part), aside.join(part)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.io(source)),
            }
        }
        files::sync_folder(&self.root).map_err(|source| self.io(source))?;
        self.forget_old_quarantines();
        Ok(aside)
    }

    fn forget_old_quarantines(&self) {
        let mut kept: Vec<PathBuf> = std::fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("quarantine-"))
            })
            .collect();
        kept.sort();
        for path in kept.iter().rev().skip(KEPT_QUARANTINES) {
            // What stays is removed the next time.
            let _ = std::fs::remove_dir_all(path);
        }
    }

    fn io(&self, source: io::Error) -> FolderError {
        FolderError::Io {
            path: self.root.clone(),
            source,
        }
    }
}
