//! `chainfire.Cluster`: membership, status, backups.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use futures::{TryStreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::kv::KvError;
use crate::proto;
use crate::proto::cluster_client::ClusterClient;
use crate::wire::{CallKind, MAX_ANSWER_BYTES, error_from_status};

use super::Client;
use super::attempts::Failure;

/// A member changes its membership by several rounds of agreement, each with a deadline of its own.
const MEMBERSHIP_PATIENCE: u32 = 6;

/// Why a cluster call was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The cluster understood and will not do it. Nothing was changed.
    #[error("refused: {reason}")]
    Refused { reason: String },
    #[error(transparent)]
    Call(#[from] KvError),
}

impl From<Failure> for ClusterError {
    fn from(failure: Failure) -> Self {
        match failure.status {
            Some(status) if was_refused(&status) => ClusterError::Refused {
                reason: status.message().to_owned(),
            },
            _ => ClusterError::Call(failure.error),
        }
    }
}

/// Codes that only a member gives that has looked at the request and left it.
fn was_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::NotFound | Code::AlreadyExists | Code::InvalidArgument | Code::Aborted
    )
}

/// The bytes of a backup, in order. Complete only when it ends without an error.
pub type BackupStream = BoxStream<'static, Result<Bytes, KvError>>;

fn cluster_client(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// Calls one method of the service within a timeout.
macro_rules! cluster_call {
    ($client:expr, $timeout:expr, $kind:ident, $method:ident, $request:expr) => {{
        let request = $request;
        $client
            .call_within(
                $timeout,
                CallKind::$kind,
                |_| false,
                |channel| {
                    let request = request.clone();
                    async move { cluster_client(channel).$method(request).await }
                },
            )
            .await
    }};
}

impl Client {
    fn membership_timeout(&self) -> Duration {
        self.inner.options.timeout * MEMBERSHIP_PATIENCE
    }

    /// The state of the first member that answers.
    pub async fn status(&self) -> Result<proto::StatusResponse, ClusterError> {
        let timeout = self.inner.options.timeout;
        Ok(cluster_call!(self, timeout, Read, status, proto::StatusRequest {})?)
    }

    /// The state of every member this client knows, by address.
    pub async fn status_of_all(&self) -> Vec<(String, Result<proto::StatusResponse, ClusterError>)> {
        let timeout = self.inner.options.timeout;
        let asked = (0..self.inner.endpoints.count()).map(|index| async move {
            let chosen = self.inner.endpoints.at(index);
            let mut client = cluster_client(chosen.channel.clone());
            let answer = match tokio::time::timeout(timeout, client.status(proto::StatusRequest {})).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(error_from_status(&status, CallKind::Read).into()),
                Err(_) => Err(ClusterError::Call(KvError::Timeout {
                    waited_ms: timeout.as_millis() as u64,
                    reason: format!("{} is silent", chosen.address),
                })),
            };
            (chosen.address.to_owned(), answer)
        });
        futures::future::join_all(asked).await
    }

    pub async fn member_list(&self) -> Result<Vec<proto::Member>, ClusterError> {
        let timeout = self.inner.options.timeout;
        let response = cluster_call!(self, timeout, Read, member_list, proto::MemberListRequest {})?;
        Ok(response.members)
    }

    /// Adds a learner; see `MemberAddRequest` for what can be asked with it.
    pub async fn member_add(&self, request: proto::MemberAddRequest) -> Result<proto::MemberAddResponse, ClusterError> {
        Ok(cluster_call!(
            self,
            self.membership_timeout(),
            Write,
            member_add,
            request
        )?)
    }

    /// Makes a caught-up learner a voter.
    pub async fn member_promote(&self, member_id: u64) -> Result<Vec<proto::Member>, ClusterError> {
        let request = proto::MemberPromoteRequest { member_id };
        let response = cluster_call!(self, self.membership_timeout(), Write, member_promote, request)?;
        Ok(response.members)
    }

    pub async fn member_remove(&self, member_id: u64) -> Result<Vec<proto::Member>, ClusterError> {
        let request = proto::MemberRemoveRequest { member_id };
        let response = cluster_call!(self, self.membership_timeout(), Write, member_remove, request)?;
        Ok(response.members)
    }

    /// Takes out a dead voter and puts in a learner.
    pub async fn member_replace(&self, dead_id: u64, learner_id: u64) -> Result<Vec<proto::Member>, ClusterError> {
        let request = proto::MemberReplaceRequest { dead_id, learner_id };
        let response = cluster_call!(self, self.membership_timeout(), Write, member_replace, request)?;
        Ok(response.members)
    }

    /// Raises the level of features that every member may apply.
    pub async fn set_feature_level(&self, level: u32) -> Result<u32, ClusterError> {
        let request = proto::SetFeatureLevelRequest { level };
        let timeout = self.inner.options.timeout;
        let response = cluster_call!(self, timeout, Write, set_feature_level, request)?;
        Ok(response.level)
    }

    /// Has the first member that answers build a snapshot and cut its log.
    pub async fn trigger_snapshot(&self) -> Result<u64, ClusterError> {
        let request = proto::TriggerSnapshotRequest {};
        let response = cluster_call!(self, self.membership_timeout(), Write, trigger_snapshot, request)?;
        Ok(response.snapshot_index)
    }

    /// A consistent backup of the first member that answers. Each part of it has the client's timeout.
    pub async fn backup(&self) -> Result<BackupStream, ClusterError> {
        let timeout = self.inner.options.timeout;
        let chunks = cluster_call!(self, timeout, Read, backup, proto::BackupRequest {})?;
        let chunks = stream::try_unfold(chunks, move |mut chunks| async move {
            match tokio::time::timeout(timeout, chunks.message()).await {
                Ok(Ok(chunk)) => Ok(chunk.map(|chunk| (chunk.data, chunks))),
                Ok(Err(status)) => Err(error_from_status(&status, CallKind::Read)),
                Err(_) => Err(KvError::Timeout {
                    waited_ms: timeout.as_millis() as u64,
                    reason: "the backup stopped coming".to_owned(),
                }),
            }
        });
        Ok(chunks.into_stream().boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: Status) -> ClusterError {
        let error = error_from_status(&status, CallKind::Write);
        ClusterError::from(Failure {
            error,
            status: Some(status),
        })
    }

    #[test]
    fn a_refusal_is_not_an_unknown_outcome() {
        for code in [
            Code::FailedPrecondition,
            Code::NotFound,
            Code::AlreadyExists,
            Code::InvalidArgument,
            Code::Aborted,
        ] {
            let reason = "removing 2 would leave 1 of 3".to_owned();
            let error = answered(Status::new(code, reason.clone()));
            assert_eq!(error, ClusterError::Refused { reason });
        }
        for code in [Code::Unavailable, Code::Internal, Code::Unknown] {
            let error = answered(Status::new(code, "lost"));
            assert!(
                matches!(error, ClusterError::Call(KvError::OutcomeUnknown { .. })),
                "{error:?}"
            );
        }
    }
}
