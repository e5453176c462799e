//! Changing who belongs to the cluster. Carried out on the leader, one change at a time; a change that
//! would leave no quorum is refused before it begins, since it could not be undone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::Instant;

use super::member::Member;
use crate::kv::KvError;
use crate::proto;
use crate::raft::types::{MemberId, Membership, Peer};
use crate::state::Answer;

/// A learner may be promoted when it lacks no more entries than this.
const CAUGHT_UP_WITHIN: u64 = 200;
const PROBE_DEADLINE: Duration = Duration::from_millis(700);
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("there is no member {id}; 'chainfire member list' shows who there is")]
    Unknown { id: MemberId },
    #[error("member {id} votes already")]
    AlreadyVoter { id: MemberId },
    #[error("member {id} is a learner that has not caught up: it lacks {behind} entries; wait and try again")]
    Behind { id: MemberId, behind: u64 },
    #[error("refused: {change} would leave the voters {voters:?}, of which only {answering:?} answer: no quorum")]
    NoQuorum {
        change: String,
        voters: Vec<MemberId>,
        answering: Vec<MemberId>,
    },
    #[error("refused: member {id} is the last voter")]
    LastVoter { id: MemberId },
    #[error("{address} belongs to voter {id}: remove or replace that one first")]
    AddressTaken { address: String, id: MemberId },
    #[error("the address {address:?} is not HOST:PORT: {reason}")]
    BadAddress { address: String, reason: String },
    #[error("member {id} cannot apply feature level {level} ({reason}): upgrade every member first")]
    TooOld { id: MemberId, level: u32, reason: String },
    #[error("this is cluster {ours}, the request is meant for {theirs}")]
    OtherCluster { ours: String, theirs: String },
    #[error("another change of membership is under way; try again")]
    UnderWay,
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// A place in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub id: MemberId,
    /// The voter whose place it is, under an id that must never vote again.
    pub replaces: Option<MemberId>,
}

/// Adds a learner. A repeated request gets the same place.
pub async fn add(member: &Member, request: &proto::MemberAddRequest) -> Result<Place, MembershipError> {
    check_request(member, request)?;
    let membership = member.membership();
    let mut replaces = None;
    let mut stale = None;
    for (id, _) in membership.nodes().filter(|(_, peer)| peer.address == request.address) {
        let votes = membership.voter_ids().any(|voter| voter == *id);
        match (votes, request.lost_store) {
            (true, true) => replaces = Some(*id),
            (true, false) => {
                return Err(MembershipError::AddressTaken {
                    address: request.address.clone(),
                    id: *id,
                });
            }
            (false, _) => stale = Some(*id),
        }
    }
    if let Some(id) = stale {
        if matched(member, id) == 0 {
            // The same machine asks again; it has not used that id for anything yet.
            return Ok(Place { id, replaces });
        }
        bounded(
            member
                .raft()
                .change_membership(ChangeMembers::RemoveNodes([id].into()), true),
        )
        .await?;
    }
    let id = allot(member).await?;
    let peer = Peer {
        name: request.name.clone(),
        address: request.address.clone(),
    };
    bounded(member.raft().add_learner(id, peer, false)).await?;
    Ok(Place { id, replaces })
}

fn check_request(member: &Member, request: &proto::MemberAddRequest) -> Result<(), MembershipError> {
    if !request.cluster_id.is_empty() && request.cluster_id != member.cluster_id() {
        return Err(MembershipError::OtherCluster {
            ours: member.cluster_id().to_owned(),
            theirs: request.cluster_id.clone(),
        });
    }
    request
        .address
        .parse::<crate::transport::Address>()
        .map_err(|error| MembershipError::BadAddress {
            address: request.address.clone(),
            reason: error.to_string(),
        })?;
    Ok(())
}

async fn allot(member: &Member) -> Result<MemberId, MembershipError> {
    let command = proto::command::Command::AllotMember(proto::AllotMember {
        request_id: uuid::Uuid::new_v4().to_string(),
    });
    match member.proposals().submit_one(command).await? {
        Answer::MemberId(id) => Ok(id),
        other => Err(MembershipError::Kv(KvError::Internal {
            reason: format!("a request for an id was answered with {other:?}"),
        })),
    }
}

/// Makes a learner a voter.
pub async fn promote(member: &Member, id: MemberId) -> Result<(), MembershipError> {
    let membership = member.membership();
    known(&membership, id)?;
    if membership.voter_ids().any(|voter| voter == id) {
        return Err(MembershipError::AlreadyVoter { id });
    }
    caught_up(member, id)?;
    let voters = with(&voters(&membership), Some(id), None);
    quorum_answers(member, &voters, &format!("promoting member {id}")).await?;
    bounded(
        member
            .raft()
            .change_membership(ChangeMembers::AddVoterIds([id].into()), true),
    )
    .await
}

/// Takes a member out.
pub async fn remove(member: &Member, id: MemberId) -> Result<(), MembershipError> {
    let membership = member.membership();
    known(&membership, id)?;
    let before = voters(&membership);
    if !before.contains(&id) {
        return bounded(
            member
                .raft()
                .change_membership(ChangeMembers::RemoveNodes([id].into()), true),
        )
        .await;
    }
    if before.len() == 1 {
        return Err(MembershipError::LastVoter { id });
    }
    let after = with(&before, None, Some(id));
    quorum_answers(member, &after, &format!("removing member {id}")).await?;
    bounded(
        member
            .raft()
            .change_membership(ChangeMembers::RemoveVoters([id].into()), false),
    )
    .await
}

/// Takes a dead voter out and a learner in, in one change.
pub async fn replace(member: &Member, dead: MemberId, learner: MemberId) -> Result<(), MembershipError> {
    let membership = member.membership();
    known(&membership, learner)?;
    let before = voters(&membership);
    if before.contains(&learner) && membership.get_node(&dead).is_none() {
        return Ok(());
    }
    caught_up(member, learner)?;
    let after = with(&before, Some(learner), Some(dead));
    quorum_answers(member, &after, &format!("replacing member {dead} by {learner}")).await?;
    let change = ChangeMembers::ReplaceAllVoters(after);
    bounded(member.raft().change_membership(change, false)).await
}

/// Refuses a feature level that some member does not know, or of whom it cannot be told.
pub async fn all_know_level(member: &Member, level: u32) -> Result<(), MembershipError> {
    for (id, peer) in member.membership().nodes().filter(|(id, _)| **id != member.id()) {
        let known = known_level(member, &peer.address).await;
        let reason = match known {
            Ok(known) if known >= level => continue,
            Ok(known) => format!("it knows level {known}"),
            Err(reason) => reason,
        };
        return Err(MembershipError::TooOld { id: *id, level, reason });
    }
    Ok(())
}

async fn known_level(member: &Member, address: &str) -> Result<u32, String> {
    let channel = member
        .peers()
        .channel(address)
        .map_err(|status| status.message().to_owned())?;
    let mut client = proto::cluster_client::ClusterClient::new(channel);
    let status = tokio::time::timeout(PROBE_DEADLINE, client.status(proto::StatusRequest {})).await;
    match status {
        Ok(Ok(status)) => Ok(status.into_inner().known_feature_level),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn voters(membership: &Membership) -> BTreeSet<MemberId> {
    membership.voter_ids().collect()
}

fn with(before: &BTreeSet<MemberId>, added: Option<MemberId>, removed: Option<MemberId>) -> BTreeSet<MemberId> {
    before
        .iter()
        .copied()
        .chain(added)
        .filter(|id| Some(*id) != removed)
        .collect()
}

fn known(membership: &Membership, id: MemberId) -> Result<(), MembershipError> {
    match membership.get_node(&id) {
        Some(_) => Ok(()),
        None => Err(MembershipError::Unknown { id }),
    }
}

/// The last index that a member is known to have.
fn matched(member: &Member, id: MemberId) -> u64 {
    let metrics = member.raft().metrics();
    let metrics = metrics.borrow();
    let progress = metrics.replication.as_ref().and_then(|all| all.get(&id).copied());
    progress.flatten().map_or(0, |log_id| log_id.index)
}

fn caught_up(member: &Member, id: MemberId) -> Result<(), MembershipError> {
    let last = member.raft().metrics().borrow().last_log_index.unwrap_or(0);
    let behind = last.saturating_sub(matched(member, id));
    if behind > CAUGHT_UP_WITHIN {
        return Err(MembershipError::Behind { id, behind });
    }
    Ok(())
}

/// Asks every voter-to-be for a sign of life.
async fn quorum_answers(member: &Member, voters: &BTreeSet<MemberId>, change: &str) -> Result<(), MembershipError> {
    let membership = member.membership();
    let deadline = Instant::now() + PROBE_DEADLINE;
    let probes = voters.iter().map(|id| {
        let peers = Arc::clone(member.peers());
        let address = membership.get_node(id).map(|peer| peer.address.clone());
        async move {
            if *id == member.id() {
                return Some(*id);
            }
            let question = proto::PreVoteRequest {
                candidate: member.id(),
                ..proto::PreVoteRequest::default()
            };
            let answer = peers.pre_vote(*id, &address?, question, deadline).await;
            answer.ok().map(|_| *id)
        }
    });
    let answering: Vec<MemberId> = futures::future::join_all(probes).await.into_iter().flatten().collect();
    if answering.len() * 2 > voters.len() {
        return Ok(());
    }
    Err(MembershipError::NoQuorum {
        change: change.to_owned(),
        voters: voters.iter().copied().collect(),
        answering,
    })
}

async fn bounded<T>(
    change: impl Future<Output = Result<T, RaftError<MemberId, ClientWriteError<MemberId, Peer>>>>,
) -> Result<(), MembershipError> {
    match tokio::time::timeout(CHANGE_DEADLINE, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))))) => {
            Err(MembershipError::UnderWay)
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(MembershipError::Kv(KvError::NoLeader {
                reason: "this member no longer leads".to_owned(),
            }))
        }
        Ok(Err(error)) => Err(MembershipError::Kv(KvError::Internal {
            reason: error.to_string(),
        })),
        Err(_) => Err(MembershipError::Kv(KvError::OutcomeUnknown {
            reason: "the change of membership was not confirmed in 10 s".to_owned(),
        })),
    }
}
