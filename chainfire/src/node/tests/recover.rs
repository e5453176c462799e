//! One member, or a backup, goes on alone.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::{Cluster, Node, options, serving, start_node};
use crate::kv::conformance::PATIENCE;
use crate::kv::{Consistency, Kv, Limits, Txn};
use crate::node::{RecoverError, Start, Survivor, finish_begun};

const ADDRESS: &str = "127.0.0.1:1";

async fn put(node: &Node, key: &'static str, value: &'static str) -> u64 {
    let store = node.kv();
    tokio::time::timeout(PATIENCE, store.txn(Txn::put(key, value)))
        .await
        .expect("in time")
        .expect("a write")
        .revision
}

async fn value(node: &Node, key: &'static str) -> Option<Bytes> {
    let store = node.kv();
    let got = store.get(Bytes::from_static(key.as_bytes()), Consistency::Linearizable);
    let got = tokio::time::timeout(PATIENCE, got)
        .await
        .expect("in time")
        .expect("a read");
    got.kv.map(|kv| kv.value)
}

async fn resume(folder: &Path) -> Node {
    let node = start_node(options(folder, ADDRESS, Start::Resume, Limits::default())).await;
    serving(&node).await;
    node
}

fn changes() -> BTreeMap<Bytes, Bytes> {
    let pairs = [("changed", "2"), ("new", "3")];
    pairs
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// What was there is, but for what was changed, and it can write.
async fn check_goes_on(node: &Node, revision: u64, before: &str) {
    assert_eq!(value(node, "kept").await.as_deref(), Some(b"1".as_slice()));
    assert_eq!(value(node, "changed").await.as_deref(), Some(b"2".as_slice()));
    assert_eq!(value(node, "new").await.as_deref(), Some(b"3".as_slice()));
    assert!(put(node, "after", "4").await > revision + 1000);
    let member = node.member().expect("a member");
    assert_ne!(member.cluster_id(), before);
    assert_eq!(member.membership().voter_ids().collect::<Vec<_>>(), [member.id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_left_goes_on_as_a_cluster_of_its_own() {
    let cluster = Cluster::start(Limits::default()).await;
    let (leader, _) = &cluster.members[0];
    put(leader, "kept", "1").await;
    let revision = put(leader, "changed", "1").await;
    let before = leader.member().expect("a member").cluster_id().to_owned();
    let (left, _) = cluster.members.last().expect("three");
    value(left, "changed").await;
    let folder = left.options().folder.clone();
    left.shutdown().await;

    let survivor = Survivor::of_member(&folder, Limits::default())
        .await
        .expect("a survivor");
    assert_eq!(
        (survivor.cluster_id(), survivor.revision()),
        (before.as_str(), revision)
    );
    let answering = survivor.answering().await.expect("members");
    assert_eq!(answering.len(), 2, "{answering:?}");
    survivor.recover("left", ADDRESS, changes()).expect("recovered");

    let node = resume(&folder).await;
    check_goes_on(&node, revision, &before).await;
    assert!(node.id() > 3, "an id is never used twice");
    // And again, with what it has in its log.
    node.shutdown().await;
    let node = resume(&folder).await;
    check_goes_on(&node, revision, &before).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_was_interrupted_is_completed_and_nothing_starts_before() {
    let folder = tempfile::tempdir().unwrap();
    let node = start_node(options(folder.path(), ADDRESS, Start::Found, Limits::default())).await;
    serving(&node).await;
    put(&node, "kept", "1").await;
    let before = node.member().expect("a member").cluster_id().to_owned();
    let revision = put(&node, "changed", "1").await;
    node.shutdown().await;
    let survivor = Survivor::of_member(folder.path(), Limits::default()).await.unwrap();
    survivor.recover("left", ADDRESS, changes()).unwrap();
    // As it was just before the last step.
    let snapshots = folder.path().join("snapshots");
    let written = std::fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(written, folder.path().join("recovered.snap")).unwrap();
    let options = options(folder.path(), ADDRESS, Start::Resume, Limits::default());
    let metrics = std::sync::Arc::default();
    let error = Node::start(options, metrics, tokio::runtime::Handle::current())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("by doing it again"), "{error}");
    assert!(finish_begun(folder.path()).unwrap().is_some());
    assert!(finish_begun(folder.path()).unwrap().is_none());
    let node = resume(folder.path()).await;
    check_goes_on(&node, revision, &before).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_holds_nothing_or_something_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let error = Survivor::of_member(folder.path(), Limits::default()).await.unwrap_err();
    assert!(matches!(error, RecoverError::NoMember { .. }), "{error}");
    assert!(finish_begun(folder.path()).unwrap().is_none());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let error = Survivor::of_backup(Path::new("/nowhere"), folder.path()).unwrap_err();
    assert!(matches!(error, RecoverError::Snapshot(_)), "{error}");
}
