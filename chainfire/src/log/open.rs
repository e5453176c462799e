//! Opening a log: everything is checked before anything is promised.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::error::{OpenError, Rollback};
use super::folder::LogFolder;
use super::payload::LogTypes;
use super::watermark::{Mark, Watermark};
use super::writer::{SyncObserver, Writer, mark_of};
use crate::raft::types::MemberId;

/// The newest chunk is held in memory as a whole, so chunks are small; smaller ones would sync the folder
/// too often.
const DEFAULT_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// How much of older chunks stays in memory.
const CACHE_BYTES: usize = 512 * 1024;
const CACHE_ENTRIES: usize = 4096;
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Where a log lives and who hears of it.
#[derive(Clone)]
pub struct LogOptions {
    pub folder: PathBuf,
    /// Must lie outside of the folder: it is to survive what happens to the folder.
    pub watermark: PathBuf,
    /// When a new chunk is begun. Purging frees whole chunks.
    pub chunk_bytes: usize,
    pub observe_sync: SyncObserver,
    /// Whose log this is: its own leadership does not survive a restart.
    pub own_id: Option<MemberId>,
}

impl LogOptions {
    pub fn new(folder: impl Into<PathBuf>, watermark: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            watermark: watermark.into(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            observe_sync: Arc::new(|_| {}),
            own_id: None,
        }
    }
}

pub(super) fn open(options: LogOptions) -> Result<Writer, OpenError> {
    let path = options.folder.as_path();
    let in_folder = |error| OpenError::from_io(path, error);

    let folder = LogFolder::acquire(path)?;
    let watermark = match Watermark::load(&options.watermark) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(rolled_back(path, Rollback::WatermarkUnreadable));
        }
        loaded => loaded.map_err(in_folder)?,
    };
    folder.rewrite_chunks_in_doubt().map_err(in_folder)?;
    let config = config(&folder.chunks(), options.chunk_bytes).map_err(in_folder)?;
    let mut raft_log = RaftLog::<LogTypes>::open(Arc::new(config)).map_err(in_folder)?;

    check_entries(path, &raft_log)?;
    let mark = mark_of(&raft_log);
    let mut watermark = match watermark {
        Some(watermark) => match watermark.mark().regression(&mark) {
            Some(evidence) => return Err(rolled_back(path, evidence)),
            None => watermark,
        },
        None if mark == Mark::default() => Watermark::create(&options.watermark).map_err(in_folder)?,
        None => return Err(rolled_back(path, Rollback::WatermarkMissing)),
    };
    // What was read may not have been synced by the process that wrote it.
    raft_log.flush(true, None).map_err(in_folder)?;
    raft_log.wait_worker_idle().map_err(in_folder)?;
    watermark.begin_epoch(mark).map_err(in_folder)?;
    Ok(Writer::new(raft_log, folder, watermark, options.observe_sync))
}

fn rolled_back(folder: &Path, evidence: Rollback) -> OpenError {
    OpenError::RolledBack {
        folder: folder.to_path_buf(),
        evidence,
    }
}

fn config(chunks: &Path, chunk_bytes: usize) -> io::Result<raft_log::Config> {
    let chunks = chunks
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path of a log must be UTF-8"))?;
    let mut config = raft_log::Config::new(chunks);
    config.wal.chunk_max_size = Some(chunk_bytes);
    config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
    // Openraft waits for each append: a wait for company would only be slower.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    config.log_cache_capacity = Some(CACHE_BYTES);
    config.log_cache_max_items = Some(CACHE_ENTRIES);
    Ok(config)
}

/// The log must hold what its state says: all from after the last purged entry to the last. Within that the
/// log beneath has checked that entries follow each other.
fn check_entries(folder: &Path, raft_log: &RaftLog<LogTypes>) -> Result<(), OpenError> {
    let mark = mark_of(raft_log);
    let first = mark.purged.map_or(0, |id| id.index + 1);
    let Some(last) = mark.last.filter(|last| last.index >= first) else {
        return Ok(());
    };
    for index in [first, last.index] {
        let id = match raft_log.read(index, index + 1).next() {
            Some(record) => Some(record.map_err(|error| OpenError::from_io(folder, error))?.0),
            None => None,
        };
        let is_expected = id.is_some_and(|id| index != last.index || id.0 == last);
        if !is_expected {
            return Err(OpenError::Corrupt {
                folder: folder.to_path_buf(),
                detail: format!("entry {index} of {first} to {} is missing", last.index),
            });
        }
    }
    Ok(())
}
