//! What the rest of the program holds of a machine.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_guard::wire::Key;
use plasmavmc_types::{Disk, Label, Nic};
use tokio::sync::{mpsc, oneshot, watch};

use super::error::MachineError;
use super::hands::Channels;
use super::{Action, MachineState, NotNow};
use crate::argv::PlacedImage;
use crate::qga::Agent;

/// An order to the task.
#[derive(Debug)]
pub(super) struct Order {
    pub work: Work,
    pub answer: oneshot::Sender<Result<Done, MachineError>>,
}

#[derive(Debug)]
pub(super) enum Work {
    Cont,
    Stop {
        within: Duration,
    },
    Reboot {
        within: Duration,
    },
    Reset,
    Pause,
    Resume,
    Kill,
    Plug(Box<Plug>),
    Screenshot,
    /// The lease is about to end: hold the guest still, clocks and all.
    Freeze,
    /// The guard has stopped the process.
    NoteFrozen,
    /// The guard lets the process run again: let its guest go on.
    Thaw,
    /// Let the process run on, without us.
    Close,
}

/// A change of devices.
#[derive(Debug)]
pub enum Plug {
    AddDisk { disk: Disk, images: Vec<PlacedImage> },
    RemoveDisk { name: Label },
    AddNic { nic: Nic, taps: Vec<OwnedFd> },
    RemoveNic { name: Label },
    ResizeDisk { name: Label, size_mb: u64 },
}

/// What an action yields.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub picture: Vec<u8>,
}

impl Work {
    pub fn action(&self) -> Option<Action> {
        Some(match self {
            Work::Cont => Action::Cont,
            Work::Stop { .. } => Action::Stop,
            Work::Reboot { .. } => Action::Reboot,
            Work::Reset => Action::Reset,
            Work::Pause => Action::Pause,
            Work::Resume => Action::Resume,
            Work::Kill => Action::Kill,
            Work::Plug(_) => Action::Devices,
            Work::Screenshot => Action::Screenshot,
            Work::Freeze | Work::NoteFrozen | Work::Thaw | Work::Close => return None,
        })
    }
}

/// A machine. Clones are the same machine. When the last one is dropped its task ends, and QEMU runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) key: Key,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) state: watch::Receiver<MachineState>,
    pub(super) channels: Arc<Channels>,
}

impl Machine {
    pub fn key(&self) -> Key {
        self.key
    }

    /// What it is now, and every change from now on.
    pub fn state(&self) -> watch::Receiver<MachineState> {
        self.state.clone()
    }

    pub fn agent(&self) -> &Agent {
        &self.channels.agent
    }

    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Lets the guest execute for the first time.
    pub async fn cont(&self) -> Result<(), MachineError> {
        self.order(Work::Cont).await.map(drop)
    }

    /// Asks the guest to power off. Returns when the process is gone, or with the reason why it is not; then
    /// the guest may still power off, and QEMU is ended as soon as it has.
    pub async fn stop(&self, within: Duration) -> Result<(), MachineError> {
        self.order(Work::Stop { within }).await.map(drop)
    }

    /// Asks the guest to power off and starts it anew. Returns when it executes again.
    pub async fn reboot(&self, within: Duration) -> Result<(), MachineError> {
        self.order(Work::Reboot { within }).await.map(drop)
    }

    /// The reset button. A VM that was paused on request stays paused, and boots when it is resumed; one that
    /// has stopped by itself (panic, watchdog, a disk's error) goes on at once.
    pub async fn reset(&self) -> Result<(), MachineError> {
        self.order(Work::Reset).await.map(drop)
    }

    pub async fn pause(&self) -> Result<(), MachineError> {
        self.order(Work::Pause).await.map(drop)
    }

    pub async fn resume(&self) -> Result<(), MachineError> {
        self.order(Work::Resume).await.map(drop)
    }

    /// Holds the guest still, because the lease is about to end. Returns before QEMU has done it: the guard stops the
    /// process in any case.
    pub async fn freeze(&self) -> Result<(), MachineError> {
        self.order(Work::Freeze).await.map(drop)
    }

    /// The guard says that it has stopped the process.
    pub async fn note_frozen(&self) -> Result<(), MachineError> {
        self.order(Work::NoteFrozen).await.map(drop)
    }

    /// Lets the guest go on where [`Self::freeze`] held it, after the guard let the process run. Returns when QEMU
    /// answers again and the guest executes, if it did before. A guest that was paused on request stays paused.
    pub async fn thaw(&self) -> Result<(), MachineError> {
        self.order(Work::Thaw).await.map(drop)
    }

    /// Pulls the plug. Returns when the process is gone.
    pub async fn kill(&self) -> Result<(), MachineError> {
        self.order(Work::Kill).await.map(drop)
    }

    pub async fn plug(&self, plug: Plug) -> Result<(), MachineError> {
        self.order(Work::Plug(Box::new(plug))).await.map(drop)
    }

    /// A picture of the screen, as PNG.
    pub async fn screenshot(&self) -> Result<Vec<u8>, MachineError> {
        self.order(Work::Screenshot).await.map(|done| done.picture)
    }

    /// Lets go of the VM, which runs on, and returns when its monitor is free for whoever comes next.
    pub async fn close(self) {
        // An error means that the task has ended already.
        let _ = self.order(Work::Close).await;
    }

    async fn order(&self, work: Work) -> Result<Done, MachineError> {
        let action = work.action();
        let (answer, answered) = oneshot::channel();
        let closed = || match action {
            Some(action) if self.state.borrow().phase.is_gone() => MachineError::NotNow {
                action,
                reason: NotNow::Gone,
            },
            _ => MachineError::Closed,
        };
        self.orders.send(Order { work, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}
