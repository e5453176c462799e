//! Taking a place in a cluster: asking for an id, founding, and becoming a voter.
//!
//! The member that joins drives every step itself and may repeat any of them, so that a crash of either
//! side anywhere leaves nothing half done.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::identity::{self, Identity};
use super::member::Member;
use super::{NodeOptions, StartError};
use crate::proto::{self, cluster_client::ClusterClient};
use crate::raft::types::Peer;
use crate::state::FEATURE_LEVEL;
use crate::transport;

/// How often a step that was refused is tried again.
const STEP_EVERY: Duration = Duration::from_millis(300);
/// How long a new member looks for somebody who takes it in.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// A request for a place.
#[derive(Debug)]
pub struct Ask<'a> {
    pub name: &'a str,
    pub advertise: &'a str,
    /// There was a place at this address, and what was stored there is lost.
    pub lost_store: bool,
    pub cluster_id: &'a str,
}

/// Asks these members for a place until one gives it, one refuses, or the time is over: whoever starts
/// several members at once need not care which is first.
pub async fn ask_for_place(via: &[String], ask: &Ask<'_>) -> Result<Identity, StartError> {
    let deadline = Instant::now() + JOIN_DEADLINE;
    loop {
        let mut reasons = Vec::new();
        for address in via {
            match ask_one(address, ask).await {
                Ok(reply) => {
                    return Ok(Identity {
                        cluster_id: reply.cluster_id,
                        member_id: reply.member_id,
                        wants_vote: true,
                        replaces: Some(reply.replaces).filter(|id| *id != 0),
                        founded: false,
                    });
                }
                Err(status) if is_refusal(&status) => {
                    return Err(StartError::Join {
                        reason: format!("{address}: {}", status.message()),
                    });
                }
                Err(status) => reasons.push(format!("{address}: {}", status.message())),
            }
        }
        let reason = reasons.join("; ");
        if Instant::now() + STEP_EVERY >= deadline {
            return Err(StartError::Join { reason });
        }
        tracing::info!(%reason, "no place yet, asking again");
        tokio::time::sleep(STEP_EVERY).await;
    }
}

/// Whether asking again would get the same answer.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition
    )
}

async fn ask_one(address: &str, ask: &Ask<'_>) -> Result<proto::MemberAddResponse, Status> {
    let channel = transport::connect(address, &transport::ConnectOptions::default())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut request = tonic::Request::new(proto::MemberAddRequest {
        name: ask.name.to_owned(),
        address: ask.advertise.to_owned(),
        cluster_id: ask.cluster_id.to_owned(),
        lost_store: ask.lost_store,
    });
    request.set_timeout(ASK_DEADLINE);
    ClusterClient::new(channel)
        .member_add(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Does what is left to do until this member is what it should be: the founder founds, a joiner becomes a
/// voter. Ends when that is done.
pub async fn settle(member: Arc<Member>, options: NodeOptions, identity_file: PathBuf) {
    let identity = member.identity().clone();
    if identity.founded && identity.member_id == 1 {
        found(&member, &options).await;
        return;
    }
    if !identity.wants_vote {
        return;
    }
    loop {
        let membership = member.membership();
        let gone = identity
            .replaces
            .is_none_or(|old| membership.voter_ids().all(|id| id != old));
        if membership.voter_ids().any(|id| id == identity.member_id) && gone {
            break;
        }
        if let Err(reason) = ask_for_vote(&member, &identity).await {
            tracing::debug!(%reason, "not a voter yet");
        }
        tokio::time::sleep(STEP_EVERY).await;
    }
    let settled = Identity {
        wants_vote: false,
        replaces: None,
        founded: true,
        ..identity
    };
    if let Err(error) = identity::write(&identity_file, &settled) {
        // It will find itself a voter at the next start, and write this then.
        tracing::warn!(%error, "the identity cannot be written");
    }
    tracing::info!(id = settled.member_id, "this member votes");
}

async fn ask_for_vote(member: &Member, identity: &Identity) -> Result<(), String> {
    let (_, address) = member.leader().ok_or("no leader is known")?;
    let channel = member.peers().channel(&address).map_err(|status| status.to_string())?;
    let mut client = ClusterClient::new(channel);
    let outcome = match identity.replaces {
        Some(dead_id) => {
            let mut request = tonic::Request::new(proto::MemberReplaceRequest {
                dead_id,
                learner_id: identity.member_id,
            });
            request.set_timeout(ASK_DEADLINE);
            client.member_replace(request).await.map(drop)
        }
        None => {
            let mut request = tonic::Request::new(proto::MemberPromoteRequest {
                member_id: identity.member_id,
            });
            request.set_timeout(ASK_DEADLINE);
            client.member_promote(request).await.map(drop)
        }
    };
    outcome.map_err(|status| status.message().to_owned())
}

async fn found(member: &Member, options: &NodeOptions) {
    let me = Peer {
        name: options.name.clone(),
        address: options.advertise.clone(),
    };
    if let Ok(false) = member.raft().is_initialized().await {
        let members = std::collections::BTreeMap::from([(member.id(), me)]);
        if let Err(error) = member.raft().initialize(members).await {
            tracing::error!(%error, "the cluster cannot be founded");
            return;
        }
    }
    while member.state().boundary().settings.cluster_id.is_empty() {
        let command = proto::command::Command::Found(proto::Found {
            cluster_id: member.cluster_id().to_owned(),
            level: FEATURE_LEVEL,
        });
        if let Err(error) = member.proposals().submit_one(command).await {
            tracing::debug!(%error, "not founded yet");
            tokio::time::sleep(STEP_EVERY).await;
        }
    }
}
