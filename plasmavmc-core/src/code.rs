//! How a refusal or a failure is told to programs: a gRPC status code and a reason.
//!
//! The numbers are those of gRPC, so that what an operation failed with and what a call is answered with are
//! the same thing. This crate knows no gRPC: it only uses its numbers.

use plasmavmc_types::OperationError;

/// The codes that decisions use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    /// The VM or the cluster is in a state in which this makes no sense; the same call fails again.
    FailedPrecondition,
    /// Something else was under way or came between; the same call may succeed later.
    Aborted,
    Internal,
    Unavailable,
}

impl Code {
    /// The number in gRPC.
    pub const fn number(self) -> u32 {
        match self {
            Code::DeadlineExceeded => 4,
            Code::NotFound => 5,
            Code::ResourceExhausted => 8,
            Code::FailedPrecondition => 9,
            Code::Aborted => 10,
            Code::Internal => 13,
            Code::Unavailable => 14,
        }
    }

    /// An error of an operation with this code.
    pub fn error(self, reason: impl Into<String>, message: impl Into<String>) -> OperationError {
        OperationError {
            code: self.number(),
            reason: reason.into(),
            message: message.into(),
        }
    }
}
