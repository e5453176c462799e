//! What an action works with: the ways into the VM, and a view of what the machine is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_guard::wire::Key;
use plasmavmc_types::{AgentPolicy, QemuRunState};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::MachineError;
use super::{Action, Host, MachineState, NotNow, Phase, patience};
use crate::channel::{Channel, ChannelOptions, Console, Past, SocketOwner};
use crate::qga::{Agent, AgentOptions};
use crate::qmp::Qmp;
use crate::runtime::{RuntimeFolder, file};

/// How much of the console is kept for who attaches later.
const SCROLLBACK_BYTES: usize = 256 * 1024;

/// Our ends of the channels into a guest. QEMU connects to them, and finds those of the next server again.
#[derive(Debug)]
pub struct Channels {
    pub agent: Agent,
    pub console: Console,
    /// Drained, and kept for the agent of ours that speaks on it.
    pub plasma_agent: Channel,
}

impl Channels {
    /// Of a QEMU that is to be started.
    pub(super) fn listen(folder: &RuntimeFolder, vm: &str, owner: Option<SocketOwner>) -> Result<Self, MachineError> {
        Self::listen_after(folder, vm, owner, Box::new(Vec::new))
    }

    /// Of one that ran under another server: QEMU wrote into a log what its console showed meanwhile.
    pub(super) fn take_over(
        folder: &Arc<RuntimeFolder>,
        vm: &str,
        owner: Option<SocketOwner>,
    ) -> Result<Self, MachineError> {
        let log = Arc::clone(folder);
        let past = move || {
            let end = log.end_of_log(file::CONSOLE_LOG, SCROLLBACK_BYTES);
            end.unwrap_or_else(|error| {
                tracing::warn!(%error, "what a console showed before cannot be read");
                Vec::new()
            })
        };
        Self::listen_after(folder, vm, owner, Box::new(past))
    }

    fn listen_after(
        folder: &RuntimeFolder,
        vm: &str,
        owner: Option<SocketOwner>,
        past: Past,
    ) -> Result<Self, MachineError> {
        let options = ChannelOptions {
            owner,
            ..ChannelOptions::default()
        };
        let listen = |name: &str| Channel::listen(&folder.path().join(name), options);
        Ok(Self {
            agent: Agent::attach(listen(file::AGENT_SOCKET)?, vm, AgentOptions::default()),
            console: Console::attach_after(listen(file::CONSOLE_SOCKET)?, SCROLLBACK_BYTES, past),
            plasma_agent: listen(file::PLASMA_AGENT_SOCKET)?,
        })
    }
}

/// Handed to one action.
#[derive(Debug, Clone)]
pub struct Hands {
    pub host: Arc<Host>,
    pub key: Key,
    pub qmp: Option<Qmp>,
    pub channels: Arc<Channels>,
    pub policy: AgentPolicy,
    pub seen: watch::Receiver<MachineState>,
}

impl Hands {
    pub fn qmp(&self, action: Action) -> Result<&Qmp, MachineError> {
        self.qmp.as_ref().ok_or(MachineError::NotNow {
            action,
            reason: NotNow::Unreachable,
        })
    }

    /// A command without an interesting answer.
    pub async fn command(&self, action: Action, name: &str, arguments: Value) -> Result<(), MachineError> {
        self.qmp(action)?
            .execute_raw(name, arguments, patience::COMMAND)
            .await?;
        Ok(())
    }

    /// Waits until the machine is as wanted. False if it is not in time.
    pub async fn wait_until(&self, within: Duration, wanted: impl FnMut(&MachineState) -> bool) -> bool {
        let mut seen = self.seen.clone();
        matches!(tokio::time::timeout(within, seen.wait_for(wanted)).await, Ok(Ok(_)))
    }

    pub async fn wait_gone(&self, within: Duration) -> bool {
        self.wait_until(within, |state| state.phase.is_gone()).await
    }

    /// Waits until QEMU itself says that the guest has powered off, or is gone.
    pub async fn wait_powered_off(&self, within: Duration) -> bool {
        let is_off = |state: &MachineState| state.qemu == QemuRunState::Shutdown || state.phase.is_gone();
        self.wait_until(within, is_off).await
    }

    pub fn phase(&self) -> Phase {
        self.seen.borrow().phase
    }
}

/// What QEMU says it does.
pub async fn query_status(qmp: &Qmp, within: Duration) -> Result<QemuRunState, crate::qmp::QmpError> {
    let answer = qmp.execute_raw("query-status", json!({}), within).await?;
    let word = answer.get("status").and_then(Value::as_str).unwrap_or_default();
    Ok(QemuRunState::from(word.to_owned()))
}

/// The end of what QEMU itself said.
pub fn last_words(folder: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    const KEPT_BYTES: u64 = 2048;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut log = std::fs::File::open(folder.join(file::QEMU_LOG))?;
        let start = log.metadata()?.len().saturating_sub(KEPT_BYTES);
        log.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        log.take(KEPT_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
