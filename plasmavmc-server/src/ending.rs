//! Offline: kills every QEMU of this host. The last thing before it is switched off.
//!
//! Guests that could power off have done so by then (`plasmavmc host prepare-shutdown`). What is left is what hung, and
//! what is frozen because this host lost contact: a shutdown sends SIGCONT to all processes before it kills them, which
//! would let a frozen guest execute for a moment, perhaps beside the one that took its place.
//!
//! Must never: send anything but SIGKILL; start a guard; say that nothing is left before the guard has said so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plasmavmc_guard::client::{CallError, Client, ConnectError};
use plasmavmc_guard::wire::{Held, Phase};
use tokio::time::Instant;

/// A process that hangs in the kernel does not end, and the machine is to go down all the same.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum EndError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the guard in {folder} did not do as it was told")]
    Guard { folder: PathBuf, source: CallError },
    #[error("of {left} VMs a process is left after {} s: they hang in the kernel, most often on storage", ENDS_WITHIN.as_secs())]
    Left { left: usize },
}

/// Kills all that the guard of this folder holds, and waits until it is gone. Returns how many there were; where no
/// guard is, nothing can run.
pub async fn end_vms(folder: &Path) -> Result<usize, EndError> {
    if !folder.exists() {
        return Ok(0);
    }
    let until = Instant::now() + ENDS_WITHIN;
    let client = Client::connect(folder)?;
    let failed = |source| EndError::Guard {
        folder: folder.to_owned(),
        source,
    };
    let mut events = client.subscribe().await.map_err(failed)?;
    let mut killed = std::collections::BTreeSet::new();
    loop {
        let held = client.list().await.map_err(failed)?;
        let living: Vec<Held> = held.into_iter().filter(is_left).collect();
        if living.is_empty() {
            return Ok(killed.len());
        }
        for child in &living {
            // It may end before it is told to: the next list says so.
            let _ = client.kill(child.key).await;
            killed.insert(child.key.vm);
        }
        match tokio::time::timeout_at(until, events.next()).await {
            Ok(Some(_)) => {}
            // Events came faster than they were taken.
            Ok(None) => events = client.subscribe().await.map_err(failed)?,
            Err(_) => return Err(EndError::Left { left: living.len() }),
        }
    }
}

fn is_left(held: &Held) -> bool {
    !matches!(held.phase, Phase::Exited(_))
}
