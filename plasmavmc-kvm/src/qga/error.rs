//! What can become of a command to the guest agent, in words for the VM's owner.

use std::sync::Arc;
use std::time::Duration;

use crate::qmp::Refusal;

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QgaError {
    /// Certainly not done.
    #[error("the guest agent of {vm} cannot be reached: QEMU is not connected to its channel")]
    NotConnected { vm: String },
    /// Certainly not done.
    #[error(
        "the guest agent of {vm} did not answer within {:.2} s; see that qemu-guest-agent runs in the guest",
        after.as_secs_f32()
    )]
    NotAnswering { vm: String, after: Duration },
    /// Certainly not done.
    #[error("the guest agent of {vm} is busy with {with}; {command} did not get its turn within {} s", after.as_secs_f32())]
    Busy {
        vm: String,
        command: String,
        with: String,
        after: Duration,
    },
    /// Not known whether done.
    #[error("the guest agent of {vm} did not finish {command} within {} s; it may still do so", after.as_secs_f32())]
    NoAnswer {
        vm: String,
        command: String,
        after: Duration,
    },
    /// Not known whether done.
    #[error("the channel to the guest agent of {vm} broke before {command} was answered; it may have been done")]
    Interrupted { vm: String, command: String },
    /// Certainly not done.
    #[error("the guest agent of {vm} refused {command}: {refusal}")]
    Refused {
        vm: String,
        command: String,
        refusal: Refusal,
    },
    /// Certainly not done.
    #[error("the guest agent of {vm} does not offer {command}, or has it switched off: {refusal}")]
    Unsupported {
        vm: String,
        command: String,
        refusal: Refusal,
    },
    /// Done, but the answer cannot be read.
    #[error("the guest agent of {vm} answered {command} in an unexpected form")]
    Unexpected {
        vm: String,
        command: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// Done, but the answer was thrown away.
    #[error("the guest agent of {vm} answered {command} with more than {limit_bytes} bytes; ask for less")]
    AnswerTooLong {
        vm: String,
        command: String,
        limit_bytes: usize,
    },
    /// It was started, and nothing is known of its end.
    #[error("the program {path:?} in {vm} was not seen to end within {} s; it may still run there, as process {pid}", after.as_secs_f32())]
    StillRunning {
        vm: String,
        path: String,
        pid: i64,
        after: Duration,
    },
    /// It was started, and the agent will not say what became of it.
    #[error(
        "the program {path:?} in {vm} was started as process {pid}, but what became of it cannot be told: {source}"
    )]
    Untold {
        vm: String,
        path: String,
        pid: i64,
        #[source]
        source: Box<QgaError>,
    },
    /// Certainly not done.
    #[error("the arguments of {command} cannot be sent: {problem}")]
    BadArguments { command: String, problem: String },
    /// Certainly not done.
    #[error("the channel to the guest agent of {vm} is closed on this side")]
    Closed { vm: String },
}

impl QgaError {
    /// Whether asking again may help: nothing was refused, there was only no answer yet.
    pub(super) fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::NotConnected { .. }
                | Self::NotAnswering { .. }
                | Self::Busy { .. }
                | Self::NoAnswer { .. }
                | Self::Interrupted { .. }
        )
    }

    /// Whether the agent may have done, or may yet do, what it was told.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::NoAnswer { .. }
            | Self::Interrupted { .. }
            | Self::Unexpected { .. }
            | Self::AnswerTooLong { .. }
            | Self::StillRunning { .. }
            | Self::Untold { .. } => true,
            Self::NotConnected { .. }
            | Self::NotAnswering { .. }
            | Self::Busy { .. }
            | Self::Refused { .. }
            | Self::Unsupported { .. }
            | Self::BadArguments { .. }
            | Self::Closed { .. } => false,
        }
    }
}
