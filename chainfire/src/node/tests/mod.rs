//! The conformance suite on the replicated store: one member in this process, and three over gRPC.

mod life;
mod recover;
mod tidings;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Member, Node, NodeOptions, Start, Store};
use crate::client::{Client, ClientOptions};
use crate::kv::conformance::{Compactable, PATIENCE, Subject, differential};
use crate::kv::memory::MemoryKv;
use crate::kv::{KvError, Limits, Revision};
use crate::metrics::Metrics;
use crate::raft::timing::Timing;
use crate::service::Server;

fn options(folder: &Path, advertise: &str, start: Start, limits: Limits) -> NodeOptions {
    NodeOptions {
        folder: folder.to_owned(),
        name: advertise.to_owned(),
        advertise: advertise.to_owned(),
        start,
        limits,
        timing: Timing::default(),
        disk_reserve_bytes: 0,
    }
}

async fn start_node(options: NodeOptions) -> Node {
    let runtime = tokio::runtime::Handle::current();
    Node::start(options, Arc::new(Metrics::default()), runtime)
        .await
        .expect("a node")
}

async fn serving(node: &Node) -> Arc<Member> {
    let mut phase = node.phase();
    let serving = phase.wait_for(|phase| matches!(phase, super::Phase::Serving(_)));
    tokio::time::timeout(PATIENCE, serving)
        .await
        .expect("serving in time")
        .expect("a running supervisor");
    node.member().expect("a member")
}

/// One member, used through the store that a program embeds.
async fn alone(limits: Limits) -> Subject {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start_node(options(folder.path(), "127.0.0.1:1", Start::Found, limits)).await;
    serving(&node).await;
    Subject::new(Arc::new(node.kv()), limits)
        .with_compaction(Arc::new(node.kv()))
        .within((folder, node))
}

async fn in_memory(limits: Limits) -> Subject {
    Subject::new(Arc::new(MemoryKv::new(limits)), limits)
}

#[async_trait]
impl Compactable for Store {
    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.member()?.state().compact(revision)
    }
}

crate::kv_conformance!(alone);
crate::kv_compaction_conformance!(alone);

#[test]
fn the_replicated_store_and_the_one_in_memory_do_not_differ() {
    differential(24, in_memory, alone);
}

/// Three members that vote, each with its server.
struct Cluster {
    members: Vec<(Node, Server)>,
    _folders: Vec<tempfile::TempDir>,
}

impl Cluster {
    async fn start(limits: Limits) -> Self {
        let mut members = Vec::new();
        let mut folders = Vec::new();
        let mut first = String::new();
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("a folder");
            let address = free_address();
            let how = if first.is_empty() {
                first.clone_from(&address);
                Start::Found
            } else {
                Start::Join {
                    via: vec![first.clone()],
                    as_learner: false,
                }
            };
            let node = start_node(options(folder.path(), &address, how, limits)).await;
            let server = Server::start(node.clone(), &address).await.expect("a server");
            members.push((node, server));
            folders.push(folder);
        }
        let cluster = Self {
            members,
            _folders: folders,
        };
        for (node, _) in &cluster.members {
            let member = serving(node).await;
            let mut known = member.raft().metrics();
            let voting = known.wait_for(|metrics| {
                metrics.current_leader.is_some()
                    && metrics.membership_config.membership().get_joint_config().len() == 1
                    && metrics.membership_config.voter_ids().count() == 3
            });
            tokio::time::timeout(PATIENCE, voting)
                .await
                .expect("three voters")
                .expect("running");
        }
        cluster
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// Three members, used through a client that knows one follower.
async fn through_a_follower(limits: Limits) -> Subject {
    let cluster = Cluster::start(limits).await;
    let (follower, _) = cluster.members.last().expect("three members");
    let client = Client::new([&follower.options().advertise], ClientOptions::default()).expect("a client");
    Subject::new(Arc::new(client), limits).within(cluster)
}

mod three_members {
    use super::through_a_follower;

    crate::kv_conformance!(through_a_follower);
}
