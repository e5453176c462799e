//! One run of a member, from the opened store to the end of its replication.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::disk::DiskRoom;
use super::folder::Folder;
use super::housekeeping;
use super::identity::Identity;
use super::{NodeOptions, StartError};
use crate::kv::KvError;
use crate::log::{FailureKind, LogOptions, LogStore};
use crate::metrics::Metrics;
use crate::raft::contact::LeaderContact;
use crate::raft::election::Elections;
use crate::raft::network::{Network, Peers};
use crate::raft::proposer::{Proposals, Proposer};
use crate::raft::reads::{Reader, Reads};
use crate::raft::timing::Timing;
use crate::raft::types::{MemberId, Membership, Peer, Raft};
use crate::state::{self, OpenReport, SnapshotStore, State, StateMachine, StateOptions};

const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// A running member.
pub struct Member {
    identity: Identity,
    timing: Timing,
    raft: Raft,
    log: LogStore,
    state: State,
    snapshots: SnapshotStore,
    proposals: Proposals,
    reads: Reads,
    peers: Arc<Peers>,
    contact: Arc<LeaderContact>,
    disk: Arc<DiskRoom>,
    repaired: Option<String>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Why a member ended without being told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// There was no room to write.
    DiskFull(String),
    /// What is stored cannot be trusted or read.
    Damaged(String),
    /// Something else; opening again may help.
    Failed(String),
}

impl Member {
    /// Opens the store and starts replication. Must be called on the runtime that it is to run on.
    pub(super) async fn open(
        folder: &Folder,
        identity: Identity,
        options: &NodeOptions,
        metrics: &Arc<Metrics>,
        disk: Arc<DiskRoom>,
    ) -> Result<Self, StartError> {
        let (log, opened) = open_stored(folder, &identity, options, metrics, &disk).await?;
        let repaired = match opened.report {
            OpenReport::Sound => None,
            OpenReport::Rebuilt { reason } => Some(reason),
        };
        let peers = Arc::new(Peers::new(
            identity.cluster_id.clone(),
            tokio::runtime::Handle::current(),
        ));
        let contact = Arc::new(LeaderContact::default());
        let (state, snapshots) = (opened.state, opened.machine.snapshots());
        let network = Network {
            peers: Arc::clone(&peers),
            gate: log.sync_gate(),
            contact: Arc::clone(&contact),
            metrics: Arc::clone(&metrics.raft),
        };
        let raft = start_raft(identity.member_id, options, network, &log, opened.machine).await?;
        let stop = CancellationToken::new();
        let proposer = Proposer {
            id: identity.member_id,
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            disk: Arc::clone(&disk),
            metrics: Arc::clone(&metrics.raft),
        };
        let reader = Reader {
            id: identity.member_id,
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            state: state.clone(),
            metrics: Arc::clone(&metrics.raft),
        };
        let (call_deadline, queued) = (options.timing.call_deadline, options.limits.queued_txns);
        let member = Self {
            timing: options.timing,
            log,
            state,
            snapshots,
            proposals: proposer.spawn(call_deadline, queued, stop.clone()),
            reads: reader.spawn(call_deadline, queued, stop.clone()),
            peers,
            contact,
            disk,
            repaired,
            stop,
            tasks: TaskTracker::new(),
            identity,
            raft,
        };
        member.spawn_tasks(folder, metrics);
        Ok(member)
    }

    fn spawn_tasks(&self, folder: &Folder, metrics: &Arc<Metrics>) {
        let elections = Elections {
            id: self.identity.member_id,
            raft: self.raft.clone(),
            log: self.log.clone(),
            peers: Arc::clone(&self.peers),
            contact: Arc::clone(&self.contact),
            disk: Arc::clone(&self.disk),
            timing: self.timing,
            metrics: Arc::clone(&metrics.raft),
        };
        self.tasks.spawn(elections.run(self.stop.clone()));
        let housekeeper = housekeeping::Housekeeper {
            raft: self.raft.clone(),
            log: self.log.clone(),
            state: self.state.clone(),
            metrics: Arc::clone(metrics),
            disk: Arc::clone(&self.disk),
            peers_file: folder.peers(),
            advertised: self.identity.member_id,
        };
        self.tasks.spawn(housekeeper.run(self.stop.clone()));
    }

    pub fn id(&self) -> MemberId {
        self.identity.member_id
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn cluster_id(&self) -> &str {
        &self.identity.cluster_id
    }

    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub fn log(&self) -> LogStore {
        self.log.clone()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    pub fn proposals(&self) -> &Proposals {
        &self.proposals
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    pub fn contact(&self) -> &LeaderContact {
        &self.contact
    }

    /// Whether writes are refused for want of room, or take so long that another member had better lead.
    pub fn lacks_room(&self) -> bool {
        self.disk.check().is_err() || self.disk.is_slow()
    }

    /// Why the applied state had to be rebuilt when this member was opened, if it had.
    pub fn repaired(&self) -> Option<&str> {
        self.repaired.as_deref()
    }

    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    pub fn membership(&self) -> Membership {
        self.raft.metrics().borrow().membership_config.membership().clone()
    }

    /// The leader's id and address, if one is known.
    pub fn leader(&self) -> Option<(MemberId, String)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let id = metrics.current_leader?;
        let peer = metrics.membership_config.membership().get_node(&id)?;
        Some((id, peer.address.clone()))
    }

    /// Returns when the member has ended by itself, with the reason.
    pub(super) async fn ended(&self) -> Ending {
        // These change rarely; the full metrics change with every entry.
        let mut known = self.raft.server_metrics();
        loop {
            if let Some(reason) = self.state.damage() {
                return self.classify(reason, true);
            }
            if let Some(reason) = self.fatal() {
                return self.classify(reason, false);
            }
            // A leader's log fails after it has answered.
            if self.log.last_failure().is_some() {
                return self.classify("its log has stopped".to_owned(), false);
            }
            // Neither this nor damage found by a read shows anywhere else: look now and then.
            match tokio::time::timeout(Duration::from_millis(500), known.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => {
                    let reason = self.fatal().unwrap_or_else(|| "its replication has ended".to_owned());
                    return self.classify(reason, false);
                }
            }
        }
    }

    fn fatal(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    fn classify(&self, reason: String, damaged: bool) -> Ending {
        match self.log.last_failure() {
            Some(failure) if failure.kind == FailureKind::DiskFull => Ending::DiskFull(failure.to_string()),
            Some(failure) => Ending::Failed(format!("{reason}: {failure}")),
            None if reason.contains("No space left") => Ending::DiskFull(reason),
            None if damaged => Ending::Damaged(reason),
            None => Ending::Failed(reason),
        }
    }

    /// Ends everything and frees the folder.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.state.close_watches();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.raft.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("replication did not end in 5 s");
        }
        self.tasks.wait().await;
        let log = self.log.clone();
        // Closing waits for the last write.
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
    }

    /// Takes a snapshot of what is applied now and answers its index.
    pub async fn take_snapshot(&self) -> Result<u64, KvError> {
        let wanted = self.state.boundary().applied.map_or(0, |id| id.index);
        let mut known = self.raft.metrics();
        let taken = |metrics: &openraft::RaftMetrics<MemberId, Peer>| metrics.snapshot.map_or(0, |id| id.index);
        if taken(&known.borrow()) < wanted {
            self.raft
                .trigger()
                .snapshot()
                .await
                .map_err(|fatal| KvError::Unavailable {
                    reason: fatal.to_string(),
                })?;
        }
        let waiting = known.wait_for(|metrics| taken(metrics) >= wanted);
        match tokio::time::timeout(SNAPSHOT_DEADLINE, waiting).await {
            Ok(Ok(metrics)) => Ok(taken(&metrics)),
            Ok(Err(_)) => Err(KvError::Unavailable {
                reason: "it is stopping".to_owned(),
            }),
            Err(_) => Err(KvError::Timeout {
                waited_ms: u64::try_from(SNAPSHOT_DEADLINE.as_millis()).unwrap_or(u64::MAX),
                reason: "the snapshot is not finished".to_owned(),
            }),
        }
    }

    /// What a caller is told who asks for something while no member leads.
    pub fn no_leader(&self) -> KvError {
        KvError::NoLeader {
            reason: format!("member {} knows no leader", self.id()),
        }
    }
}

async fn start_raft(
    id: MemberId,
    options: &NodeOptions,
    network: Network,
    log: &LogStore,
    machine: StateMachine,
) -> Result<Raft, StartError> {
    let machine = machine.behind(log.sync_gate());
    let config = options
        .timing
        .openraft_config()
        .validate()
        .map_err(|error| StartError::Raft {
            reason: error.to_string(),
        })?;
    Raft::new(id, Arc::new(config), network, log.clone(), machine)
        .await
        .map_err(|fatal| StartError::Raft {
            reason: fatal.to_string(),
        })
}

async fn open_stored(
    folder: &Folder,
    identity: &Identity,
    options: &NodeOptions,
    metrics: &Arc<Metrics>,
    disk: &Arc<DiskRoom>,
) -> Result<(LogStore, state::Opened), StartError> {
    use openraft::storage::RaftLogStorage;
    let mut log_options = LogOptions::new(folder.log(), folder.watermark());
    let (observe, disk) = (metrics.fsync_observer(), Arc::clone(disk));
    log_options.observe_sync = Arc::new(move |took| {
        observe(took);
        disk.note_sync(took);
    });
    log_options.own_id = Some(identity.member_id);
    let mut log = tokio::task::spawn_blocking(move || LogStore::open(log_options))
        .await
        .map_err(StartError::from_panic)??;
    let held = log.get_log_state().await.map_err(|error| StartError::Raft {
        reason: error.to_string(),
    })?;
    let extent = state::LogExtent {
        purged: held.last_purged_log_id,
        last: held.last_log_id,
    };
    let state_options = StateOptions {
        folder: folder.root().to_owned(),
        limits: options.limits,
        flush: state::FlushLimits::default(),
    };
    let state_metrics = Arc::clone(&metrics.state);
    let opened = tokio::task::spawn_blocking(move || state::open(&state_options, extent, state_metrics))
        .await
        .map_err(StartError::from_panic)??;
    log.know_committed(opened.snapshot_at);
    Ok((log, opened))
}
