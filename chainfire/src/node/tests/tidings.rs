//! How followers hear of what is committed.

use std::time::Instant;

use super::{Cluster, serving};
use crate::kv::{Kv, Limits};
use crate::node::Node;
use crate::raft::timing::Timing;

const WRITES: u64 = 50;

impl Cluster {
    fn leader(&self) -> &Node {
        let leads = |node: &&Node| node.member().is_ok_and(|member| member.leads());
        self.members.iter().map(|(node, _)| node).find(leads).expect("a leader")
    }

    /// Waits until every member has applied what the leader has.
    async fn all_have_applied_all(&self) {
        let applied = serving(self.leader())
            .await
            .state()
            .boundary()
            .applied
            .expect("an entry");
        for (node, _) in &self.members {
            let state = serving(node).await.state().clone();
            state
                .wait_applied(applied.index, super::PATIENCE)
                .await
                .expect("applied in time");
        }
    }
}

async fn put(node: &Node, value: u64) {
    node.kv()
        .put("k".into(), value.to_string().into())
        .await
        .expect("a write");
}

#[tokio::test]
async fn of_a_lone_write_they_hear_long_before_the_next_heartbeat() {
    let cluster = Cluster::start(Limits::default()).await;
    let mut waits = Vec::new();
    for value in 0..21 {
        put(cluster.leader(), value).await;
        let begun = Instant::now();
        cluster.all_have_applied_all().await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[waits.len() / 2] < Timing::default().heartbeat / 4, "{waits:?}");
}

#[tokio::test]
async fn writes_in_a_row_bring_the_news_of_each_other() {
    let cluster = Cluster::start(Limits::default()).await;
    let leader = cluster.leader();
    put(leader, 0).await;
    let spared = &leader.metrics().raft.commits_carried;
    let before = spared.get();
    for value in 1..=WRITES {
        put(leader, value).await;
    }
    let followers = 2;
    assert!(
        spared.get() - before > WRITES * followers / 2,
        "{} of {}",
        spared.get() - before,
        WRITES * followers
    );
    cluster.all_have_applied_all().await;
}
