//! How a command fails: a sentence that says what to do, and an exit status that says which kind it was.

use std::io;

use chainfire::backup::BackupError;
use chainfire::client::ClusterError;
use chainfire::kv::KvError;
use chainfire::transport::AddressError;

use crate::bytes_text::BytesTextError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    /// The key of a `get`, as it is shown.
    #[error("there is no key {key} (at revision {revision})")]
    NotFound { key: String, revision: u64 },
    /// Said in the answer already.
    #[error("a compare did not hold")]
    CompareFailed,
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("cannot read {what}: {source}")]
    Read { what: String, source: io::Error },
    #[error("cannot write {what}: {source}")]
    Write { what: String, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0:#}")]
    Serve(#[from] anyhow::Error),
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<BytesTextError> for Failure {
    fn from(error: BytesTextError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl Failure {
    fn kv_error(&self) -> Option<&KvError> {
        match self {
            Failure::Kv(error) | Failure::Cluster(ClusterError::Call(error)) => Some(error),
            _ => None,
        }
    }

    /// Somebody closed our standard output, as `| head` does: nothing is wrong.
    fn is_closed_output(&self) -> bool {
        matches!(self, Failure::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub fn exit_status(&self) -> u8 {
        if self.is_closed_output() {
            return 0;
        }
        match (self, self.kv_error()) {
            (Failure::Usage(_), _) => 2,
            (Failure::NotFound { .. }, _) => 3,
            (Failure::CompareFailed, _) => 4,
            (_, Some(KvError::OutcomeUnknown { .. })) => 6,
            (_, Some(KvError::DiskFull { .. })) => 5,
            (_, Some(error)) if error.is_retryable() => 5,
            _ => 1,
        }
    }

    /// What standard error is told, if anything.
    pub fn sentence(&self) -> Option<String> {
        if self.is_closed_output() || matches!(self, Failure::CompareFailed) {
            return None;
        }
        let advice = match self.kv_error() {
            Some(KvError::NoLeader { .. }) => {
                "; a majority of the members must run and reach each other (see 'chainfire status --all')"
            }
            Some(KvError::Unavailable { .. }) => "; is it running, and is --server (or CHAINFIRE_SERVER) right?",
            Some(KvError::Timeout { .. }) => "; try again, or with a longer --timeout",
            _ => "",
        };
        Some(format!("{self}{advice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason() -> String {
        "why".to_owned()
    }

    #[test]
    fn exit_statuses_tell_failures_apart() {
        let table = [
            (Failure::Usage(reason()), 2),
            (
                Failure::NotFound {
                    key: "k".into(),
                    revision: 1,
                },
                3,
            ),
            (Failure::CompareFailed, 4),
            (KvError::NoLeader { reason: reason() }.into(), 5),
            (KvError::Unavailable { reason: reason() }.into(), 5),
            (
                KvError::Timeout {
                    waited_ms: 1,
                    reason: reason(),
                }
                .into(),
                5,
            ),
            (KvError::Overloaded { limit: 1 }.into(), 5),
            (KvError::DiskFull { reason: reason() }.into(), 5),
            (KvError::OutcomeUnknown { reason: reason() }.into(), 6),
            (
                ClusterError::Call(KvError::OutcomeUnknown { reason: reason() }).into(),
                6,
            ),
            (ClusterError::Refused { reason: reason() }.into(), 1),
            (KvError::EmptyKey.into(), 1),
            (KvError::Internal { reason: reason() }.into(), 1),
            (AddressError::Empty.into(), 2),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
            (io::Error::from(io::ErrorKind::StorageFull).into(), 1),
        ];
        for (failure, expected) in table {
            assert_eq!(failure.exit_status(), expected, "{failure:?}");
        }
    }

    #[test]
    fn an_unreachable_member_comes_with_advice() {
        let failure = Failure::from(KvError::Unavailable { reason: reason() });
        let sentence = failure.sentence().expect("a sentence");
        assert!(sentence.contains("why") && sentence.contains("--server"), "{sentence}");
    }
}
