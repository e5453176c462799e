//! The folder that a QEMU runs in: its sockets, its logs, the lock that says it is there, and the record
//! that tells a later server what was started.
//!
//! ```text
//!   <vms>/<id>/            0700, on a tmpfs
//!     lock                 flock'd as long as the QEMU or its starter lives
//!     machine.json         what is started, written before it is
//!     frozen               its guest was held still because the lease ended, and is let go on by a thaw
//!     qmp.sock             QEMU listens
//!     qga.sock agent.sock console.sock     we listen
//!     vnc.sock console.log qemu.log
//!   <vms>/<id>.removed/    on its way out
//!
//!   absent --create--> present --lock--> locked --remove--> absent
//!                         ^                 |
//!                         +----- dropped, and no QEMU holds it
//! ```
//!
//! Must never happen: a folder removed under a QEMU that runs (removing takes the lock, which the QEMU
//! inherited); two starters that both believe to hold a VM; a name in the folder that leads out of it (the
//! folder may belong to the user that QEMU runs as, and a guest may have taken over its QEMU).
//!
//! The calls do not wait for anything: a tmpfs does not hang.

mod log;
mod record;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plasmavmc_types::VmId;
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};

pub use log::LONGEST_LOG_BYTES;
pub use record::StartRecord;

/// The files of a runtime folder.
pub mod file {
    /// Of QEMU; we are its client.
    pub const QMP_SOCKET: &str = "qmp.sock";
    /// Of ours; QEMU is the client.
    pub const AGENT_SOCKET: &str = "qga.sock";
    /// Of ours; QEMU is the client.
    pub const PLASMA_AGENT_SOCKET: &str = "agent.sock";
    /// Of ours; QEMU is the client.
    pub const CONSOLE_SOCKET: &str = "console.sock";
    /// Of QEMU.
    pub const VNC_SOCKET: &str = "vnc.sock";
    /// What the guest said on its serial console, whoever listened. QEMU appends, so it may be cut.
    pub const CONSOLE_LOG: &str = "console.log";
    /// What QEMU itself said.
    pub const QEMU_LOG: &str = "qemu.log";
    pub const LOCK: &str = "lock";
    pub const MACHINE: &str = "machine.json";
    pub const FROZEN: &str = "frozen";
}

/// Ends the name of a folder that is being removed.
const REMOVED: &str = "removed";

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Something is in the way that we did not make.
    #[error("{} is no folder: remove what is there", path.display())]
    NotAFolder { path: PathBuf },
    /// A QEMU of this VM runs, or somebody else starts it.
    #[error("VM {id} is started already: {} is locked", path.display())]
    Locked { id: VmId, path: PathBuf },
    /// Somebody removed the folder meanwhile.
    #[error("{} was removed meanwhile: create it again", path.display())]
    Gone { path: PathBuf },
    /// Not written by us, or only half of it.
    #[error("{} cannot be used: {problem}", path.display())]
    BadRecord { path: PathBuf, problem: String },
    #[error("{} was written by a later version of this program (format {format})", path.display())]
    NewerRecord { path: PathBuf, format: u32 },
}

/// An open runtime folder. Stays the same folder, whatever happens to the path.
#[derive(Debug)]
pub struct RuntimeFolder {
    id: VmId,
    /// The folder of all VMs.
    vms: PathBuf,
    folder: OwnedFd,
}

/// The right to start a VM, or to say that it does not run.
///
/// The lock belongs to the open file, so it lasts until every copy of the descriptor is closed: hand one
/// to the QEMU (the guard gets it as a message and lets the child inherit it), and the VM is locked as long
/// as that process lives. Here it is closed on exec, so that no other program keeps it by accident.
#[derive(Debug)]
pub struct FolderLock(OwnedFd);

impl AsFd for FolderLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What lies in the folder of all VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub vms: Vec<VmId>,
    /// Neither a VM's folder nor the rest of one.
    pub strangers: Vec<PathBuf>,
}

impl RuntimeFolder {
    /// The folder of this VM, made if it is not there.
    pub fn create(vms: &Path, id: VmId) -> Result<Self, RuntimeError> {
        let path = vms.join(id.to_string());
        std::fs::create_dir_all(vms).map_err(io_error("create", vms))?;
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(io_error("create", &path)(errno.into())),
        }
        let found = Self::open(vms, id)?.ok_or(RuntimeError::Gone { path: path.clone() })?;
        rustix::fs::fchmod(&found.folder, Mode::RWXU).map_err(|errno| io_error("close off", &path)(errno.into()))?;
        Ok(found)
    }

    /// The folder of this VM, if there is one.
    pub fn open(vms: &Path, id: VmId) -> Result<Option<Self>, RuntimeError> {
        let path = vms.join(id.to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(Self {
                id,
                vms: vms.to_owned(),
                folder,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Err(RuntimeError::NotAFolder { path }),
            Err(errno) => Err(io_error("open", &path)(errno.into())),
        }
    }

    pub fn id(&self) -> VmId {
        self.id
    }

    /// What QEMU has to be started in.
    pub fn path(&self) -> PathBuf {
        self.vms.join(self.id.to_string())
    }

    /// A path to a file in the folder that is short however deep the folder lies: a socket's address has
    /// only 107 bytes. Good in this process, as long as this value lives.
    pub fn short_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    /// Hands the folder to the user that QEMU runs as, which has to make its sockets in it.
    pub fn give_to(&self, user: u32, group: u32) -> Result<(), RuntimeError> {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        let given = rustix::fs::fchown(&self.folder, Some(user), Some(group));
        given.map_err(|errno| io_error("change the owner of", &self.path())(errno.into()))
    }

    /// Remembers, for whoever comes next, that it was us who paused the guest, and that nobody asked for it.
    pub fn mark_frozen(&self) -> Result<(), RuntimeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folder, file::FROZEN, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) => Ok(()),
            Err(errno) => Err(io_error("create", &self.path().join(file::FROZEN))(errno.into())),
        }
    }

    pub fn is_marked_frozen(&self) -> bool {
        rustix::fs::statat(&self.folder, file::FROZEN, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub fn unmark_frozen(&self) -> Result<(), RuntimeError> {
        match rustix::fs::unlinkat(&self.folder, file::FROZEN, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(io_error("remove", &self.path().join(file::FROZEN))(errno.into())),
        }
    }

    /// Takes the lock, or says at once that somebody else has it.
    pub fn lock(&self) -> Result<FolderLock, RuntimeError> {
        let path = self.path().join(file::LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let gone = || RuntimeError::Gone { path: self.path() };
        let lock = match rustix::fs::openat(&self.folder, file::LOCK, flags, Mode::RUSR | Mode::WUSR) {
            Ok(lock) => lock,
            Err(rustix::io::Errno::NOENT) => return Err(gone()),
            Err(errno) => return Err(io_error("open", &path)(errno.into())),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RuntimeError::Locked { id: self.id, path }),
            Err(errno) => return Err(io_error("lock", &path)(errno.into())),
        }
        // Whoever removed the folder held this lock; it may have been our turn only after that.
        let stat = rustix::fs::fstat(&lock).map_err(|errno| io_error("look at", &path)(errno.into()))?;
        if stat.st_nlink == 0 {
            Err(gone())
        } else {
            Ok(FolderLock(lock))
        }
    }

    /// Removes the folder and all that is in it; the lock proves that nothing runs there.
    ///
    /// First it gets out of the way by another name: so it is there as a whole or not at all for everybody
    /// else, and whoever creates it anew meanwhile is not disturbed.
    pub fn remove(&self, lock: FolderLock) -> Result<(), RuntimeError> {
        let path = self.path();
        let removed = path.with_extension(REMOVED);
        remove_all(&removed)?;
        if self.is_at(&path) {
            std::fs::rename(&path, &removed).map_err(io_error("rename", &path))?;
            remove_all(&removed)?;
        }
        drop(lock);
        Ok(())
    }

    /// Reads a file that QEMU made here, and removes it.
    pub fn take_file(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, RuntimeError> {
        use std::io::Read;
        let path = self.path().join(name);
        let mut bytes = Vec::new();
        self.open_file(name, OFlags::RDONLY)
            .and_then(|file| file.take(limit_bytes).read_to_end(&mut bytes))
            .map_err(io_error("read", &path))?;
        self.unlink(name).map_err(io_error("remove", &path))?;
        Ok(bytes)
    }

    /// Whether the folder is still what its path leads to.
    fn is_at(&self, path: &Path) -> bool {
        let own = rustix::fs::fstat(&self.folder);
        let found = rustix::fs::lstat(path);
        matches!((own, found), (Ok(own), Ok(found)) if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without NONBLOCK, a pipe somebody put there would make us wait for its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The VMs that have a folder. Ends removals that were interrupted.
pub fn scan(vms: &Path) -> Result<Found, RuntimeError> {
    let mut found = Found::default();
    let entries = match std::fs::read_dir(vms) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(io_error("list", vms)(error)),
    };
    for entry in entries {
        let path = entry.map_err(io_error("list", vms))?.path();
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<VmId>().ok());
        match (id, path.extension().map(|extension| extension == REMOVED)) {
            (Some(id), None) if is_folder => found.vms.push(id),
            (Some(_), Some(true)) => remove_all(&path)?,
            _ => found.strangers.push(path),
        }
    }
    found.vms.sort_unstable();
    found.strangers.sort_unstable();
    Ok(found)
}

/// The standard library goes by descriptors and follows no link.
fn remove_all(path: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
