//! The serial consoles of the VMs on this host, for whoever wants to look or type.
//!
//! A slow reader costs nothing and holds nobody up: it reads from the scroll-back at its own place, and is told
//! how much went by unseen ([`Watched::Missed`]).
//!
//! Must never: keep a console alive that its machine has let go of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plasmavmc_kvm::channel::{SendError, Watched, Watcher};
use plasmavmc_kvm::machine::Machine;
use plasmavmc_types::VmId;

/// A guest that does not read its console is not waited for longer.
const TYPE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("no QEMU of it runs on its host now; 'plasmavmc vm explain {vm}' says why")]
    NotHere { vm: VmId },
    #[error("the console of VM {vm} has ended: its QEMU is gone")]
    Ended { vm: VmId },
    #[error("nothing could be typed into the console of VM {vm}")]
    Send {
        vm: VmId,
        #[source]
        source: SendError,
    },
}

/// The consoles of this host's machines. Clones are the same hub.
#[derive(Debug, Clone, Default)]
pub struct ConsoleHub {
    /// Only looked up and changed, never held while anything is waited for.
    machines: Arc<Mutex<BTreeMap<VmId, Machine>>>,
}

impl ConsoleHub {
    pub(super) fn add(&self, vm: VmId, machine: Machine) {
        self.machines.lock().insert(vm, machine);
    }

    pub(super) fn remove(&self, vm: VmId) {
        self.machines.lock().remove(&vm);
    }

    pub(super) fn clear(&self) {
        self.machines.lock().clear();
    }

    /// Attaches to the console of a VM on this host: first what is kept of the past, then what comes.
    pub fn attach(&self, vm: VmId) -> Result<Attached, ConsoleError> {
        let machines = self.machines.lock();
        let machine = machines.get(&vm).ok_or(ConsoleError::NotHere { vm })?;
        Ok(Attached {
            watcher: machine.channels().console.watch(),
            keyboard: Keyboard {
                vm,
                hub: self.clone(),
                attempt: machine.key().attempt,
            },
        })
    }
}

/// One who looks on, and may type.
#[derive(Debug)]
pub struct Attached {
    watcher: Watcher,
    keyboard: Keyboard,
}

impl Attached {
    /// What comes next; nothing once the console has ended. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Watched> {
        self.watcher.next().await
    }

    /// Types, independently of what is read.
    pub fn keyboard(&self) -> Keyboard {
        self.keyboard.clone()
    }
}

/// Types into one console, of one start of a VM.
#[derive(Debug, Clone)]
pub struct Keyboard {
    vm: VmId,
    hub: ConsoleHub,
    attempt: plasmavmc_types::AttemptId,
}

impl Keyboard {
    /// Returns when QEMU has the bytes, or says why it has not.
    pub async fn send(&self, bytes: Vec<u8>) -> Result<(), ConsoleError> {
        let vm = self.vm;
        let machine = self.hub.machines.lock().get(&vm).cloned();
        // What was meant for one start of the guest is not typed into the next.
        let machine = machine.filter(|machine| machine.key().attempt == self.attempt);
        let machine = machine.ok_or(ConsoleError::Ended { vm })?;
        let sent = machine.channels().console.write(bytes, TYPE_WITHIN).await;
        sent.map_err(|source| ConsoleError::Send { vm, source })
    }
}
