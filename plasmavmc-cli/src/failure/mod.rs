//! How a command fails: what went wrong, what to do about it, and an exit status that scripts may rely on.
//!
//! Must never: invent a rule or soften an answer. What the server said is repeated, with the remedy it gave.

mod answer;
mod text;

use std::io;
use std::time::Duration;

use plasmavmc_proto::api::Operation;
use tonic::Code;

pub use answer::Answer;

/// What the exit status of the program means. The table is part of the interface, and of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unavailable = 5,
    TimedOut = 6,
    Conflict = 7,
    /// As the shell says it of a program that Ctrl-C ended.
    Interrupted = 130,
}

/// The table as `--help` shows it.
pub const EXIT_STATUSES: &str = "\
Exit status:
  0  done
  1  failed
  2  wrong usage, or a value that the cluster refuses as malformed
  3  no such VM, host or operation
  4  refused in the present state: an agent that is silent, a VM that runs, no host with room
  5  no server answered, or the cluster has no quorum
  6  out of time; what was asked may still happen
  7  conflict: the name is taken, or somebody changed it meanwhile";

/// A server that was asked, and why it gave no answer.
#[derive(Debug, Clone)]
pub struct Tried {
    pub server: String,
    pub why: Why,
}

/// Why one server was no help.
#[derive(Debug, Clone)]
pub enum Why {
    /// There was no connection: nothing was sent.
    NotReached(String),
    /// The connection broke, so that nobody knows what the server did.
    Broken(String),
    /// No answer in time.
    Silent(Duration),
    /// It answered that it cannot now.
    Cannot(Answer),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, or a file it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// A server looked at it and said no.
    #[error("cannot {doing}: {}", answer.message)]
    Answered { doing: String, answer: Box<Answer> },
    /// None of the servers was any help.
    #[error("cannot {doing}: no server answered")]
    Nobody {
        doing: String,
        tried: Vec<Tried>,
        /// With it the call can be repeated without doing it twice.
        request_id: Option<String>,
    },
    /// An operation came to a bad end.
    #[error("{} {}: {}", operation.kind, text::vm_of(operation), text::end_of(operation))]
    Operation { operation: Box<Operation> },
    /// Nobody waits any longer, but it goes on.
    #[error("{} {} has not ended after {}", operation.kind, text::vm_of(operation), text::round(*waited))]
    StillRunning {
        operation: Box<Operation>,
        waited: Duration,
    },
    /// VMs did not leave a host in time.
    #[error("host {host} still has {} after {}: {}", text::vms(vms.len()), text::round(*waited), vms.join(", "))]
    StillThere {
        host: String,
        vms: Vec<String>,
        waited: Duration,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted { operation: Option<Box<Operation>> },
    #[error("not confirmed, nothing was done")]
    NotConfirmed,
    /// A stream broke off and could not be taken up again.
    #[error("{doing} broke off: {why}")]
    BrokeOff { doing: String, why: String },
    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// `doctor` found something; it has printed what.
    #[error("{0} of the checks failed")]
    Unhealthy(usize),
}

impl Failure {
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Failure::Io {
            doing: doing.into(),
            source,
        }
    }

    pub fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Answered { answer, .. } => exit_of(answer.code),
            Failure::Nobody { tried, .. } => exit_of_tried(tried),
            Failure::Operation { operation } => exit_of(text::code_of(operation)),
            Failure::StillRunning { .. } | Failure::StillThere { .. } => Exit::TimedOut,
            Failure::Interrupted { .. } => Exit::Interrupted,
            Failure::BrokeOff { .. } => Exit::Unavailable,
            // Somebody closed our standard output, as `| head` does: nothing is wrong.
            Failure::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Failure::NotConfirmed | Failure::Io { .. } | Failure::Unhealthy(_) => Exit::Failed,
        }
    }
}

/// The one table from a server's code to ours.
pub fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::FailedPrecondition | Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated => {
            Exit::Refused
        }
        Code::Unavailable => Exit::Unavailable,
        Code::DeadlineExceeded => Exit::TimedOut,
        Code::AlreadyExists | Code::Aborted => Exit::Conflict,
        Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Exit::Failed,
    }
}

/// A server that was reached and was silent says "out of time": it may have done it.
fn exit_of_tried(tried: &[Tried]) -> Exit {
    let is_late = |tried: &Tried| match &tried.why {
        Why::Silent(_) => true,
        Why::Cannot(answer) => answer.code == Code::DeadlineExceeded,
        Why::NotReached(_) | Why::Broken(_) => false,
    };
    let cannot = |tried: &Tried| matches!(&tried.why, Why::Cannot(answer) if answer.code == Code::Unavailable);
    if tried.iter().any(is_late) && !tried.iter().any(cannot) {
        Exit::TimedOut
    } else {
        Exit::Unavailable
    }
}

#[cfg(test)]
mod tests;
