//! `chainfire.Cluster` over a [`Node`]. What changes the membership is passed on to the leader, once.

use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::ServerState;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::kv::KvError;
use crate::node::membership::{self, MembershipError};
use crate::node::{Member, Node};
use crate::proto::cluster_client::ClusterClient;
use crate::proto::{self, cluster_server};
use crate::raft::parts::chunks;
use crate::raft::types::{MemberId, Membership, Peer};
use crate::state::{Answer, FEATURE_LEVEL};
use crate::wire;

/// Marks a call that a member passed on: the next one must lead, or refuse.
const PASSED_ON: &str = "chainfire-passed-on";

/// The service `chainfire.Cluster`.
#[derive(Debug, Clone)]
pub struct ClusterService {
    node: Node,
}

impl ClusterService {
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    fn member(&self) -> Result<std::sync::Arc<Member>, Status> {
        self.node.member().map_err(|error| wire::status_from_error(&error))
    }
}

/// Where a call goes on: here, or at the leader.
enum Route<T> {
    Here(T),
    There(Box<ClusterClient<Channel>>, Request<T>),
}

fn route<T>(member: &Member, request: Request<T>) -> Result<Route<T>, Status> {
    if member.leads() {
        return Ok(Route::Here(request.into_inner()));
    }
    let no_leader = || wire::status_from_error(&member.no_leader());
    if request.metadata().contains_key(PASSED_ON) {
        return Err(no_leader());
    }
    let (_, address) = member.leader().ok_or_else(no_leader)?;
    let client = ClusterClient::new(member.peers().channel(&address)?);
    let mut passed_on = Request::new(request.into_inner());
    passed_on
        .metadata_mut()
        .insert(PASSED_ON, MetadataValue::from_static("1"));
    Ok(Route::There(Box::new(client), passed_on))
}

fn refuse(error: MembershipError) -> Status {
    let code = match &error {
        MembershipError::Kv(error) => return wire::status_from_error(error),
        MembershipError::Unknown { .. } => Code::NotFound,
        MembershipError::BadAddress { .. } => Code::InvalidArgument,
        MembershipError::AlreadyVoter { .. } | MembershipError::AddressTaken { .. } => Code::AlreadyExists,
        MembershipError::UnderWay => Code::Aborted,
        MembershipError::Behind { .. }
        | MembershipError::NoQuorum { .. }
        | MembershipError::LastVoter { .. }
        | MembershipError::TooOld { .. }
        | MembershipError::OtherCluster { .. } => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

fn members_of(membership: &Membership) -> Vec<proto::Member> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, peer)| proto::Member {
            id: *id,
            name: peer.name.clone(),
            address: peer.address.clone(),
            voter: voters.contains(id),
        })
        .collect()
}

fn state_name(state: ServerState) -> &'static str {
    match state {
        ServerState::Learner => "learner",
        ServerState::Follower => "follower",
        ServerState::Candidate => "candidate",
        ServerState::Leader => "leader",
        ServerState::Shutdown => "stopped",
    }
}

/// Why a running member serves no writes, or nothing.
fn problem_of(member: &Member, metrics: &openraft::RaftMetrics<MemberId, Peer>) -> String {
    let silent = metrics.millis_since_quorum_ack.map(std::time::Duration::from_millis);
    match metrics.current_leader {
        None => "no leader is known: is a majority of the voters running and reachable?".to_owned(),
        Some(id) if id == member.id() && silent.is_some_and(|silent| silent > member.timing().lease * 2) => {
            "no quorum answers this leader: is a majority of the voters running and reachable?".to_owned()
        }
        Some(_) => String::new(),
    }
}

fn status_of(node: &Node, member: &Member) -> proto::StatusResponse {
    let boundary = member.state().boundary();
    let compacted_revision = member.state().floor();
    let members = members_of(&member.membership());
    let (leader_id, leader_address) = member.leader().unwrap_or_default();
    let metrics = member.raft().metrics();
    let metrics = metrics.borrow();
    let index = |id: Option<crate::raft::types::LogId>| id.map_or(0, |id| id.index);
    proto::StatusResponse {
        cluster_id: member.cluster_id().to_owned(),
        member: Some(
            members
                .iter()
                .find(|other| other.id == member.id())
                .cloned()
                .unwrap_or(proto::Member {
                    id: member.id(),
                    name: node.options().name.clone(),
                    address: node.options().advertise.clone(),
                    voter: false,
                }),
        ),
        leader_id,
        leader_address,
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(boundary.applied),
        applied_index: index(boundary.applied),
        snapshot_index: index(metrics.snapshot),
        purged_index: index(metrics.purged),
        revision: boundary.revision,
        compacted_revision,
        feature_level: boundary.settings.feature_level,
        state: state_name(metrics.state).to_owned(),
        members,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        problem: problem_of(member, &metrics),
        repaired: member.repaired().unwrap_or_default().to_owned(),
        matched_index: metrics
            .replication
            .iter()
            .flatten()
            .map(|(id, matched)| (*id, index(*matched)))
            .collect(),
        keys: boundary.keys,
        state_digest: boundary.digest.to_bytes(),
        known_feature_level: FEATURE_LEVEL,
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for ClusterService {
    type BackupStream = BoxStream<'static, Result<proto::BackupChunk, Status>>;

    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::StatusResponse>, Status> {
        let status = match self.node.member() {
            Ok(member) => status_of(&self.node, &member),
            Err(problem) => proto::StatusResponse {
                member: Some(proto::Member {
                    name: self.node.options().name.clone(),
                    address: self.node.options().advertise.clone(),
                    ..proto::Member::default()
                }),
                state: "down".to_owned(),
                known_feature_level: FEATURE_LEVEL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                problem: problem.to_string(),
                ..proto::StatusResponse::default()
            },
        };
        Ok(Response::new(status))
    }

    async fn member_list(
        &self,
        _: Request<proto::MemberListRequest>,
    ) -> Result<Response<proto::MemberListResponse>, Status> {
        let members = members_of(&self.member()?.membership());
        Ok(Response::new(proto::MemberListResponse { members }))
    }

    async fn member_add(
        &self,
        request: Request<proto::MemberAddRequest>,
    ) -> Result<Response<proto::MemberAddResponse>, Status> {
        let member = self.member()?;
        let request = match route(&member, request)? {
            Route::Here(request) => request,
            Route::There(mut leader, request) => return leader.member_add(request).await,
        };
        let place = membership::add(&member, &request).await.map_err(refuse)?;
        Ok(Response::new(proto::MemberAddResponse {
            cluster_id: member.cluster_id().to_owned(),
            member_id: place.id,
            members: members_of(&member.membership()),
            replaces: place.replaces.unwrap_or(0),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<proto::MemberPromoteRequest>,
    ) -> Result<Response<proto::MemberPromoteResponse>, Status> {
        let member = self.member()?;
        let request = match route(&member, request)? {
            Route::Here(request) => request,
            Route::There(mut leader, request) => return leader.member_promote(request).await,
        };
        membership::promote(&member, request.member_id).await.map_err(refuse)?;
        Ok(Response::new(proto::MemberPromoteResponse {
            members: members_of(&member.membership()),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<proto::MemberRemoveRequest>,
    ) -> Result<Response<proto::MemberRemoveResponse>, Status> {
        let member = self.member()?;
        let request = match route(&member, request)? {
            Route::Here(request) => request,
            Route::There(mut leader, request) => return leader.member_remove(request).await,
        };
        membership::remove(&member, request.member_id).await.map_err(refuse)?;
        Ok(Response::new(proto::MemberRemoveResponse {
            members: members_of(&member.membership()),
        }))
    }

    async fn member_replace(
        &self,
        request: Request<proto::MemberReplaceRequest>,
    ) -> Result<Response<proto::MemberReplaceResponse>, Status> {
        let member = self.member()?;
        let request = match route(&member, request)? {
            Route::Here(request) => request,
            Route::There(mut leader, request) => return leader.member_replace(request).await,
        };
        membership::replace(&member, request.dead_id, request.learner_id)
            .await
            .map_err(refuse)?;
        Ok(Response::new(proto::MemberReplaceResponse {
            members: members_of(&member.membership()),
        }))
    }

    async fn set_feature_level(
        &self,
        request: Request<proto::SetFeatureLevelRequest>,
    ) -> Result<Response<proto::SetFeatureLevelResponse>, Status> {
        let member = self.member()?;
        let request = match route(&member, request)? {
            Route::Here(request) => request,
            Route::There(mut leader, request) => return leader.set_feature_level(request).await,
        };
        if request.level > FEATURE_LEVEL {
            return Err(Status::failed_precondition(format!(
                "the leader knows feature levels up to {FEATURE_LEVEL}: upgrade every member first"
            )));
        }
        membership::all_know_level(&member, request.level)
            .await
            .map_err(refuse)?;
        let command = proto::command::Command::SetLevel(proto::SetLevel { level: request.level });
        match member.proposals().submit_one(command).await {
            Ok(Answer::Level(level)) => Ok(Response::new(proto::SetFeatureLevelResponse { level })),
            Ok(Answer::Refused(reason)) => Err(Status::failed_precondition(reason)),
            Ok(other) => Err(Status::internal(format!("a level was answered with {other:?}"))),
            Err(error) => Err(wire::status_from_error(&error)),
        }
    }

    async fn trigger_snapshot(
        &self,
        _: Request<proto::TriggerSnapshotRequest>,
    ) -> Result<Response<proto::TriggerSnapshotResponse>, Status> {
        let member = self.member()?;
        let snapshot_index = member
            .take_snapshot()
            .await
            .map_err(|error| wire::status_from_error(&error))?;
        Ok(Response::new(proto::TriggerSnapshotResponse { snapshot_index }))
    }

    async fn backup(&self, _: Request<proto::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let member = self.member()?;
        // What was acknowledged before the call must be in it.
        member
            .reads()
            .linearize()
            .await
            .map_err(|error| wire::status_from_error(&error))?;
        let (state, snapshots) = (member.state().clone(), member.snapshots().clone());
        let file = tokio::task::spawn_blocking(move || snapshots.create_unnamed(&state))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| {
                wire::status_from_error(&KvError::Unavailable {
                    reason: error.to_string(),
                })
            })?;
        Ok(Response::new(
            chunks(file).map(|data| Ok(proto::BackupChunk { data })).boxed(),
        ))
    }
}
