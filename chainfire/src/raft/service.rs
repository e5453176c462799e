//! Answers to the calls of other members.

use std::sync::Arc;

use openraft::ServerState;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::storage::{RaftLogStorage, Snapshot, SnapshotMeta};
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status, Streaming};

use super::election::PreVote;
use super::proposer::answer_to_proto;
use super::reads::confirmed_index;
use super::types::{Ballot, Entry, LogId, MemberId, StoredMembership};
use crate::codec::CodecError;
use crate::kv::KvError;
use crate::node::{Member, Node};
use crate::proto::{self, raft_server};
use crate::state::SnapshotError;
use crate::wire;

/// The service `chainfire.Raft`.
#[derive(Debug, Clone)]
pub struct RaftService {
    node: Node,
}

impl RaftService {
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// The running member, if the call is meant for it.
    fn member(&self, cluster_id: &str, to: MemberId) -> Result<Arc<Member>, Status> {
        let member = self.node.member().map_err(|error| wire::status_from_error(&error))?;
        if cluster_id != member.cluster_id() {
            return Err(Status::failed_precondition(format!(
                "this is a member of cluster {}, not of {cluster_id}",
                member.cluster_id()
            )));
        }
        if to != member.id() {
            return Err(Status::failed_precondition(format!(
                "this is member {}, not {to}: that one has left",
                member.id()
            )));
        }
        Ok(member)
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append(&self, request: Request<proto::AppendRequest>) -> Result<Response<proto::AppendReply>, Status> {
        let request = request.into_inner();
        let member = self.member(&request.cluster_id, request.to)?;
        let entries = request
            .entries
            .into_iter()
            .map(|entry| Entry::try_from(compact(entry)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(malformed)?;
        let rpc = AppendEntriesRequest {
            vote: Ballot::from(request.ballot.unwrap_or_default()),
            prev_log_id: request.prev.map(LogId::from),
            entries,
            leader_commit: request.committed.map(LogId::from),
        };
        let response = member.raft().append_entries(rpc).await.map_err(raft_error)?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            member.contact().heard();
        }
        Ok(Response::new(append_reply(response)))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteReply>, Status> {
        let request = request.into_inner();
        let member = self.member(&request.cluster_id, request.to)?;
        let rpc = VoteRequest {
            vote: Ballot::from(request.ballot.unwrap_or_default()),
            last_log_id: request.last.map(LogId::from),
        };
        let voting = member.contact().begin_voting();
        let response = member.raft().vote(rpc).await.map_err(raft_error)?;
        if response.vote_granted {
            member.contact().heard();
        }
        drop(voting);
        Ok(Response::new(proto::VoteReply {
            ballot: Some(response.vote.into()),
            granted: response.vote_granted,
            last: response.last_log_id.map(proto::LogId::from),
        }))
    }

    async fn pre_vote(&self, request: Request<proto::PreVoteRequest>) -> Result<Response<proto::PreVoteReply>, Status> {
        let request = request.into_inner();
        let member = self.member(&request.cluster_id, request.to)?;
        let my_last = member
            .log()
            .get_log_state()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?
            .last_log_id;
        let (leading, term, known) = {
            let metrics = member.raft().metrics();
            let metrics = metrics.borrow();
            let known = metrics
                .membership_config
                .membership()
                .get_node(&request.candidate)
                .is_some();
            let leads = metrics.state == ServerState::Leader && !member.contact().is_giving_way();
            (leads, metrics.current_term, known)
        };
        let question = PreVote {
            leading,
            standing: member.contact().is_standing(),
            silence: member.contact().silence(),
            lease: member.timing().lease,
            my_last,
            candidate_last: request.last.map(LogId::from),
        };
        let answer = if known {
            question.answer()
        } else {
            Err(format!("member {} has been removed", request.candidate))
        };
        if answer.is_ok() {
            member.contact().promised(member.timing().promise());
        }
        Ok(Response::new(proto::PreVoteReply {
            granted: answer.is_ok(),
            reason: answer.err().unwrap_or_default(),
            term,
            lacks_room: member.lacks_room(),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotPart>>,
    ) -> Result<Response<proto::InstallSnapshotReply>, Status> {
        use proto::snapshot_part::Part;
        let mut parts = request.into_inner();
        let Some(Part::Start(start)) = parts.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("a snapshot begins with its description"));
        };
        let member = self.member(&start.cluster_id, start.to)?;
        member.contact().heard();
        let (path, file) = member.snapshots().begin_receiving().map_err(snapshot_status)?;
        let received = receive(&member, tokio::fs::File::from_std(file), &mut parts, start.bytes).await;
        if let Err(status) = received {
            // A left-over is removed at the next start.
            let _ = std::fs::remove_file(&path);
            return Err(status);
        }
        let snapshots = member.snapshots().clone();
        let adopted = tokio::task::spawn_blocking(move || snapshots.adopt(&path))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(snapshot_status)?;
        member.contact().heard();
        let last_membership = start
            .membership
            .map(StoredMembership::try_from)
            .transpose()
            .map_err(malformed)?
            .unwrap_or_default();
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: start.last.map(LogId::from),
                last_membership,
                snapshot_id: start.snapshot_id,
            },
            snapshot: Box::new(adopted),
        };
        let ballot = Ballot::from(start.ballot.unwrap_or_default());
        let response = member
            .raft()
            .install_full_snapshot(ballot, snapshot)
            .await
            .map_err(fatal)?;
        Ok(Response::new(proto::InstallSnapshotReply {
            ballot: Some(response.vote.into()),
        }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        let request = request.into_inner();
        let member = self.member(&request.cluster_id, request.to)?;
        let index = confirmed_index(member.raft())
            .await
            .map_err(|error| wire::status_from_error(&error))?;
        Ok(Response::new(proto::ReadIndexReply { index }))
    }

    async fn propose(&self, request: Request<proto::ProposeRequest>) -> Result<Response<proto::ProposeReply>, Status> {
        let request = request.into_inner();
        let member = self.member(&request.cluster_id, request.to)?;
        if !member.leads() {
            // Not passed on once more: the caller asks again when it knows who leads.
            return Err(wire::status_from_error(&KvError::NoLeader {
                reason: "the member that was asked does not lead".to_owned(),
            }));
        }
        let answers = member
            .proposals()
            .submit(request.commands)
            .await
            .map_err(|error| wire::status_from_error(&error))?;
        Ok(Response::new(proto::ProposeReply {
            answers: answers.into_iter().map(answer_to_proto).collect(),
        }))
    }
}

async fn receive(
    member: &Member,
    mut file: tokio::fs::File,
    parts: &mut Streaming<proto::SnapshotPart>,
    expected: u64,
) -> Result<(), Status> {
    use proto::snapshot_part::Part;
    let mut written = 0;
    while let Some(part) = parts.message().await? {
        let Some(Part::Data(data)) = part.part else {
            return Err(Status::invalid_argument("a snapshot has only one description"));
        };
        written += data.len() as u64;
        file.write_all(&data).await.map_err(|error| io_status(&error))?;
        member.contact().heard();
    }
    if written != expected {
        return Err(Status::data_loss(format!(
            "the snapshot has {expected} bytes, {written} arrived"
        )));
    }
    file.sync_all().await.map_err(|error| io_status(&error))
}

/// Gives an entry memory of its own. Otherwise the window would keep the whole buffer of the call, for as
/// long as it keeps the smallest value out of it.
fn compact(mut entry: proto::Entry) -> proto::Entry {
    if let Some(proto::entry::Payload::Commands(commands)) = &mut entry.payload {
        *commands = bytes::Bytes::copy_from_slice(commands);
    }
    entry
}

fn append_reply(response: AppendEntriesResponse<MemberId>) -> proto::AppendReply {
    use proto::append_reply::Outcome;
    let mut reply = proto::AppendReply::default();
    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Success,
        AppendEntriesResponse::PartialSuccess(matching) => {
            reply.matching = matching.map(proto::LogId::from);
            Outcome::Partial
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict,
        AppendEntriesResponse::HigherVote(ballot) => {
            reply.ballot = Some(ballot.into());
            Outcome::HigherBallot
        }
    };
    reply.set_outcome(outcome);
    reply
}

fn malformed(error: CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn io_status(error: &std::io::Error) -> Status {
    Status::internal(format!("the snapshot cannot be stored: {error}"))
}

fn snapshot_status(error: SnapshotError) -> Status {
    Status::internal(error.to_string())
}

fn raft_error(error: RaftError<MemberId>) -> Status {
    match error {
        RaftError::Fatal(error) => fatal(error),
        RaftError::APIError(never) => match never {},
    }
}

fn fatal(error: Fatal<MemberId>) -> Status {
    Status::unavailable(format!("this member has stopped: {error}"))
}
