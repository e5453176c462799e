//! What can become of a command, and of a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::refusal::Refusal;
use crate::channel::LineTooLong;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// QEMU ended, or replaced this client.
    #[error("QEMU closed its monitor")]
    Eof,
    #[error("the monitor's connection broke")]
    Io(#[source] io::Error),
    #[error("QEMU sent no valid QMP: {0}")]
    NotQmp(LineTooLong),
    /// The last handle was dropped, or one of them closed it.
    #[error("the connection was closed on this side")]
    Released,
}

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QmpError {
    /// Certainly not done.
    #[error("QEMU refused {command}: {refusal}")]
    Refused { command: String, refusal: Refusal },
    /// Certainly not done: QEMU was still busy with earlier commands, or did not read.
    #[error("{command} was not sent within {} s: QEMU is busy or hangs", after.as_secs_f32())]
    NotSent { command: String, after: Duration },
    /// Not known whether done.
    #[error("QEMU did not answer {command} within {} s; it may still carry it out", after.as_secs_f32())]
    NoAnswer { command: String, after: Duration },
    /// Not known whether done.
    #[error("the connection ended before QEMU answered {command}, which it may have carried out: {reason}")]
    Interrupted { command: String, reason: Arc<CloseReason> },
    /// Certainly not done.
    #[error("{command} was not sent: {reason}")]
    Closed { command: String, reason: Arc<CloseReason> },
    /// Done, but what was answered is of no known form: ask again with `execute_raw`.
    #[error("QEMU's answer to {command} is not of the expected form")]
    Unexpected {
        command: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// Certainly not done.
    #[error("the arguments of {command} are no JSON object: {problem}")]
    BadArguments { command: String, problem: String },
    /// Certainly not done.
    #[error("{command} has {bytes} bytes; at most {limit} are sent")]
    TooLong {
        command: String,
        bytes: usize,
        limit: usize,
    },
}

impl QmpError {
    /// Whether QEMU may have done, or may yet do, what it was told.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Interrupted { .. } | Self::Unexpected { .. } => true,
            Self::Refused { .. }
            | Self::NotSent { .. }
            | Self::Closed { .. }
            | Self::BadArguments { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// What QEMU said, if it said no.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}
