//! Starting, refusing to start, healing and changing members.

use crate::kv::{Consistency, Kv, Limits};
use crate::node::membership::{self, MembershipError};
use crate::node::{FolderError, Start, StartError};
use crate::state::Boundary;

use super::{Cluster, Metrics, Node, options, serving, start_node};
use std::path::Path;
use std::sync::Arc;

const ADDRESS: &str = "127.0.0.1:1";

async fn try_start(folder: &Path, start: Start) -> Result<Node, StartError> {
    let options = options(folder, ADDRESS, start, Limits::default());
    Node::start(options, Arc::new(Metrics::default()), tokio::runtime::Handle::current()).await
}

async fn refused(folder: &Path, start: Start) -> StartError {
    match try_start(folder, start).await {
        Ok(node) => {
            node.shutdown().await;
            panic!("it should have refused");
        }
        Err(error) => error,
    }
}

async fn found(folder: &Path) -> Node {
    let node = start_node(options(folder, ADDRESS, Start::Found, Limits::default())).await;
    serving(&node).await;
    node
}

#[tokio::test]
async fn a_folder_without_identity_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(folder.path(), Start::Resume).await.to_string();
    assert!(error.contains("--init") && error.contains("--join"), "{error}");
}

#[tokio::test]
async fn two_servers_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let node = found(folder.path()).await;
    let error = refused(folder.path(), Start::Resume).await;
    assert!(
        matches!(error, StartError::Folder(FolderError::Locked { .. })),
        "{error}"
    );
    node.shutdown().await;
}

#[tokio::test]
async fn a_newer_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    found(folder.path()).await.shutdown().await;
    let format = folder.path().join("FORMAT");
    std::fs::write(&format, "7\n").unwrap();
    let error = refused(folder.path(), Start::Resume).await;
    assert!(
        matches!(error, StartError::Folder(FolderError::Newer { found: 7, .. })),
        "{error}"
    );
    std::fs::write(&format, "1\n").unwrap();
    try_start(folder.path(), Start::Resume).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = found(folder.path()).await;
    for index in 0..50 {
        node.kv().put(format!("k/{index}").into(), "v".into()).await.unwrap();
    }
    let before = serving(&node).await.state().boundary();
    node.shutdown().await;
    let node = try_start(folder.path(), Start::Resume).await.unwrap();
    let member = serving(&node).await;
    let read = node.kv().get("k/49".into(), Consistency::Linearizable).await.unwrap();
    assert_eq!(read.kv.unwrap().mod_revision, 50);
    assert_eq!(member.state().boundary().digest, before.digest);
    node.shutdown().await;
}

/// Leaves 30 keys behind, some of them in a snapshot, and the state that they add up to.
async fn fill_and_stop(folder: &Path) -> Boundary {
    let node = found(folder).await;
    for index in 0..30 {
        node.kv().put(format!("k/{index}").into(), "v".into()).await.unwrap();
        if index == 20 {
            serving(&node).await.take_snapshot().await.unwrap();
        }
    }
    let boundary = serving(&node).await.state().boundary();
    node.shutdown().await;
    boundary
}

#[tokio::test]
async fn a_lost_state_is_rebuilt_from_snapshot_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let before = fill_and_stop(folder.path()).await;
    std::fs::remove_dir_all(folder.path().join("state/gen-1")).unwrap();
    std::fs::write(folder.path().join("state/CURRENT"), "garbage").unwrap();
    let node = try_start(folder.path(), Start::Resume).await.unwrap();
    let member = serving(&node).await;
    node.kv().get("k/1".into(), Consistency::Linearizable).await.unwrap();
    assert!(member.repaired().is_some());
    assert_eq!(member.state().boundary().digest, before.digest);
    assert_eq!(member.state().boundary().revision, 30);
    node.shutdown().await;
}

#[tokio::test]
async fn a_state_of_the_earlier_format_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let before = fill_and_stop(folder.path()).await;
    let state = folder.path().join("state/gen-1");
    std::fs::remove_dir_all(&state).unwrap();
    let db = sled::open(&state).unwrap();
    db.open_tree("rows").unwrap().insert("rk/1", "a row").unwrap();
    drop(db);
    let node = try_start(folder.path(), Start::Resume).await.unwrap();
    let member = serving(&node).await;
    node.kv().get("k/1".into(), Consistency::Linearizable).await.unwrap();
    let repaired = member.repaired().unwrap();
    assert!(repaired.contains("earlier version"), "{repaired}");
    assert_eq!(member.state().boundary().digest, before.digest);
    drop(member);
    node.shutdown().await;
    // Once is enough.
    let node = try_start(folder.path(), Start::Resume).await.unwrap();
    assert_eq!(serving(&node).await.repaired(), None);
    node.shutdown().await;
}

#[tokio::test]
async fn a_damaged_log_of_a_lone_member_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let node = found(folder.path()).await;
    node.kv().put("k".into(), "v".into()).await.unwrap();
    node.shutdown().await;
    std::fs::remove_file(folder.path().join("watermark")).unwrap();
    let error = refused(folder.path(), Start::Resume).await.to_string();
    assert!(error.contains("snapshot restore"), "{error}");
    assert!(folder.path().join("log").exists(), "nothing was moved");
}

#[tokio::test]
async fn the_last_voter_stays_and_strangers_are_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let node = found(folder.path()).await;
    let member = serving(&node).await;
    node.kv().put("k".into(), "v".into()).await.unwrap();
    let last = membership::remove(&member, 1).await.unwrap_err();
    assert!(matches!(last, MembershipError::LastVoter { id: 1 }), "{last}");
    let unknown = membership::promote(&member, 99).await.unwrap_err();
    assert!(matches!(unknown, MembershipError::Unknown { id: 99 }), "{unknown}");
    let request = crate::proto::MemberAddRequest {
        address: "127.0.0.1:2".to_owned(),
        cluster_id: "another".to_owned(),
        ..crate::proto::MemberAddRequest::default()
    };
    let other = membership::add(&member, &request).await.unwrap_err();
    assert!(matches!(other, MembershipError::OtherCluster { .. }), "{other}");
    node.shutdown().await;
}

#[tokio::test]
async fn a_removal_that_would_leave_no_quorum_is_refused() {
    let cluster = Cluster::start(Limits::default()).await;
    let [(first, _), (second, _), (third, _)] = &cluster.members[..] else {
        panic!("three members");
    };
    let leader = serving(first).await;
    let (second_id, third_id) = (second.id(), third.id());
    assert!(leader.leads());
    third.shutdown().await;
    let error = membership::remove(&leader, second_id).await.unwrap_err();
    assert!(matches!(error, MembershipError::NoQuorum { .. }), "{error}");
    membership::remove(&leader, third_id).await.unwrap();
    assert_eq!(leader.membership().voter_ids().count(), 2);
    first.kv().put("k".into(), "v".into()).await.unwrap();
}
