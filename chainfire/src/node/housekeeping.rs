//! What a running member does now and then: look at the disk, take a snapshot when the log has grown,
//! write down who the others are, and keep the gauges true.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::ServerState;
use tokio_util::sync::CancellationToken;

use super::disk::{self, DiskRoom};
use super::identity::{self, KnownPeers};
use crate::log::LogStore;
use crate::metrics::{Metrics, gauge_value};
use crate::raft::types::{MemberId, Raft};
use crate::state::State;

/// A snapshot is taken when the log is larger than this and than the last snapshot, so that the cost of
/// snapshots stays in proportion to what was written.
const SNAPSHOT_LOG_BYTES: u64 = 96 << 20;

pub struct Housekeeper {
    pub raft: Raft,
    pub log: LogStore,
    pub state: State,
    pub metrics: Arc<Metrics>,
    pub disk: Arc<DiskRoom>,
    pub peers_file: PathBuf,
    pub advertised: MemberId,
}

impl Housekeeper {
    pub async fn run(self, stop: CancellationToken) {
        let mut last_leader = None;
        let mut known = KnownPeers::default();
        let mut snapshot_asked_at = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(disk::LOOK_EVERY) => {}
            }
            self.disk.look();
            self.note_leader(&mut last_leader);
            self.set_gauges();
            self.remember_peers(&mut known);
            self.snapshot_when_due(&mut snapshot_asked_at).await;
        }
    }

    fn note_leader(&self, last: &mut Option<MemberId>) {
        let leader = self.raft.metrics().borrow().current_leader;
        if leader.is_some() && leader != *last {
            tracing::info!(leader, "the leader is known");
            self.metrics.raft.leader_changes.inc();
            *last = leader;
        }
    }

    fn set_gauges(&self) {
        let raft = &self.metrics.raft;
        {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            raft.is_leader.set(i64::from(metrics.state == ServerState::Leader));
            raft.term.set(gauge_value(metrics.current_term));
            raft.last_log_index
                .set(gauge_value(metrics.last_log_index.unwrap_or(0)));
            raft.snapshot_index
                .set(gauge_value(metrics.snapshot.map_or(0, |id| id.index)));
        }
        let boundary = self.state.boundary();
        raft.applied_index
            .set(gauge_value(boundary.applied.map_or(0, |id| id.index)));
        let state = &self.metrics.state;
        state.revision.set(gauge_value(boundary.revision));
        state.keys.set(gauge_value(boundary.keys));
        state.window_bytes.set(gauge_value(self.state.window_bytes()));
        state.watches.set(gauge_value(self.state.watches()));
    }

    /// A member whose store is lost asks these for a place.
    fn remember_peers(&self, known: &mut KnownPeers) {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow().membership_config.membership().clone();
        let addresses: Vec<String> = membership
            .nodes()
            .filter(|(id, _)| **id != self.advertised)
            .map(|(_, peer)| peer.address.clone())
            .collect();
        if addresses.is_empty() || addresses == known.addresses {
            return;
        }
        let now = KnownPeers { addresses };
        match identity::write(&self.peers_file, &now) {
            Ok(()) => *known = now,
            Err(error) => tracing::warn!(%error, "the list of members cannot be written"),
        }
    }

    async fn snapshot_when_due(&self, asked_at: &mut u64) {
        let (last, snapshot) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (
                metrics.last_applied.map_or(0, |id| id.index),
                metrics.snapshot.map_or(0, |id| id.index),
            )
        };
        // One at a time: the next is due only when the last that was asked for is there.
        let under_way = snapshot < *asked_at;
        if under_way || last <= snapshot {
            return;
        }
        let log = self.log.clone();
        let Ok(log_bytes) = tokio::task::spawn_blocking(move || log.bytes_on_disk()).await else {
            return;
        };
        if log_bytes > SNAPSHOT_LOG_BYTES.max(self.state.snapshot_bytes() * 2) {
            *asked_at = last;
            if let Err(fatal) = self.raft.trigger().snapshot().await {
                tracing::warn!(%fatal, "a snapshot cannot be taken");
            }
        }
    }
}
