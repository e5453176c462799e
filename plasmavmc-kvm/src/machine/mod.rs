//! One VM on this host, owned by one task.
//!
//! ```text
//!  callers --orders--> task --commands--> QEMU (qmp), guest agent (qga), guard (keeper)
//!                       ^ |
//!     events, process's end, answers       +--> watch: what the machine is now
//! ```
//! [`phase`] is the whole life as a pure table; the task only carries signals to it and actions out. One
//! action is under way at a time. It runs beside the task, so that events and the end of the process are seen
//! at once, whatever QEMU is busy with; only a kill overtakes it.
//!
//! Must never happen: a guest that executes though nobody said `cont`; a machine called gone while its process
//! lives; an action that waits without a deadline; a graceful stop or reboot that begins though the agent has
//! not just answered (unless the VM has none by policy).

mod act;
mod course;
mod devices;
mod error;
mod handle;
mod hands;
mod lease;
mod notes;
pub mod phase;
mod start;
mod task;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_guard::wire::Owner;
use plasmavmc_types::QemuRunState;
use serde_json::Value;

pub use error::MachineError;
pub use handle::{Machine, Plug};
pub use hands::{Channels, last_words};
pub use phase::{Action, Cause, NotNow, Phase, PoweredOffBy};
pub use start::{StartPlan, launch, take_over};

use crate::keeper::Keeper;
use crate::qemu::Qemu;
use crate::qmp::Event;

/// What all machines of a host have in common.
#[derive(Debug)]
pub struct Host {
    /// The folder of the runtime folders.
    pub vms: PathBuf,
    pub keeper: Keeper,
    pub qemu: Qemu,
    /// Whom QEMU runs as; this process' own user if absent.
    pub run_as: Option<Owner>,
    /// The cgroup below which each VM gets its own, where that can be done.
    pub cgroup: Option<PathBuf>,
}

/// A host shared by its machines.
pub type SharedHost = Arc<Host>;

/// What a machine is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineState {
    pub phase: Phase,
    /// QEMU's own last word.
    pub qemu: QemuRunState,
    pub pid: i32,
    /// The guard stops it when the lease of this host ends.
    pub leased: bool,
    /// It executes nothing until it is thawed, whatever its phase: the lease ended, or was about to.
    pub frozen: bool,
    /// How often the guest was started anew in this process. One reset may count several times: SeaBIOS under
    /// TCG resets itself up to some forty times before it goes on.
    pub resets: u64,
    /// The last disk error that QEMU told of.
    pub disk_trouble: Option<DiskTrouble>,
    /// What is under way.
    pub action: Option<Action>,
    /// The end of what QEMU itself said, once it is gone.
    pub last_words: String,
}

/// A disk that answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskTrouble {
    /// The device or node as QEMU calls it.
    pub device: String,
    pub is_full: bool,
    pub reason: String,
}

impl DiskTrouble {
    fn told_by(event: &Event) -> Self {
        let text = |key: &str| {
            event
                .data
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let node = text("node-name");
        Self {
            device: if node.is_empty() { text("device") } else { node },
            is_full: event.data.get("nospace").and_then(Value::as_bool).unwrap_or(false),
            reason: text("reason"),
        }
    }
}

/// How long the parts of an action may take.
mod patience {
    use super::Duration;

    /// A command that QEMU answers from memory.
    pub const COMMAND: Duration = Duration::from_secs(5);
    /// One that may have to wait for a disk.
    pub const DISK_COMMAND: Duration = Duration::from_secs(30);
    /// From the start of the process to QMP's greeting, on a busy host.
    pub const GREETING: Duration = Duration::from_secs(20);
    /// An agent that is well answers within milliseconds.
    pub const AGENT: Duration = Duration::from_secs(3);
    /// QEMU ends within milliseconds once it is told to.
    pub const QUIT: Duration = Duration::from_secs(5);
    /// The kernel frees the memory of a big process.
    pub const KILL: Duration = Duration::from_secs(30);
    /// The guest's own driver has to let a device go.
    pub const UNPLUG: Duration = Duration::from_secs(20);
    /// Between two questions to a QEMU that says nothing.
    pub const HEARTBEAT: Duration = Duration::from_secs(10);
    /// Between two tries to reach a monitor that was lost.
    pub const RECONNECT: Duration = Duration::from_millis(500);
    /// For the guard to say how a process ended.
    pub const COLLECT: Duration = Duration::from_secs(5);
}
