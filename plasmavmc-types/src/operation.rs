//! What takes longer than a call, and what was decided on the way.
//!
//! ```text
//!  pending --host or controller takes it--> running --> done
//!     |                                        |------> failed (code, reason, what to do)
//!     +----------------- cancelled <-----------+
//! ```
//! Every operation ends: whoever runs it ends it, and after its deadline the controller does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Epoch, HostId, OperationId, VmId, VmName};

/// What is done to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    Create,
    Start,
    /// Gracefully, or with `force` by pulling the plug.
    Stop {
        force: bool,
    },
    Reboot,
    /// Stop, wait until nothing is left, start, wait for the agent.
    Restart {
        force: bool,
    },
    Reset,
    Pause,
    Resume,
    Delete,
}

impl OperationKind {
    pub const fn word(self) -> &'static str {
        match self {
            OperationKind::Create => "create",
            OperationKind::Start => "start",
            OperationKind::Stop { .. } => "stop",
            OperationKind::Reboot => "reboot",
            OperationKind::Restart { .. } => "restart",
            OperationKind::Reset => "reset",
            OperationKind::Pause => "pause",
            OperationKind::Resume => "resume",
            OperationKind::Delete => "delete",
        }
    }

    pub const fn is_forced(self) -> bool {
        matches!(
            self,
            OperationKind::Stop { force: true } | OperationKind::Restart { force: true }
        )
    }

    /// Whether it is an order to a QEMU that runs, carried out by its host, rather than a change of what is
    /// wanted that ends by itself once it is so.
    pub const fn is_order(self) -> bool {
        !matches!(
            self,
            OperationKind::Create | OperationKind::Start | OperationKind::Delete
        )
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Pending,
    Running,
    Done,
    Failed(OperationError),
    Cancelled,
}

impl OperationState {
    pub const fn is_ended(&self) -> bool {
        matches!(
            self,
            OperationState::Done | OperationState::Failed(_) | OperationState::Cancelled
        )
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct OperationError {
    /// The number of a gRPC status code.
    pub code: u32,
    /// For programs: `AGENT_SILENT`.
    pub reason: String,
    /// For people, with what to do.
    pub message: String,
}

/// What takes longer than a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    pub kind: OperationKind,
    pub vm: VmId,
    /// As it was called when this began: it may be gone.
    pub vm_name: VmName,
    pub state: OperationState,
    /// What it does now, for people.
    pub step: String,
    /// Times are of wall clocks: for people, and for deadlines of minutes.
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    pub deadline_ms: u64,
    pub cancel_requested: bool,
    /// Who carries it out, and in which of its sessions.
    pub runner: Option<(HostId, Epoch)>,
}

impl Operation {
    pub fn is_ended(&self) -> bool {
        self.state.is_ended()
    }

    /// The operation in another state.
    #[must_use]
    pub fn moved(&self, state: OperationState, step: impl Into<String>, now_ms: u64) -> Self {
        Self {
            state,
            step: step.into(),
            updated_at_ms: now_ms,
            ..self.clone()
        }
    }
}

/// What was decided, and on which evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub at_ms: u64,
    /// For programs: `place`.
    pub kind: String,
    pub vm: Option<VmId>,
    pub host: Option<HostId>,
    /// For people.
    pub text: String,
    /// Facts, with the revisions they were read at.
    pub evidence: Vec<String>,
}
