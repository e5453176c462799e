//! The folder of a log: who uses it, in which format it is, and its newest files after a bad end.
//!
//! ```text
//! FOLDER/LOCK      held by the process that uses the folder
//! FOLDER/FORMAT    the version of the format; a newer one is refused, and nothing is touched
//! FOLDER/chunks/   what the log beneath keeps
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::OpenError;

/// The format this version writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_PREFIX: &str = "chainfire-log ";
/// A chunk is begun only after the one before it was synced, but the newest may itself have been cut
/// off at its end and followed by a fresh one.
const CHUNKS_IN_DOUBT: usize = 2;
const COPY_BYTES: usize = 256 * 1024;

/// A folder that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct LogFolder {
    path: PathBuf,
    _lock: File,
}

impl LogFolder {
    /// Locks the folder, creating it if it is new, and checks its format.
    pub fn acquire(path: &Path) -> Result<Self, OpenError> {
        let in_folder = |error| OpenError::from_io(path, error);
        create_durably(path).map_err(in_folder)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("LOCK"))
            .map_err(in_folder)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| in_folder(error.into()))?;
        let folder = Self {
            path: path.to_path_buf(),
            _lock: lock,
        };
        folder.check_format()?;
        Ok(folder)
    }

    /// Where the log beneath keeps its files.
    pub fn chunks(&self) -> PathBuf {
        self.path.join("chunks")
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let corrupt = |detail: String| OpenError::Corrupt {
            folder: self.path.clone(),
            detail,
        };
        let content = match fs::read(self.path.join("FORMAT")) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.chunks().exists() => {
                return self
                    .create_format()
                    .map_err(|error| OpenError::from_io(&self.path, error));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt("it has chunks but no FORMAT".to_owned()));
            }
            Err(error) => return Err(OpenError::from_io(&self.path, error)),
        };
        let version = String::from_utf8_lossy(&content)
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix(FORMAT_PREFIX))
            .and_then(|version| version.parse::<u32>().ok());
        match version {
            Some(FORMAT_VERSION) => Ok(()),
            Some(found) if found > FORMAT_VERSION => Err(OpenError::NewerFormat {
                folder: self.path.clone(),
                found,
                supported: FORMAT_VERSION,
            }),
            _ => Err(corrupt("its FORMAT cannot be read".to_owned())),
        }
    }

    fn create_format(&self) -> io::Result<()> {
        let fresh = self.path.join("FORMAT.new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{FORMAT_PREFIX}{FORMAT_VERSION}")?;
        file.sync_all()?;
        fs::rename(&fresh, self.path.join("FORMAT"))?;
        fs::create_dir(self.chunks())?;
        File::open(&self.path)?.sync_all()
    }

    /// Writes the newest chunks again, byte for byte, and syncs them.
    ///
    /// After a failed sync the kernel may hold pages that it takes for written and that are not on the
    /// disk: a log opened from them would promise what a power cut undoes. Written again they are synced,
    /// or the failure shows.
    pub fn rewrite_chunks_in_doubt(&self) -> io::Result<()> {
        let mut chunks = Vec::new();
        match fs::read_dir(self.chunks()) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry?.path();
                    if path.extension().is_some_and(|extension| extension == "wal") {
                        chunks.push(path);
                    }
                }
            }
            // FORMAT was written, and then the machine stopped.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(self.chunks())?,
            Err(error) => return Err(error),
        }
        chunks.sort();
        for chunk in chunks.iter().rev().take(CHUNKS_IN_DOUBT) {
            rewrite(chunk)?;
        }
        File::open(self.chunks())?.sync_all()?;
        File::open(&self.path)?.sync_all()
    }
}

fn rewrite(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return file.sync_all();
        }
        file.write_all_at(&buffer[..count], offset)?;
        offset += count as u64;
    }
}

fn create_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes the name of a file durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
