//! What can go wrong between a client and the guard. Whether an order was carried out is never guessed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::{Answer, Refusal};

#[derive(Debug, thiserror::Error)]
#[error("no guard answers in {}: start one", .folder.display())]
pub struct ConnectError {
    pub folder: PathBuf,
    #[source]
    pub source: io::Error,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guard answered: it did not do it.
    #[error(transparent)]
    Refused(Refusal),
    /// It never reached the guard.
    #[error("the order was not sent to the guard")]
    NotSent(#[source] io::Error),
    /// The connection broke. The order may have been carried out: connect again and list.
    #[error("the connection to the guard broke before it answered; connect again and ask what it holds")]
    Unanswered,
    /// As above, but the connection stands; an answer that comes later is discarded.
    #[error("the guard did not answer within {after:?}; ask what it holds before repeating the order")]
    TimedOut { after: Duration },
    #[error("the guard answered something else than it was asked: {answer}")]
    Strange { answer: String },
}

impl CallError {
    pub(super) fn strange(answer: &Answer) -> Self {
        Self::Strange {
            answer: format!("{answer:?}"),
        }
    }

    pub(super) fn not_sent(error: impl Into<io::Error>) -> Self {
        Self::NotSent(error.into())
    }

    pub(super) fn closed_before() -> Self {
        Self::NotSent(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("cannot run {}", .program.display())]
    Program {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no guard could be started: {output}")]
    NotStarted { output: String },
    #[error("no guard could be started within {after:?}")]
    TimedOut { after: Duration },
    #[error(transparent)]
    Connect(#[from] ConnectError),
}
