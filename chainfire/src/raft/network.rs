//! Calls to other members. One connection per address, shared by everything; a connection that fails is
//! dropped, since after a partition TCP may sit out many seconds before it tries again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::commit_notice::CommitNotice;
use super::contact::LeaderContact;
use super::parts::parts;
use super::types::{Ballot, LogId, MemberId, Peer, TypeConfig};
use crate::kv::KvError;
use crate::log::SyncGate;
use crate::metrics::RaftMetrics;
use crate::proto::{self, raft_client::RaftClient};
use crate::transport::{self, Wire};
use crate::wire;

/// The largest message between members: an entry is at most 4 MiB, a call carries some of them.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// A connection younger than this is not dropped again for one more failure.
const RECONNECT_EVERY: Duration = Duration::from_millis(200);
/// How long a message waits for this member's own disk before it goes without word of a commit.
const COMMIT_SYNC_WAIT: Duration = Duration::from_millis(50);
const CONNECT_DEADLINE: Duration = Duration::from_millis(500);

type AppendError = RPCError<MemberId, Peer, RaftError<MemberId>>;

/// The connections to other members.
#[derive(Debug)]
pub struct Peers {
    cluster_id: String,
    connections: Mutex<HashMap<String, Connection>>,
    runtime: tokio::runtime::Handle,
}

/// What there is to one address: a channel for rare calls of any service, and a wire for Raft's own.
#[derive(Debug)]
struct Connection {
    channel: Channel,
    wire: Arc<OnceCell<Wire>>,
    made: Instant,
}

impl Peers {
    /// Connections do their work on `runtime`.
    pub fn new(cluster_id: String, runtime: tokio::runtime::Handle) -> Self {
        Self {
            cluster_id,
            connections: Mutex::default(),
            runtime,
        }
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// A connection for calls of any service at an address.
    pub fn channel(&self, address: &str) -> Result<Channel, Status> {
        Ok(self.connection(address)?.0)
    }

    fn connection(&self, address: &str) -> Result<(Channel, Arc<OnceCell<Wire>>), Status> {
        let mut connections = self.connections.lock();
        if let Some(connection) = connections.get(address) {
            return Ok((connection.channel.clone(), Arc::clone(&connection.wire)));
        }
        let _inside = self.runtime.enter();
        let options = transport::ConnectOptions {
            connect_timeout: CONNECT_DEADLINE,
            ..transport::ConnectOptions::default()
        };
        let channel = transport::connect(address, &options).map_err(|error| Status::unavailable(error.to_string()))?;
        let wire = Arc::new(OnceCell::new());
        connections.insert(
            address.to_owned(),
            Connection {
                channel: channel.clone(),
                wire: Arc::clone(&wire),
                made: Instant::now(),
            },
        );
        Ok((channel, wire))
    }

    /// A client of Raft's own calls. Nothing was sent if this fails.
    async fn client(&self, address: &str) -> Result<RaftClient<Wire>, Status> {
        let (_, wire) = self.connection(address)?;
        let runtime = &self.runtime;
        let connected = wire
            .get_or_try_init(|| async {
                let address = address.to_owned();
                runtime
                    .spawn(async move { Wire::open(&address, CONNECT_DEADLINE).await })
                    .await
                    .map_err(|error| not_sent(&error))?
                    .map_err(|error| not_sent(&error))
            })
            .await
            .inspect_err(|_| self.suspect(address))?;
        Ok(RaftClient::new(connected.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Looks at how a call ended: a dead connection is replaced by the next call.
    fn judge<T>(&self, address: &str, outcome: Result<T, Status>) -> Result<T, Status> {
        if let Err(status) = &outcome
            && matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
            )
        {
            self.suspect(address);
        }
        outcome
    }

    fn suspect(&self, address: &str) {
        let mut connections = self.connections.lock();
        if connections
            .get(address)
            .is_some_and(|connection| connection.made.elapsed() > RECONNECT_EVERY)
        {
            connections.remove(address);
        }
    }

    async fn bounded<T>(
        &self,
        address: &str,
        deadline: Instant,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let outcome = match tokio::time::timeout_at(deadline, call).await {
            Ok(outcome) => outcome.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("{address} does not answer"))),
        };
        self.judge(address, outcome)
    }

    pub async fn propose(
        &self,
        to: MemberId,
        address: &str,
        commands: Vec<proto::Command>,
        deadline: Instant,
    ) -> Result<proto::ProposeReply, Status> {
        let mut client = self.client(address).await?;
        let request = proto::ProposeRequest {
            cluster_id: self.cluster_id.clone(),
            to,
            commands,
        };
        self.bounded(address, deadline, client.propose(request)).await
    }

    pub async fn read_index(&self, to: MemberId, address: &str, deadline: Instant) -> Result<u64, Status> {
        let mut client = self.client(address).await?;
        let request = proto::ReadIndexRequest {
            cluster_id: self.cluster_id.clone(),
            to,
        };
        let reply = self.bounded(address, deadline, client.read_index(request)).await?;
        Ok(reply.index)
    }

    pub async fn pre_vote(
        &self,
        to: MemberId,
        address: &str,
        mut request: proto::PreVoteRequest,
        deadline: Instant,
    ) -> Result<proto::PreVoteReply, Status> {
        let mut client = self.client(address).await?;
        request.cluster_id.clone_from(&self.cluster_id);
        request.to = to;
        self.bounded(address, deadline, client.pre_vote(request)).await
    }
}

/// What openraft makes its connections with.
#[derive(Debug, Clone)]
pub struct Network {
    pub peers: Arc<Peers>,
    /// No member hears of a commit before this one has synced it.
    pub gate: SyncGate,
    pub contact: Arc<LeaderContact>,
    pub metrics: Arc<RaftMetrics>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: MemberId, node: &Peer) -> PeerNetwork {
        PeerNetwork {
            peers: Arc::clone(&self.peers),
            target,
            address: node.address.clone(),
            gate: self.gate.clone(),
            contact: Arc::clone(&self.contact),
            metrics: Arc::clone(&self.metrics),
            notice: CommitNotice::default(),
        }
    }
}

/// openraft's calls to one member.
#[derive(Debug)]
pub struct PeerNetwork {
    peers: Arc<Peers>,
    target: MemberId,
    address: String,
    gate: SyncGate,
    contact: Arc<LeaderContact>,
    metrics: Arc<RaftMetrics>,
    notice: CommitNotice,
}

impl PeerNetwork {
    /// What may be called committed: a disk that is slow just now is waited for a little, and then the
    /// follower hears of it with the next message.
    async fn synced(&self, committed: Option<LogId>) -> Option<LogId> {
        let committed = committed?;
        let waiting = self.gate.wait(committed.index);
        match tokio::time::timeout(COMMIT_SYNC_WAIT, waiting).await {
            Ok(Ok(())) => Some(committed),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl RaftNetwork<TypeConfig> for PeerNetwork {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MemberId>, AppendError> {
        if self.contact.is_giving_way() {
            return Err(unreachable(Status::unavailable("this leader gives way to another")));
        }
        if let Err(carried) = self.notice.wait(&rpc, &self.gate).await {
            self.metrics.commits_carried.inc();
            return Err(RPCError::Network(NetworkError::new(&carried)));
        }
        let deadline = Instant::now() + option.hard_ttl();
        let committed = self.synced(rpc.leader_commit).await;
        let request = proto::AppendRequest {
            cluster_id: self.peers.cluster_id.clone(),
            to: self.target,
            ballot: Some(proto::Ballot::from(rpc.vote)),
            prev: rpc.prev_log_id.map(proto::LogId::from),
            entries: rpc.entries.iter().map(proto::Entry::from).collect(),
            committed: committed.map(proto::LogId::from),
        };
        let mut client = self.peers.client(&self.address).await.map_err(unreachable)?;
        let reply = self
            .peers
            .bounded(&self.address, deadline, client.append(request))
            .await
            .map_err(rpc_error)?;
        let response = append_reply(reply).map_err(|status| RPCError::Network(NetworkError::new(&status)))?;
        if matches!(response, AppendEntriesResponse::Success) {
            self.notice.told(committed);
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MemberId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MemberId>, AppendError> {
        let request = proto::VoteRequest {
            cluster_id: self.peers.cluster_id.clone(),
            to: self.target,
            ballot: Some(proto::Ballot::from(rpc.vote)),
            last: rpc.last_log_id.map(proto::LogId::from),
        };
        let mut client = self.peers.client(&self.address).await.map_err(unreachable)?;
        let deadline = Instant::now() + option.hard_ttl();
        let reply = self
            .peers
            .bounded(&self.address, deadline, client.vote(request))
            .await
            .map_err(rpc_error)?;
        Ok(VoteResponse {
            vote: Ballot::from(reply.ballot.unwrap_or_default()),
            vote_granted: reply.granted,
            last_log_id: reply.last.map(LogId::from),
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Ballot,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<MemberId>, StreamingError<TypeConfig, Fatal<MemberId>>> {
        let start = proto::SnapshotStart {
            cluster_id: self.peers.cluster_id.clone(),
            to: self.target,
            ballot: Some(proto::Ballot::from(vote)),
            last: snapshot.meta.last_log_id.map(proto::LogId::from),
            membership: Some((&snapshot.meta.last_membership).into()),
            snapshot_id: snapshot.meta.snapshot_id.clone(),
            bytes: snapshot.snapshot.bytes,
        };
        let unreachable = |status: Status| StreamingError::Unreachable(Unreachable::new(&status));
        let mut client = self.peers.client(&self.address).await.map_err(unreachable)?;
        let sending = client.install_snapshot(parts(start, *snapshot.snapshot));
        let deadline = Instant::now() + option.hard_ttl();
        let reply = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = self.peers.bounded(&self.address, deadline, sending) => reply.map_err(unreachable)?,
        };
        Ok(SnapshotResponse {
            vote: Ballot::from(reply.ballot.unwrap_or_default()),
        })
    }

    /// How long to leave a member alone that cannot be reached.
    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}

fn append_reply(reply: proto::AppendReply) -> Result<AppendEntriesResponse<MemberId>, Status> {
    use proto::append_reply::Outcome;
    let matching: Option<LogId> = reply.matching.map(LogId::from);
    match Outcome::try_from(reply.outcome) {
        Ok(Outcome::Success) => Ok(AppendEntriesResponse::Success),
        Ok(Outcome::Partial) => Ok(AppendEntriesResponse::PartialSuccess(matching)),
        Ok(Outcome::Conflict) => Ok(AppendEntriesResponse::Conflict),
        Ok(Outcome::HigherBallot) => Ok(AppendEntriesResponse::HigherVote(Ballot::from(
            reply.ballot.unwrap_or_default(),
        ))),
        Err(_) => Err(Status::internal("the member answered with an unknown outcome")),
    }
}

/// No connection: the call certainly did not happen, which a caller may rely on.
fn not_sent(error: &impl std::error::Error) -> Status {
    wire::status_from_error(&KvError::Unavailable {
        reason: error.to_string(),
    })
}

fn unreachable(status: Status) -> AppendError {
    RPCError::Unreachable(Unreachable::new(&status))
}

/// openraft backs off from the unreachable and tries again at once after any other failure.
fn rpc_error(status: Status) -> AppendError {
    match status.code() {
        Code::DeadlineExceeded => RPCError::Network(NetworkError::new(&status)),
        _ => unreachable(status),
    }
}
