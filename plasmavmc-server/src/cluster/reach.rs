//! What other members answer: that they serve, and since when they have listened.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use chainfire::node::Node;
use chainfire::proto::StatusRequest;
use chainfire::proto::cluster_client::ClusterClient;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::node::ListeningRequest;
use plasmavmc_proto::node::node_client::NodeClient;
use plasmavmc_types::Address;

use crate::control::OtherMembers;

/// A member that takes longer is of no use to a quorum.
const ANSWERS_WITHIN: Duration = Duration::from_millis(700);

/// The cluster addresses of all witnesses.
pub fn witnesses(view: &ClusterView) -> Vec<String> {
    let records = view.hosts.values().filter_map(|host| host.record.as_ref());
    let witnesses = records.filter(|record| record.value.is_witness());
    witnesses
        .filter_map(|record| Some(record.value.cluster_address()?.to_string()))
        .collect()
}

/// Those of these members that serve now.
pub async fn answering(node: &Node, addresses: &[String]) -> BTreeSet<String> {
    let asked: FuturesUnordered<_> = addresses
        .iter()
        .map(|address| async move { serves(node, address).await.then(|| address.clone()) })
        .collect();
    asked.filter_map(std::future::ready).collect().await
}

async fn serves(node: &Node, address: &str) -> bool {
    let Ok(member) = node.member() else {
        return false;
    };
    let Ok(channel) = member.peers().channel(address) else {
        return false;
    };
    let mut client = ClusterClient::new(channel);
    let status = tokio::time::timeout(ANSWERS_WITHIN, client.status(StatusRequest {})).await;
    // One whose store is not open answers as well, and says so.
    matches!(status, Ok(Ok(status)) if status.get_ref().cluster_id == member.cluster_id())
}

/// The other members, over the connections of the store.
#[derive(Debug)]
pub struct Peers {
    pub node: Node,
}

#[async_trait]
impl OtherMembers for Peers {
    /// A server that does not know the call yet answers as one that does not know since when.
    async fn listens_since(&self, address: &Address) -> Option<u64> {
        let member = self.node.member().ok()?;
        let channel = member.peers().channel(address.as_str()).ok()?;
        let answer = NodeClient::new(channel).listening(ListeningRequest {}).await.ok()?;
        let answer = answer.into_inner();
        // Revisions of another cluster say nothing of this one.
        let is_ours = answer.cluster_id == member.cluster_id();
        answer.since_revision.filter(|_| is_ours)
    }
}
