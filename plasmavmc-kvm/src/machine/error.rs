//! Why a machine did not do what it was asked.

use std::time::Duration;

use super::phase::{Action, NotNow};
use crate::channel::SocketError;
use crate::keeper::KeeperError;
use crate::qga::QgaError;
use crate::qmp::{ConnectError, QmpError};
use crate::refused::Refused;
use crate::runtime::RuntimeError;

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The specification or the host does not allow it; nothing was made.
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Invalid(#[from] plasmavmc_types::Invalid),
    #[error("{action} is not possible now: {reason}")]
    NotNow { action: Action, reason: NotNow },
    #[error("{action} has to wait: {other} is under way")]
    Busy { action: Action, other: Action },
    #[error("{action} was given up: the VM is being killed")]
    Overtaken { action: Action },
    /// Nothing was begun.
    #[error(
        "{action} needs the guest agent, which does not answer: see that it runs in the guest, use force, or set the \
         VM's agent policy to none"
    )]
    AgentSilent {
        action: Action,
        #[source]
        source: QgaError,
    },
    #[error("the guest did not power off within {:.2} s; it may still do so. Use force to end it now", within.as_secs_f32())]
    DidNotPowerOff { within: Duration },
    #[error("the guest did not release {device} within {} s; it stays plugged in", within.as_secs_f32())]
    NotReleased { device: String, within: Duration },
    #[error("there is no {what} {name:?} in this VM")]
    NoSuchDevice { what: &'static str, name: String },
    #[error("there is a device called {name:?} already")]
    DeviceExists { name: String },
    #[error("{name} has {have_mb} MB; a disk only grows")]
    WouldShrink { name: String, have_mb: u64 },
    #[error("QEMU did not do it")]
    Qmp(#[from] QmpError),
    #[error("the guest agent did not do it")]
    Agent(#[from] QgaError),
    #[error("QEMU cannot be spoken to; it said: {said}")]
    Monitor {
        #[source]
        source: ConnectError,
        said: String,
    },
    #[error("QEMU ended before its guest was started; it said: {said}")]
    EndedAtStart { said: String },
    #[error("the process did not end within {} s of being killed: storage may hang", within.as_secs_f32())]
    NotDying { within: Duration },
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Channel(#[from] SocketError),
    #[error("the machine is closed on this side")]
    Closed,
}
