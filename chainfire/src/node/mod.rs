//! A member of a cluster, from the first start to the shutdown.
//!
//! [`Node`] is what the program holds; inside it a supervisor opens the stored state, runs a [`Member`],
//! and does what has to be done when that ends:
//!
//! ```text
//!            ┌───────── room again ◄────────── disk full ◄──────────┐
//!            ▼                                                      │
//! start ─► open ──────────────────────────────────────► serving ────┤
//!            │ ▲                                                    │
//!            │ └── joined under a new id ◄── set aside ◄── damaged ─┤
//!            └► refused: locked, newer format, damaged and alone    └► stopped
//! ```
//! What must never happen: a member that lost something votes under its old id; a folder is wiped; a
//! problem that goes away by itself needs a restart by hand.

mod disk;
mod folder;
mod housekeeping;
mod identity;
mod join;
mod member;
pub mod membership;
mod recover;
mod restore;
mod store;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::claim::Claim;
use crate::kv::{KvError, Limits};
use crate::metrics::Metrics;
use crate::raft::timing::Timing;
use crate::raft::types::MemberId;

pub use disk::DiskRoom;
pub use folder::FolderError;
pub use identity::Identity;
pub use member::Member;
pub use recover::{KnownMember, RecoverError, Survivor, finish_begun};
pub use restore::{Restored, restore_folder};
pub use store::Store;
pub use supervisor::StartError;

/// What a member is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    pub folder: PathBuf,
    pub name: String,
    /// Where other members reach this one: `host:port`.
    pub advertise: String,
    pub start: Start,
    pub limits: Limits,
    pub timing: Timing,
    /// Writes are refused while the disk has less room than this.
    pub disk_reserve_bytes: u64,
}

/// How a folder without an identity gets one. A folder that has one goes on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Only go on with what is there.
    Resume,
    /// Found a new cluster of one.
    Found,
    /// Join a cluster through any of these members.
    Join { via: Vec<String>, as_learner: bool },
}

/// A running node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: NodeOptions,
    metrics: Arc<Metrics>,
    replication: tokio::runtime::Handle,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
    supervisor: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Held for as long as the folder is in use.
    lock: Mutex<Option<Claim>>,
}

/// What a node is doing.
#[derive(Debug, Clone)]
pub enum Phase {
    Serving(Arc<Member>),
    /// Not serving, and why. It goes on by itself when the reason goes away.
    Down {
        problem: KvError,
    },
    Stopped,
}

impl Node {
    /// Opens the folder and starts the member. Its replication runs on `runtime`.
    pub async fn start(
        options: NodeOptions,
        metrics: Arc<Metrics>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, StartError> {
        supervisor::start(options, metrics, runtime).await
    }

    pub fn options(&self) -> &NodeOptions {
        &self.inner.options
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The running member, or why there is none now.
    pub fn member(&self) -> Result<Arc<Member>, KvError> {
        match &*self.inner.phase.borrow() {
            Phase::Serving(member) => Ok(Arc::clone(member)),
            Phase::Down { problem } => Err(problem.clone()),
            Phase::Stopped => Err(KvError::Unavailable {
                reason: "it is stopping".to_owned(),
            }),
        }
    }

    /// The threads of replication.
    pub fn replication(&self) -> &tokio::runtime::Handle {
        &self.inner.replication
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.inner.phase.subscribe()
    }

    /// The store, through this member.
    pub fn kv(&self) -> Store {
        Store::new(self.clone())
    }

    /// The id of the running member; 0 when there is none.
    pub fn id(&self) -> MemberId {
        self.member().map_or(0, |member| member.id())
    }

    /// Ends watches and calls, then the member. Returns when the folder may be opened again.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let supervisor = self.inner.supervisor.lock().take();
        if let Some(supervisor) = supervisor {
            // A panic in there has been reported by its own message.
            let _ = supervisor.await;
        }
        self.inner.lock.lock().take();
    }
}

#[cfg(test)]
mod tests;
