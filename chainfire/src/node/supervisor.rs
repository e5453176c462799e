//! Keeps a member running: opens it, waits until it ends, and does what its end calls for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::disk::DiskRoom;
use super::folder::{Folder, FolderError};
use super::identity::{self, Identity, IdentityError, KnownPeers};
use super::join;
use super::member::{Ending, Member};
use super::{Inner, Node, NodeOptions, Phase, Start};
use crate::kv::KvError;
use crate::log::OpenError;
use crate::metrics::Metrics;
use crate::state::StateError;

/// How often a member that could not be opened is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Why a node cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("log: {0}")]
    Log(#[from] OpenError),
    #[error("state: {0}")]
    State(#[from] StateError),
    #[error("replication cannot start: {reason}")]
    Raft { reason: String },
    #[error("{folder} belongs to no cluster yet: found one with --init, or join one with --join HOST:PORT")]
    NoIdentity { folder: String },
    #[error("a recovery of this folder has begun ({path}): complete it by doing it again")]
    RecoveryBegun { path: std::path::PathBuf },
    #[error("cannot join: {reason}")]
    Join { reason: String },
    #[error(
        "what is stored in {folder} cannot be trusted ({reason}), and no other member is known to seed it anew: \
         restore a backup with 'chainfire snapshot restore'"
    )]
    DamagedAndAlone { folder: String, reason: String },
}

impl StartError {
    pub(super) fn from_panic(error: tokio::task::JoinError) -> Self {
        StartError::Raft {
            reason: error.to_string(),
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            StartError::Log(OpenError::DiskFull { .. }) => Remedy::WaitForRoom,
            StartError::State(error) if error.is_disk_full() => Remedy::WaitForRoom,
            StartError::Log(OpenError::Corrupt { .. } | OpenError::RolledBack { .. })
            | StartError::State(_)
            | StartError::Identity(IdentityError::Damaged { .. }) => Remedy::SeedAnew,
            // A member that has just ended may still be letting go.
            StartError::Log(OpenError::Locked { .. } | OpenError::Io { .. }) | StartError::Raft { .. } => Remedy::Retry,
            StartError::Identity(IdentityError::Io { source, .. })
            | StartError::Folder(FolderError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Remedy::WaitForRoom
            }
            _ => Remedy::Refuse,
        }
    }
}

/// What can be done about a member that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    WaitForRoom,
    SeedAnew,
    Retry,
    Refuse,
}

/// What the supervisor works with.
struct Supervisor {
    folder: Folder,
    options: NodeOptions,
    metrics: Arc<Metrics>,
    disk: Arc<DiskRoom>,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
}

pub async fn start(
    options: NodeOptions,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Handle,
) -> Result<Node, StartError> {
    let (folder, lock) = Folder::take(&options.folder)?;
    if folder.recovered().exists() {
        return Err(StartError::RecoveryBegun {
            path: folder.recovered(),
        });
    }
    let (phase, _) = watch::channel(Phase::Down {
        problem: KvError::Unavailable {
            reason: "it is starting".to_owned(),
        },
    });
    let stop = CancellationToken::new();
    let supervisor = Supervisor {
        disk: Arc::new(DiskRoom::new(&options.folder, options.disk_reserve_bytes)),
        folder,
        options: options.clone(),
        metrics: Arc::clone(&metrics),
        phase: phase.clone(),
        stop: stop.clone(),
    };
    // The first opening decides whether there is a node at all; what can heal by itself may take longer.
    let (opened, first) = tokio::sync::oneshot::channel();
    let task = runtime.spawn(supervisor.run(opened));
    match first.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(StartError::Raft {
                reason: "the supervisor has ended".to_owned(),
            });
        }
    }
    Ok(Node {
        inner: Arc::new(Inner {
            options,
            metrics,
            replication: runtime,
            phase,
            stop,
            supervisor: Mutex::new(Some(task)),
            lock: Mutex::new(Some(lock)),
        }),
    })
}

impl Supervisor {
    async fn run(self, opened: tokio::sync::oneshot::Sender<Result<(), StartError>>) {
        let mut first = Some(opened);
        let mut report = |outcome: Result<(), StartError>| match (first.take(), outcome) {
            // Whoever started this may have gone away.
            (Some(waiting), outcome) => drop(waiting.send(outcome)),
            (None, Err(error)) => tracing::error!(%error, "this member cannot go on"),
            (None, Ok(())) => {}
        };
        while !self.stop.is_cancelled() {
            let problem = match self.open().await {
                Ok(member) => {
                    report(Ok(()));
                    self.serve(member).await
                }
                Err(error) => match self.heal(error).await {
                    Ok(problem) => {
                        report(Ok(()));
                        problem
                    }
                    Err(error) => {
                        self.down(KvError::Unavailable {
                            reason: error.to_string(),
                        });
                        report(Err(error));
                        break;
                    }
                },
            };
            if let Some(problem) = problem {
                tracing::warn!(%problem, "this member does not serve");
                self.down(problem);
                self.pause(RETRY_EVERY).await;
            }
        }
        self.phase.send_replace(Phase::Stopped);
    }

    async fn open(&self) -> Result<Arc<Member>, StartError> {
        let identity = self.identity().await?;
        let member = Member::open(
            &self.folder,
            identity,
            &self.options,
            &self.metrics,
            Arc::clone(&self.disk),
        )
        .await?;
        Ok(Arc::new(member))
    }

    /// The identity in the folder, or a new one by the way this node was told to start.
    async fn identity(&self) -> Result<Identity, StartError> {
        if let Some(identity) = identity::read::<Identity>(&self.folder.identity())? {
            return Ok(identity);
        }
        let identity = match &self.options.start {
            Start::Resume => {
                return Err(StartError::NoIdentity {
                    folder: self.folder.root().display().to_string(),
                });
            }
            Start::Found => Identity {
                cluster_id: uuid::Uuid::new_v4().to_string(),
                member_id: 1,
                wants_vote: false,
                replaces: None,
                founded: true,
            },
            Start::Join { via, as_learner } => {
                let ask = join::Ask {
                    name: &self.options.name,
                    advertise: &self.options.advertise,
                    lost_store: false,
                    cluster_id: "",
                };
                let mut identity = join::ask_for_place(via, &ask).await?;
                identity.wants_vote = !as_learner;
                identity
            }
        };
        identity::write(&self.folder.identity(), &identity)?;
        Ok(identity)
    }

    /// Runs a member until it ends; answers why, unless it was told to.
    async fn serve(&self, member: Arc<Member>) -> Option<KvError> {
        let settling = tokio::spawn(join::settle(
            Arc::clone(&member),
            self.options.clone(),
            self.folder.identity(),
        ));
        self.phase.send_replace(Phase::Serving(Arc::clone(&member)));
        let ending = tokio::select! {
            () = self.stop.cancelled() => None,
            ending = member.ended() => Some(ending),
        };
        settling.abort();
        if let Some(ending) = &ending {
            tracing::error!(?ending, "this member has ended");
            self.down(problem_of(ending));
        }
        member.close().await;
        let ending = ending?;
        if ending_needs_room(&ending) {
            self.wait_for_room().await;
        }
        Some(problem_of(&ending))
    }

    /// Does what can be done about a member that does not open; answers what to tell callers meanwhile.
    async fn heal(&self, error: StartError) -> Result<Option<KvError>, StartError> {
        match error.remedy() {
            Remedy::Refuse => Err(error),
            Remedy::Retry => Ok(Some(KvError::Unavailable {
                reason: error.to_string(),
            })),
            Remedy::WaitForRoom => {
                self.down(KvError::DiskFull {
                    reason: error.to_string(),
                });
                self.wait_for_room().await;
                Ok(None)
            }
            Remedy::SeedAnew => {
                tracing::warn!(%error, "what is stored cannot be trusted");
                self.seed_anew(&error.to_string()).await?;
                Ok(None)
            }
        }
    }

    /// Sets the store aside and takes a place under a new id.
    async fn seed_anew(&self, reason: &str) -> Result<(), StartError> {
        let known = identity::read::<KnownPeers>(&self.folder.peers())
            .ok()
            .flatten()
            .unwrap_or_default();
        let mut via = known.addresses;
        if let Start::Join { via: given, .. } = &self.options.start {
            via.extend(given.iter().cloned());
        }
        if via.is_empty() {
            return Err(StartError::DamagedAndAlone {
                folder: self.folder.root().display().to_string(),
                reason: reason.to_owned(),
            });
        }
        let old = identity::read::<Identity>(&self.folder.identity()).ok().flatten();
        self.down(KvError::Unavailable {
            reason: format!("its store is damaged ({reason}); it is being seeded anew under another id"),
        });
        let ask = join::Ask {
            name: &self.options.name,
            advertise: &self.options.advertise,
            lost_store: true,
            cluster_id: old.as_ref().map_or("", |identity| identity.cluster_id.as_str()),
        };
        loop {
            match join::ask_for_place(&via, &ask).await {
                Ok(identity) => {
                    // The store goes first: a crash in between asks for a place again.
                    let aside = self.folder.quarantine()?;
                    tracing::warn!(aside = %aside.display(), id = identity.member_id, "set the store aside");
                    identity::write(&self.folder.identity(), &identity)?;
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "no place yet"),
            }
            self.pause(RETRY_EVERY).await;
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn wait_for_room(&self) {
        loop {
            self.disk.look();
            if self.disk.check().is_ok() || self.stop.is_cancelled() {
                return;
            }
            self.pause(super::disk::LOOK_EVERY).await;
        }
    }

    fn down(&self, problem: KvError) {
        self.phase.send_replace(Phase::Down { problem });
    }

    async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }
}

fn ending_needs_room(ending: &Ending) -> bool {
    matches!(ending, Ending::DiskFull(_))
}

fn problem_of(ending: &Ending) -> KvError {
    match ending {
        Ending::DiskFull(reason) => KvError::DiskFull { reason: reason.clone() },
        Ending::Damaged(reason) | Ending::Failed(reason) => KvError::Unavailable { reason: reason.clone() },
    }
}
