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
///
/// `force` is there only where it makes a difference to how the VM ends; to delete by force is to kill first.
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

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Nobody has taken it yet; it can still be cancelled.
    Pending,
    Running,
    Done,
    Failed(OperationError),
    Cancelled,
}

impl OperationState {
    /// Whether it stays as it is for ever.
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
    /// After this the controller ends it, whoever runs it.
    pub deadline_ms: u64,
    /// Somebody wants it to end; whoever runs it decides whether it still can.
    pub cancel_requested: bool,
    /// Who carries it out, and in which of its sessions. An operation of an earlier session goes on only where
    /// what is stored tells how.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    const ALL: [OperationKind; 11] = [
        OperationKind::Create,
        OperationKind::Start,
        OperationKind::Stop { force: false },
        OperationKind::Stop { force: true },
        OperationKind::Reboot,
        OperationKind::Restart { force: false },
        OperationKind::Restart { force: true },
        OperationKind::Reset,
        OperationKind::Pause,
        OperationKind::Resume,
        OperationKind::Delete,
    ];

    fn operation() -> Operation {
        Operation {
            id: OperationId::from_uuid(Uuid::from_u128(1)),
            kind: OperationKind::Stop { force: false },
            vm: VmId::from_uuid(Uuid::from_u128(2)),
            vm_name: VmName::new("web-1").unwrap(),
            state: OperationState::Pending,
            step: String::new(),
            created_at_ms: 1,
            updated_at_ms: 1,
            deadline_ms: 120_001,
            cancel_requested: false,
            runner: None,
        }
    }

    #[test]
    fn every_kind_has_its_own_word_and_survives_json() {
        let words: BTreeSet<&str> = ALL.into_iter().map(OperationKind::word).collect();
        assert_eq!(
            words.len(),
            ALL.len() - 2,
            "stop and restart have one word each, forced or not"
        );
        for kind in ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<OperationKind>(&json).unwrap(), kind, "{json}");
            assert_eq!(kind.to_string(), kind.word());
        }
    }

    #[test]
    fn orders_are_carried_out_by_the_host_and_the_rest_ends_by_itself() {
        let orders = ALL.into_iter().filter(|kind| kind.is_order());
        let words: BTreeSet<&str> = orders.map(OperationKind::word).collect();
        assert_eq!(
            words,
            BTreeSet::from(["stop", "reboot", "restart", "reset", "pause", "resume"])
        );
        let forced: Vec<OperationKind> = ALL.into_iter().filter(|kind| kind.is_forced()).collect();
        let expected = [
            OperationKind::Stop { force: true },
            OperationKind::Restart { force: true },
        ];
        assert_eq!(forced, expected);
    }

    #[test]
    fn what_has_ended_says_so() {
        let error = OperationError {
            code: 9,
            reason: "AGENT_SILENT".to_owned(),
            message: "the guest agent did not answer".to_owned(),
        };
        let table = [
            (OperationState::Pending, false),
            (OperationState::Running, false),
            (OperationState::Done, true),
            (OperationState::Failed(error.clone()), true),
            (OperationState::Cancelled, true),
        ];
        for (state, is_ended) in table {
            assert_eq!(
                operation().moved(state.clone(), "", 2).is_ended(),
                is_ended,
                "{state:?}"
            );
        }
        assert_eq!(error.to_string(), "the guest agent did not answer");
    }

    #[test]
    fn a_move_changes_state_step_and_time_only() {
        let moved = operation().moved(OperationState::Running, "asks the agent", 5);
        let back = Operation {
            state: OperationState::Pending,
            step: String::new(),
            updated_at_ms: 1,
            ..moved.clone()
        };
        assert_eq!(back, operation());
        assert_eq!((moved.step.as_str(), moved.updated_at_ms), ("asks the agent", 5));
        let json = serde_json::to_string(&moved).unwrap();
        assert_eq!(serde_json::from_str::<Operation>(&json).unwrap(), moved);
    }
}
