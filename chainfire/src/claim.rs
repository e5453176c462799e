//! The claim of one process to a folder: a lock on a file in it, which the system drops with the process.
//!
//! A process that was killed seems to have ended before it has: its first thread is a zombie as soon as it is gone,
//! while another, deep in a sync of the disk, still holds every file of the process open. Whoever starts the
//! successor at once (a script, a supervisor that looks at `/proc`, a human) would find the folder in use. So a
//! claim asks again for a moment. What must never happen is that two processes hold it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long the process before may take to end. A sync on a disk that others keep busy takes most of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nothing tells of a lock that is free, but taking it: a thread that waited in the system for it could not be
/// called back.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Held until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is in use by another process")]
    Held,
}

/// Locks a file, making it if it is missing. Blocks for up to three seconds while somebody else holds it.
pub fn claim(path: &Path) -> Result<Claim, ClaimError> {
    let mut told = false;
    claim_with(path, || {
        if !told {
            tracing::info!(path = %path.display(), "in use by another process; it may be ending: waiting for a moment");
            told = true;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing but time can be waited for, and nothing runs yet"
        )]
        std::thread::sleep(BETWEEN_LOOKS);
    })
}

/// `pause` is called between two looks.
fn claim_with(path: &Path, mut pause: impl FnMut()) -> Result<Claim, ClaimError> {
    let lock = File::options().create(true).truncate(false).write(true).open(path)?;
    let begun = Instant::now();
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Claim { _lock: lock }),
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => pause(),
            Err(Errno::WOULDBLOCK) => return Err(ClaimError::Held),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_refused_after_a_while_and_free_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let first = claim(&path).unwrap();
        let begun = Instant::now();
        assert!(matches!(claim(&path), Err(ClaimError::Held)));
        assert!(begun.elapsed() >= PATIENCE);
        drop(first);
        claim(&path).unwrap();
    }

    #[test]
    fn a_holder_that_is_just_ending_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let mut first = Some(claim(&path).unwrap());
        let mut refused = 0;
        claim_with(&path, || {
            refused += 1;
            if refused == 2 {
                drop(first.take());
            }
        })
        .unwrap();
        assert_eq!(refused, 2);
    }
}
