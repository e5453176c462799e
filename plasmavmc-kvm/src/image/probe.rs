//! A look at an image file, without changing or locking anything: what it is, how large, in whose use.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::OFlags;

use super::header::HEADER_BYTES;
use crate::argv::Medium;
use crate::refused::Reason;

/// A file system may hang. Whoever starts a VM is told so, instead of hanging with it.
const DEADLINE: Duration = Duration::from_secs(5);

/// QEMU's image locks: a read lock on byte 100+n says "I do n", one on byte 200+n "nobody else may". Bit 1 is
/// writing. They are taken by every QEMU that opens an image with `locking`.
const DOES_WRITE: i64 = 101;
const FORBIDS_WRITE: i64 = 201;

/// What a VM is going to do with an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub writes: bool,
    /// Past the page cache.
    pub is_direct: bool,
}

#[derive(Debug)]
pub(super) struct Look {
    pub medium: Medium,
    pub bytes: u64,
    pub head: Vec<u8>,
}

/// Looks at a file.
pub(super) async fn look(path: &Path, intended: Use) -> Result<Look, Reason> {
    let owned = path.to_owned();
    within_deadline(path, move || look_now(&owned, intended)).await?
}

/// Does something with a file that may hang, and waits for five seconds at most.
///
/// When storage hangs, the thread stays behind until the storage answers: nothing can end it. The runtime
/// limits how many there are.
pub(super) async fn within_deadline<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Reason> {
    match tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(stopped)) => Err(Reason::NotReadable {
            path: path.to_owned(),
            problem: stopped.to_string(),
        }),
        Err(_) => Err(Reason::StorageHangs {
            path: path.to_owned(),
            waited_ms: DEADLINE.as_millis(),
        }),
    }
}

fn look_now(path: &Path, intended: Use) -> Result<Look, Reason> {
    let metadata = path.metadata().map_err(|error| read_problem(path, &error))?;
    let medium = medium_of(path, &metadata)?;
    let mut file = open(path, intended)?;
    if is_in_use(&file, intended).map_err(|error| read_problem(path, &error))? {
        return Err(Reason::InUse { path: path.to_owned() });
    }
    // A block device has no length of its own.
    let measured = file.seek(SeekFrom::End(0)).and_then(|bytes| {
        file.rewind()?;
        let mut head = Vec::new();
        file.take(HEADER_BYTES as u64).read_to_end(&mut head)?;
        Ok((bytes, head))
    });
    let (bytes, head) = measured.map_err(|error| read_problem(path, &error))?;
    if intended.is_direct {
        check_direct(path)?;
    }
    Ok(Look { medium, bytes, head })
}

fn medium_of(path: &Path, metadata: &Metadata) -> Result<Medium, Reason> {
    if metadata.is_file() {
        Ok(Medium::File)
    } else if metadata.file_type().is_block_device() {
        Ok(Medium::BlockDevice)
    } else {
        Err(Reason::NotAFile { path: path.to_owned() })
    }
}

fn open(path: &Path, intended: Use) -> Result<File, Reason> {
    // It may have become a pipe since we looked.
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let readable = options.open(path).map_err(|error| read_problem(path, &error))?;
    if !intended.writes {
        return Ok(readable);
    }
    options.write(true).open(path).map_err(|error| Reason::ReadOnly {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

fn read_problem(path: &Path, error: &io::Error) -> Reason {
    let path: PathBuf = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reason::Missing { path },
        _ => Reason::NotReadable {
            path,
            problem: error.to_string(),
        },
    }
}

fn check_direct(path: &Path) -> Result<(), Reason> {
    let flags = OFlags::DIRECT | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(Reason::NoDirectIo { path: path.to_owned() }),
        // Another problem would have shown at the first opening.
        _ => Ok(()),
    }
}

/// Whether a QEMU's lock would refuse this use. Asks, and takes no lock.
fn is_in_use(file: &File, intended: Use) -> io::Result<bool> {
    let conflicts: &[i64] = if intended.writes {
        &[DOES_WRITE, FORBIDS_WRITE]
    } else {
        &[DOES_WRITE]
    };
    for byte in conflicts {
        let mut wanted = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: *byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted))?;
        if wanted.l_type != libc::F_UNLCK as i16 {
            return Ok(true);
        }
    }
    Ok(false)
}
