//! Claim files: who starts a leased VM, and under which incarnation, said where its disks lie.
//!
//! ```text
//!   <pool>/<vm>.claims/7       {host, instance, boot}: made whole under another name, synced, then linked
//!                     /8       the highest number wins; nothing is ever written over
//! ```
//! A host that is cut off from the cluster may still reach its storage. If what it holds frozen was started
//! elsewhere, it finds a higher number there, and that is the proof its guard needs to kill what is frozen, which
//! frees the locks of the disks. So the claim comes before anything touches a disk: whoever starts waits for those
//! locks, and without the claim it could wait for ever.
//!
//! Must never: start below the highest number; write over a claim; take another's claim for ours, or half a file for
//! anybody's (a claim has its name only once it is whole and synced, so a crash leaves none that is not).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use plasmavmc_guard::claims::parse;
use plasmavmc_types::{BootId, HostId, Incarnation, InstanceNonce, VmId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::instance::Instance;

/// Of those below ours so many stay, for whoever looks for what happened.
const KEPT: usize = 3;
const MAX_CLAIM_BYTES: u64 = 4096;
/// What is not whole yet: `7.<unique>.new`. No reader takes it for a number.
const UNFINISHED: &str = "new";

/// Whose claims are made here.
#[derive(Debug)]
pub struct Claimant {
    pub host: HostId,
    pub instance: Instance,
}

/// What a claim file holds. Later versions may add to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    host: HostId,
    instance: InstanceNonce,
    boot_id: BootId,
}

/// Why a VM cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// This host is not the last that was to run it. Most often it has not heard of that yet, and then this passes.
    #[error(
        "{} holds a claim of incarnation {higher}, and this is incarnation {own}: it was started elsewhere since. If \
         the cluster was restored from a backup and nothing runs it, remove that file",
        folder.display()
    )]
    Superseded {
        folder: PathBuf,
        own: Incarnation,
        higher: Incarnation,
    },
    /// One number is given to one host once, so this cannot pass by itself.
    #[error(
        "{} is the claim of {holder}, and not of this instance of this host: the number was given twice. Make sure \
         that nothing runs it there, then remove that file",
        path.display()
    )]
    Anothers { path: PathBuf, holder: String },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ClaimError {
    /// Whether another try, with nothing changed, would end the same way.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Anothers { .. })
    }
}

impl Claimant {
    /// Claims a VM in the folders of these pools, and says which folders hold the claims. Touches the pools, so it may
    /// hang with their storage.
    pub fn claim(&self, pools: &[PathBuf], vm: VmId, own: Incarnation) -> Result<Vec<String>, ClaimError> {
        // Two pools may be one folder.
        let mut folders = BTreeSet::new();
        for pool in pools {
            let pool = fs::canonicalize(pool).map_err(failed("find", pool))?;
            folders.insert(folder_of(&pool, vm));
        }
        for folder in &folders {
            self.claim_in(folder, own)?;
        }
        let text = |folder: PathBuf| {
            let text = folder.to_str().map(str::to_owned);
            text.ok_or_else(|| failed("name", &folder)(io::ErrorKind::InvalidFilename.into()))
        };
        folders.into_iter().map(text).collect()
    }

    fn claim_in(&self, folder: &Path, own: Incarnation) -> Result<(), ClaimError> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", folder)(error)),
            // Also if it was there: whoever made it may have ended before this.
            _ => sync(folder.parent().unwrap_or(Path::new("/")))?,
        }
        refuse_below(folder, own)?;
        let path = folder.join(own.to_string());
        let is_made = self.make(folder, &path, own)?;
        sync(folder)?;
        if !is_made {
            self.recognise(&path)?;
        }
        // One that came meanwhile counts as well.
        refuse_below(folder, own)?;
        tidy(folder, own);
        Ok(())
    }

    /// Whether it was made now; otherwise there is one.
    fn make(&self, folder: &Path, path: &Path, own: Incarnation) -> Result<bool, ClaimError> {
        let claim = Claim {
            host: self.host,
            instance: self.instance.life.nonce,
            boot_id: self.instance.life.boot_id,
        };
        let unfinished = folder.join(format!("{own}.{}.{UNFINISHED}", Uuid::new_v4()));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
            file.write_all(&serde_json::to_vec(&claim)?)?;
            file.sync_all()
        };
        let linked = match write() {
            Err(source) => Err(failed("write", &unfinished)(source)),
            Ok(()) => match fs::hard_link(&unfinished, path) {
                Ok(()) => Ok(true),
                // Or a server that answered a repeated call: what it says is looked at either way.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(source) => Err(failed("make", path)(source)),
            },
        };
        // What stays behind is cleared away later.
        let _ = fs::remove_file(&unfinished);
        linked
    }

    /// Whether a claim that is there is ours: of this instance, or of an earlier boot of this machine.
    fn recognise(&self, path: &Path) -> Result<(), ClaimError> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed("open", path))?;
        file.take(MAX_CLAIM_BYTES)
            .read_to_end(&mut bytes)
            .map_err(failed("read", path))?;
        let anothers = |holder: String| {
            let path = path.to_owned();
            Err(ClaimError::Anothers { path, holder })
        };
        let Ok(claim) = serde_json::from_slice::<Claim>(&bytes) else {
            return anothers("nobody knows whom (it cannot be read)".to_owned());
        };
        let life = &self.instance.life;
        let is_this_life = claim.instance == life.nonce && claim.boot_id == life.boot_id;
        if claim.host == self.host && (is_this_life || self.instance.outlived(claim.instance, claim.boot_id)) {
            return Ok(());
        }
        anothers(format!("host {}, instance {}", claim.host, claim.instance))
    }
}

/// Removes the claims of a VM that is no more. May hang with the pool's storage.
pub fn forget(pool: &Path, vm: VmId) -> io::Result<()> {
    match fs::remove_dir_all(folder_of(pool, vm)) {
        // Every host of the cluster does it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// No volume has such a name: a [`plasmavmc_types::Label`] has no dot.
fn folder_of(pool: &Path, vm: VmId) -> PathBuf {
    pool.join(format!("{vm}.claims"))
}

fn refuse_below(folder: &Path, own: Incarnation) -> Result<(), ClaimError> {
    let highest = numbers(folder).map_err(failed("list", folder))?.pop_last();
    match highest.map(Incarnation::from_raw).filter(|highest| *highest > own) {
        Some(higher) => Err(ClaimError::Superseded {
            folder: folder.to_owned(),
            own,
            higher,
        }),
        None => Ok(()),
    }
}

/// The numbers of all claims, as the guard's readers see them.
fn numbers(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(parse)
            && entry.file_type()?.is_file()
        {
            numbers.insert(number);
        }
    }
    Ok(numbers)
}

/// Removes what no longer says anything: claims long overtaken, and what crashes left unfinished. Ours is made, so
/// nothing unfinished up to its number can become a claim that counts. What stays does no harm.
fn tidy(folder: &Path, own: Incarnation) {
    let Ok(mut below) = numbers(folder) else { return };
    below.retain(|number| *number < own.get());
    let surplus = below.len().saturating_sub(KEPT);
    let old = below.iter().take(surplus).map(|number| folder.join(number.to_string()));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let unfinished = entries.filter(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(unfinished_number);
        number.is_some_and(|number| number <= own.get())
    });
    for path in old.chain(unfinished.map(|entry| entry.path())) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(file = %path.display(), %error, "an old claim stays");
        }
    }
}

fn unfinished_number(name: &str) -> Option<u64> {
    let (number, rest) = name.split_once('.')?;
    rest.ends_with(UNFINISHED).then(|| parse(number))?
}

fn sync(folder: &Path) -> Result<(), ClaimError> {
    let synced = File::open(folder).and_then(|open| open.sync_all());
    synced.map_err(failed("sync", folder))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
