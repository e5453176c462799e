//! Whether the members answer that send no beats.

use std::collections::BTreeSet;
use std::time::Duration;

use chainfire::node::Node;
use chainfire::proto::StatusRequest;
use chainfire::proto::cluster_client::ClusterClient;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use plasmavmc_core::view::ClusterView;

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
