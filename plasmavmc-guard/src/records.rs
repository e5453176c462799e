//! The guard's folder: one lock, one socket, and one record for every child.
//!
//! It lies on a tmpfs, so writing never waits for a disk and a reboot empties it; where it does not, the boot
//! id in every record says the same. Records are replaced by rename: a reader sees the old one or the new
//! one. Nothing is synced, because what they describe does not outlive the kernel that holds them.
//!
//! Must never happen: two guards on one folder, or a process that executes its program without a record.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use plasmavmc_types::{Incarnation, VmId};
use rustix::event::{Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::wire::{Exit, Key, Lease};

const LOCK: &str = "guard.lock";
const RECORDS: &str = "children";
/// Together half a second; it takes milliseconds.
const LOOKS_AT_LOCK: u32 = 50;
const BETWEEN_LOOKS: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
const VERSION: u32 = 1;
/// A record is a few hundred bytes; what is longer is none.
const LONGEST_RECORD_BYTES: u64 = 64 * 1024;

/// What is kept of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    pub boot_id: String,
    pub key: Key,
    pub pid: i32,
    pub start_ticks: u64,
    pub cgroup: Option<CgroupMark>,
    pub notes: Vec<String>,
    /// Absent while it runs.
    pub exit: Option<Exit>,
    /// Absent for what is not leased, and in records of a release that knew no leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<KeptLease>,
}

/// What is kept of a child's lease: all that a guard needs which takes it over. Not the deadline, which is no
/// child's, and which the word of a session alone sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLease {
    pub incarnation: Incarnation,
    pub claims: Vec<String>,
    pub frozen: bool,
}

impl From<Lease> for KeptLease {
    fn from(lease: Lease) -> Self {
        Self {
            incarnation: lease.incarnation,
            claims: lease.claims,
            frozen: false,
        }
    }
}

/// A child's cgroup, and how many kills for lack of memory it had counted before the child came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMark {
    pub folder: String,
    pub oom_kills_before: u64,
}

impl Record {
    pub fn new(boot_id: &str, key: Key, pid: i32, start_ticks: u64) -> Self {
        Self {
            v: VERSION,
            boot_id: boot_id.to_owned(),
            key,
            pid,
            start_ticks,
            cgroup: None,
            notes: Vec::new(),
            exit: None,
            lease: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("another guard holds this folder: talk to that one, or give this one a folder of its own")]
    Held,
    #[error("cannot {action}")]
    Io {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

fn cannot(action: &'static str) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { action, source }
}

/// Makes the folder if it is missing, enters it, and locks it for the life of the returned descriptor. From
/// here on everything is named relative to it.
pub fn enter(folder: &Path) -> Result<OwnedFd, FolderError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(cannot("make the guard's folder"))?;
    std::env::set_current_dir(folder).map_err(cannot("enter the guard's folder"))?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(LOCK)
        .map_err(cannot("open the lock of the guard's folder"))?;
    take(&lock)?;
    builder.create(RECORDS).map_err(cannot("make the folder for records"))?;
    Ok(lock.into())
}

/// A guard that was killed a moment ago may seem to hold it still: the kernel closes what a process left behind
/// after others see its end, and a launcher it had just begun has a copy until its exec. So it is asked for
/// again for a while; nothing but time can be waited for.
fn take(lock: &File) -> Result<(), FolderError> {
    for _ in 0..LOOKS_AT_LOCK {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(cannot("lock the guard's folder")(errno.into())),
        }
        // A signal that cuts it short only makes the next look come earlier.
        let _ = poll(&mut [], Some(&BETWEEN_LOOKS));
    }
    Err(FolderError::Held)
}

pub fn write(record: &Record) -> io::Result<()> {
    let path = path_of(record.key.vm);
    // Readers take files that end in .json; a half-written one does not.
    let temporary = format!("{path}.new");
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(&temporary, &path)
}

pub fn remove(vm: VmId) -> io::Result<()> {
    remove_file_named(&path_of(vm))
}

/// A file in the folder of records, with what it holds, or why it holds nothing.
pub struct Found {
    pub name: String,
    pub record: Result<Record, String>,
}

/// Every record there is. What an interrupted write left is cleared away.
pub fn read_all() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(RECORDS)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            let record = read(&name);
            found.push(Found { name, record });
        } else {
            remove_named(&name)?;
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Removes what [`read_all`] found under this name.
pub fn remove_named(name: &str) -> io::Result<()> {
    remove_file_named(&format!("{RECORDS}/{name}"))
}

fn read(name: &str) -> Result<Record, String> {
    let file = File::open(format!("{RECORDS}/{name}")).map_err(|error| error.to_string())?;
    let text = io::read_to_string(io::Read::take(file, LONGEST_RECORD_BYTES)).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_str(&text).map_err(|error| format!("not a record: {error}"))?;
    if record.v != VERSION {
        return Err(format!("version {}, not {VERSION}", record.v));
    }
    if name != file_name(record.key.vm) {
        return Err(format!("it is about VM {}", record.key.vm));
    }
    Ok(record)
}

fn file_name(vm: VmId) -> String {
    format!("{vm}.json")
}

fn path_of(vm: VmId) -> String {
    format!("{RECORDS}/{}", file_name(vm))
}

fn remove_file_named(path: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
