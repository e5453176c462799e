//! Taking over what runs, after whoever owned it died.
//!
//! ```text
//!  guard's list --+
//!  runtime folders +--> evidence, per VM --> judge --> take over, collect, clear, or report
//!  /proc ---------+
//! ```
//! Must never happen: a QEMU killed because we do not know it; a folder cleared under a process; a VM called
//! stopped while anything with its id runs.

mod judge;
mod proc;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plasmavmc_guard::wire::{ExitReason, Held, Key};
use plasmavmc_types::VmId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use judge::{Evidence, FolderEvidence, RecordEvidence, Verdict, judge};

use crate::keeper::KeeperError;
use crate::machine::{Host, Machine, MachineError, last_words, take_over};
use crate::runtime::{Found, RuntimeError, RuntimeFolder, scan};

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("what runs on this host cannot be found out")]
    Keeper(#[from] KeeperError),
    #[error("the runtime folders cannot be read")]
    Runtime(#[from] RuntimeError),
}

/// A VM that ended while nobody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub key: Key,
    pub exit: ExitReason,
    pub last_words: String,
}

/// What was found on a host.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// They run, and are ours again. One whose guest never executed is in phase `Prepared`.
    pub machines: Vec<Machine>,
    pub ended: Vec<Ended>,
    /// Rests that were cleared away.
    pub cleared: Vec<VmId>,
    /// What could not be taken over and must not be touched unasked, with the reason.
    pub left_alone: BTreeMap<VmId, String>,
    /// Things among the runtime folders that are none.
    pub strangers: Vec<PathBuf>,
}

/// Monitors that are spoken to at once: one that does not answer must not hold up the others.
const AT_ONCE: usize = 16;

/// Finds out what there is, and takes over what can be.
pub async fn inherit(host: &Arc<Host>) -> Result<Inheritance, AdoptError> {
    let look = Arc::new(Look::take(host).await?);
    let known = look.folders.vms.iter().chain(look.held.keys());
    let vms: BTreeSet<VmId> = known.chain(look.running.keys()).copied().collect();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut settling = JoinSet::new();
    for vm in vms {
        let (look, host, room) = (Arc::clone(&look), Arc::clone(host), Arc::clone(&room));
        settling.spawn(async move {
            // It is never closed.
            let _room = room.acquire().await.ok();
            look.settle(&host, vm).await
        });
    }
    let mut inheritance = Inheritance {
        strangers: look.folders.strangers.clone(),
        ..Inheritance::default()
    };
    while let Some(settled) = settling.join_next().await {
        // A panic in one has been reported by the runtime, and its VM is not called anything.
        inheritance = settled.unwrap_or_default().joined_to(inheritance);
    }
    Ok(inheritance)
}

/// As [`inherit`], for one VM of which this process holds no machine.
pub async fn inherit_one(host: &Arc<Host>, vm: VmId) -> Result<Inheritance, AdoptError> {
    Ok(Look::take(host).await?.settle(host, vm).await)
}

/// All witnesses, heard once.
struct Look {
    folders: Found,
    running: BTreeMap<VmId, Vec<i32>>,
    held: BTreeMap<VmId, Held>,
}

impl Look {
    async fn take(host: &Arc<Host>) -> Result<Self, AdoptError> {
        // In this order: what the guard started in between shows in its list.
        let folders = scan(&host.vms)?;
        // As the kernel tells it: without links.
        let vms = host.vms.canonicalize().unwrap_or_else(|_| host.vms.clone());
        let running = proc::qemus(Path::new("/proc"), &vms);
        let held = host.keeper.list().await?.into_iter();
        Ok(Self {
            folders,
            running,
            held: held.map(|held| (held.key.vm, held)).collect(),
        })
    }

    async fn settle(&self, host: &Arc<Host>, vm: VmId) -> Inheritance {
        let pids = self.running.get(&vm).map(Vec::as_slice).unwrap_or_default();
        let mut inheritance = Inheritance::default();
        if let Err(error) = settle(host, vm, self.held.get(&vm), pids, &mut inheritance).await {
            inheritance.left_alone.insert(vm, error.to_string());
        }
        inheritance
    }
}

impl Inheritance {
    fn joined_to(self, mut all: Self) -> Self {
        all.machines.extend(self.machines);
        all.ended.extend(self.ended);
        all.cleared.extend(self.cleared);
        all.left_alone.extend(self.left_alone);
        all
    }
}

async fn settle(
    host: &Arc<Host>,
    vm: VmId,
    held: Option<&Held>,
    pids: &[i32],
    inheritance: &mut Inheritance,
) -> Result<(), MachineError> {
    let folder = RuntimeFolder::open(&host.vms, vm)?;
    let other_pids = pids.iter().copied();
    let evidence = Evidence {
        held: held.map(|held| (held.key, held.phase.clone())),
        folder: look_at(folder.as_ref()),
        other_pids: other_pids
            .filter(|pid| held.is_none_or(|held| held.pid != *pid))
            .collect(),
    };
    let verdict = judge(&evidence);
    tracing::info!(%vm, ?verdict, "found");
    match (verdict, folder, held) {
        (Verdict::Runs(_), Some(folder), Some(held)) => {
            let Some(record) = folder.read_record()? else {
                return Ok(());
            };
            inheritance
                .machines
                .push(take_over(host, folder, record, held.clone()).await?);
        }
        (Verdict::Ended(key, exit), folder, _) => {
            let last_words = last_words(&host.vms.join(vm.to_string()));
            if let Some(folder) = folder {
                folder.remove(folder.lock()?)?;
            }
            host.keeper.forget(key).await?;
            inheritance.ended.push(Ended { key, exit, last_words });
        }
        (Verdict::Stale, Some(folder), _) => {
            folder.remove(folder.lock()?)?;
            inheritance.cleared.push(vm);
        }
        (Verdict::Unknown { key, problem }, ..) => {
            let text = format!("attempt {} runs, but {problem}", key.attempt);
            inheritance.left_alone.insert(vm, text);
        }
        (Verdict::Orphans(pids), ..) => {
            let text = format!("processes {pids:?} carry its id, and no guard holds them");
            inheritance.left_alone.insert(vm, text);
        }
        (Verdict::Locked, ..) => {
            inheritance
                .left_alone
                .insert(vm, "its folder is locked by another process".to_owned());
        }
        (Verdict::Nothing | Verdict::Runs(_) | Verdict::Stale, ..) => {}
    }
    Ok(())
}

fn look_at(folder: Option<&RuntimeFolder>) -> FolderEvidence {
    let Some(folder) = folder else {
        return FolderEvidence::Absent;
    };
    let record = match folder.read_record() {
        Ok(None) => RecordEvidence::None,
        Ok(Some(record)) => RecordEvidence::Of(record.attempt),
        Err(error) => RecordEvidence::Unusable(error.to_string()),
    };
    FolderEvidence::Present {
        // Whoever comes between takes it again; an error counts as a lock that is held.
        is_locked: folder.lock().is_err(),
        record,
    }
}
