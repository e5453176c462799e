//! The file by which a host shows itself in a shared pool, and the look at those of others.
//!
//! `<pool>/.plasmavmc/<host id>` says who is there, and its lock is held for as long as the server runs: the same kind
//! of lock that QEMU has on its images (of an open file description), so that what is tried is what is relied on.
//!
//! Everything here touches the pool and may hang with its storage. Must never: write without holding the lock (whoever
//! finds the lock free and the file written on concludes that locks do not work).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use plasmavmc_types::{HostId, InstanceNonce};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::mount;
use super::verdict::{Looked, Sight, Sign};

/// No volume has such a name: it begins with a dot.
const FOLDER: &str = ".plasmavmc";
const MAX_FILE_BYTES: u64 = 4096;

/// What the file holds. Later versions may add to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    host: HostId,
    instance: InstanceNonce,
    writer: Uuid,
    count: u64,
    /// The pool was seen to be shared.
    #[serde(default)]
    is_proven: bool,
}

/// This host in one pool.
#[derive(Debug)]
pub struct Presence {
    host: HostId,
    instance: InstanceNonce,
    pool: PathBuf,
    writer: Uuid,
    count: u64,
    /// Open and locked.
    held: Option<File>,
}

impl Presence {
    pub fn new(host: HostId, instance: InstanceNonce, pool: &Path) -> Self {
        Self {
            host,
            instance,
            pool: pool.to_owned(),
            writer: Uuid::new_v4(),
            count: 0,
            held: None,
        }
    }

    /// Shows this host, and looks at the others: `expected` are those that should be there.
    pub fn look(
        &mut self,
        others: &BTreeSet<HostId>,
        expected: &BTreeSet<HostId>,
        is_proven: bool,
    ) -> io::Result<Looked> {
        let looked = self.try_look(others, expected, is_proven);
        if looked.is_err() {
            // Its lock may be lost with what went wrong: the next look takes it anew.
            self.held = None;
        }
        looked
    }

    fn try_look(
        &mut self,
        others: &BTreeSet<HostId>,
        expected: &BTreeSet<HostId>,
        is_proven: bool,
    ) -> io::Result<Looked> {
        if let Some(why) = mount::refusal(&self.pool)? {
            self.held = None;
            return Ok(Looked::Refused(why));
        }
        let folder = self.pool.join(FOLDER);
        let own = folder.join(self.host.to_string());
        let still = self.held.take().filter(|file| is_at(file, &own));
        let (file, is_proven) = match still {
            Some(file) => (file, is_proven),
            None => {
                let file = open(&folder, &own)?;
                let proven = read(&file)?.is_some_and(|content| content.host == self.host && content.is_proven);
                (file, proven)
            }
        };
        // Also if it is held: a server that was away may have forgotten it.
        if !lock(&file)? {
            return Ok(Looked::Occupied);
        }
        self.write(&file, is_proven)?;
        self.held = Some(file);
        let mut seen = see_all(&folder, others)?;
        if expected.iter().any(|host| !seen.contains_key(host)) {
            stir(&folder, self.writer)?;
            seen = see_all(&folder, others)?;
        }
        Ok(Looked::Seen {
            is_proven,
            others: seen,
        })
    }

    fn write(&mut self, file: &File, is_proven: bool) -> io::Result<()> {
        self.count += 1;
        let content = Content {
            host: self.host,
            instance: self.instance,
            writer: self.writer,
            count: self.count,
            is_proven,
        };
        let bytes = serde_json::to_vec(&content)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    }
}

/// Whether the file is the one of this name: the pool may have been mounted since, over or under it.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

fn open(folder: &Path, own: &Path) -> io::Result<File> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o644);
    options.open(own)
}

fn see_all(folder: &Path, others: &BTreeSet<HostId>) -> io::Result<BTreeMap<HostId, Sight>> {
    let mut seen = BTreeMap::new();
    for host in others {
        match File::open(folder.join(host.to_string())) {
            // What it says is read before its lock is tried: see the rules about what stands still.
            Ok(file) => {
                let content = read(&file)?.filter(|content| content.host == *host);
                let sight = Sight {
                    sign: content.map(|content| Sign {
                        instance: content.instance,
                        writer: content.writer,
                        count: content.count,
                    }),
                    is_locked: is_locked(&file)?,
                };
                seen.insert(*host, sight);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

/// Changes the folder, so that a client of NFS asks anew what is in it: it remembers for up to a minute what is not.
fn stir(folder: &Path, writer: Uuid) -> io::Result<()> {
    let path = folder.join(format!(".{writer}"));
    File::create(&path)?;
    fs::remove_file(&path)
}

/// Nothing if it is half written just now, or no such file.
fn read(file: &File) -> io::Result<Option<Content>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Whether the lock is ours now.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether somebody else has the lock. Asks, and takes none.
fn is_locked(file: &File) -> io::Result<bool> {
    let mut wanted = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted))?;
    Ok(wanted.l_type != libc::F_UNLCK as i16)
}

#[cfg(test)]
mod tests;
