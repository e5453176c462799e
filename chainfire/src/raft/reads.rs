//! Linearizable reads: all that wait share one quorum round. A read that comes while a round is under way
//! waits for the next one, since the round under way may have begun before a write that it must see.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::network::Peers;
use super::types::{MemberId, Raft};
use crate::kv::KvError;
use crate::metrics::RaftMetrics;
use crate::state::State;
use crate::wire::{self, CallKind};

/// Rounds under way at once.
const ROUNDS: usize = 2;
/// Reads of one round.
const ROUND_READS: usize = 4096;

/// Lets reads wait until they may be answered from this member's state.
#[derive(Debug, Clone)]
pub struct Reads {
    queue: mpsc::Sender<Waiting>,
    call_deadline: Duration,
    limit: usize,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    ready: oneshot::Sender<Result<(), KvError>>,
}

impl Reads {
    /// Returns when everything acknowledged before this call is applied here.
    pub async fn linearize(&self) -> Result<(), KvError> {
        let (ready, readied) = oneshot::channel();
        let waiting = Waiting {
            deadline: Instant::now() + self.call_deadline,
            ready,
        };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => KvError::Overloaded { limit: self.limit },
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        readied.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> KvError {
    KvError::Unavailable {
        reason: "it is stopping".to_owned(),
    }
}

/// The task behind [`Reads`].
pub struct Reader {
    pub id: MemberId,
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub state: State,
    pub metrics: Arc<RaftMetrics>,
}

impl Reader {
    pub fn spawn(self, call_deadline: Duration, limit: usize, stop: CancellationToken) -> Reads {
        let (queue, waiting) = mpsc::channel(limit);
        tokio::spawn(Arc::new(self).run(waiting, stop));
        Reads {
            queue,
            call_deadline,
            limit,
        }
    }

    async fn run(self: Arc<Self>, mut waiting: mpsc::Receiver<Waiting>, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut round = Vec::new();
        loop {
            let room = under_way.len() < ROUNDS;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = under_way.next() => {}
                count = waiting.recv_many(&mut round, ROUND_READS), if room => {
                    if count == 0 {
                        return;
                    }
                    under_way.push(Arc::clone(&self).hold_round(std::mem::take(&mut round)));
                }
            }
        }
    }

    async fn hold_round(self: Arc<Self>, reads: Vec<Waiting>) {
        self.metrics.read_rounds.inc();
        self.metrics.reads.inc_by(reads.len() as u64);
        let Some(deadline) = reads.iter().map(|read| read.deadline).max() else {
            return;
        };
        let outcome = self.confirm(deadline).await;
        for read in reads {
            // Who went away does not want to know.
            let _ = read.ready.send(outcome.clone());
        }
    }

    async fn confirm(&self, deadline: Instant) -> Result<(), KvError> {
        #[cfg(feature = "faults")]
        if crate::faults::stale_reads() {
            return Ok(());
        }
        let mut known = self.raft.metrics();
        loop {
            let reason = match self.read_index(deadline).await {
                Ok(index) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    return self.state.wait_applied(index, left).await;
                }
                Err(reason) => reason,
            };
            if let Err(fatal) = &known.borrow_and_update().running_state {
                return Err(KvError::Unavailable {
                    reason: fatal.to_string(),
                });
            }
            let pause = Instant::now() + Duration::from_millis(50);
            if pause >= deadline {
                return Err(KvError::NoLeader { reason });
            }
            let _ = tokio::time::timeout_at(pause, known.changed()).await;
        }
    }

    /// The index that must be applied, from whoever leads; reads may be asked for again at will.
    async fn read_index(&self, deadline: Instant) -> Result<u64, String> {
        let leader = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            metrics.current_leader.map(|id| {
                let peer = metrics.membership_config.membership().get_node(&id);
                (id, peer.map(|peer| peer.address.clone()).unwrap_or_default())
            })
        };
        match leader {
            None => Err("no member leads".to_owned()),
            Some((id, _)) if id == self.id => confirmed_index(&self.raft).await.map_err(|error| error.to_string()),
            Some((id, address)) => {
                // A leader that has just died must not hold the reads until their deadline.
                let attempt = deadline.min(Instant::now() + Duration::from_millis(500));
                self.peers
                    .read_index(id, &address, attempt)
                    .await
                    .map_err(|status| wire::error_from_status(&status, CallKind::Read).to_string())
            }
        }
    }
}

/// On the leader: the index that a read which arrived before this call must see, confirmed by a quorum.
pub async fn confirmed_index(raft: &Raft) -> Result<u64, KvError> {
    match raft.get_read_log_id().await {
        Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
        Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(error))) => Err(KvError::NoLeader {
            reason: format!("only members {:?} confirm this leader", error.got),
        }),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Err(KvError::NoLeader {
            reason: "this member does not lead".to_owned(),
        }),
        Err(RaftError::Fatal(fatal)) => Err(KvError::Unavailable {
            reason: fatal.to_string(),
        }),
    }
}
