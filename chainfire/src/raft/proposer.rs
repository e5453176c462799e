//! Proposing: one task gathers the transactions that wait and makes one log entry of them, so that they
//! share the messages and the data sync. On a follower the same batches go to the leader in one call.
//!
//! ```text
//! submit ─► queue ─► batch ─┬─ leader here ──► log entry ──► answers
//!                           ├─ leader there ─► Propose ────► answers
//!                           └─ nobody leads ─► wait, until the deadline
//! ```
//! A batch that may have been carried out is never sent again: its callers are told that the outcome is
//! unknown.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::error::ClientWriteError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::network::Peers;
use super::types::{Commands, MemberId, Raft};
use crate::kv::KvError;
use crate::metrics::{RaftMetrics, gauge_value};
use crate::node::DiskRoom;
use crate::proto;
use crate::state::{Answer, encode_commands};
use crate::wire::{self, CallKind};

/// A second entry on its way would split what could share a sync and a message.
const LEADER_BATCHES: usize = 1;
const FOLLOWER_BATCHES: usize = 8;
const BATCH_COMMANDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Hands commands to the proposer.
#[derive(Debug, Clone)]
pub struct Proposals {
    queue: mpsc::Sender<Pending>,
    call_deadline: Duration,
    limit: usize,
}

#[derive(Debug)]
struct Pending {
    commands: Vec<proto::Command>,
    bytes: usize,
    deadline: Instant,
    answer: oneshot::Sender<Result<Vec<Answer>, KvError>>,
}

impl Proposals {
    /// Proposes commands as one unit and waits until they are committed and applied on the leader.
    pub async fn submit(&self, commands: Vec<proto::Command>) -> Result<Vec<Answer>, KvError> {
        use prost::Message;
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            bytes: commands.iter().map(Message::encoded_len).sum(),
            commands,
            deadline: Instant::now() + self.call_deadline,
            answer,
        };
        self.queue.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => KvError::Overloaded { limit: self.limit },
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answered.await.unwrap_or_else(|_| {
            Err(KvError::OutcomeUnknown {
                reason: "this member is stopping".to_owned(),
            })
        })
    }

    /// Proposes one command.
    pub async fn submit_one(&self, command: proto::command::Command) -> Result<Answer, KvError> {
        let command = proto::Command { command: Some(command) };
        let mut answers = self.submit(vec![command]).await?;
        answers.pop().ok_or_else(|| KvError::Internal {
            reason: "a command was not answered".to_owned(),
        })
    }
}

fn stopping() -> KvError {
    KvError::Unavailable {
        reason: "it is stopping".to_owned(),
    }
}

/// The task behind [`Proposals`].
pub struct Proposer {
    pub id: MemberId,
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub disk: Arc<DiskRoom>,
    pub metrics: Arc<RaftMetrics>,
}

impl Proposer {
    /// Starts the task on the current runtime.
    pub fn spawn(self, call_deadline: Duration, limit: usize, stop: CancellationToken) -> Proposals {
        let (queue, waiting) = mpsc::channel(limit);
        tokio::spawn(Arc::new(self).run(waiting, stop));
        Proposals {
            queue,
            call_deadline,
            limit,
        }
    }

    async fn run(self: Arc<Self>, mut waiting: mpsc::Receiver<Pending>, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut left_over = None;
        loop {
            let leading = self.raft.metrics().borrow().current_leader == Some(self.id);
            let room = under_way.len() < if leading { LEADER_BATCHES } else { FOLLOWER_BATCHES };
            if room && let Some(first) = left_over.take() {
                under_way.push(Arc::clone(&self).carry_out(gather(first, &mut waiting, &mut left_over)));
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = under_way.next() => {}
                first = waiting.recv(), if room => {
                    let Some(first) = first else { return };
                    under_way.push(Arc::clone(&self).carry_out(gather(first, &mut waiting, &mut left_over)));
                }
            }
            self.metrics.queued.set(gauge_value(waiting.len()));
        }
    }

    async fn carry_out(self: Arc<Self>, batch: Vec<Pending>) {
        let begun = Instant::now();
        let Some(deadline) = batch.iter().map(|pending| pending.deadline).max() else {
            return;
        };
        let mut counts = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        let mut commands = Vec::with_capacity(batch.len());
        for pending in batch {
            counts.push(pending.commands.len());
            callers.push(pending.answer);
            commands.extend(pending.commands);
        }
        let total = commands.len();
        self.metrics.proposals.inc_by(total as u64);
        self.metrics.batches.inc();
        let outcome = self.decide(commands, deadline).await.and_then(|answers| {
            if answers.len() == total {
                return Ok(answers);
            }
            Err(KvError::Internal {
                reason: format!("{total} commands got {} answers", answers.len()),
            })
        });
        match outcome {
            Ok(answers) => {
                self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                let mut answers = answers.into_iter();
                for (count, caller) in counts.into_iter().zip(callers) {
                    // A caller that went away does not want it.
                    let _ = caller.send(Ok(answers.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                self.metrics.proposals_failed.inc_by(total as u64);
                for caller in callers {
                    let _ = caller.send(Err(error.clone()));
                }
            }
        }
    }

    /// Has a batch decided by whoever leads.
    async fn decide(&self, commands: Vec<proto::Command>, deadline: Instant) -> Result<Vec<Answer>, KvError> {
        let mut known = self.raft.metrics();
        loop {
            let leader = {
                let metrics = known.borrow_and_update();
                metrics.current_leader.map(|id| {
                    let address = metrics
                        .membership_config
                        .membership()
                        .get_node(&id)
                        .map(|peer| peer.address.clone());
                    (id, address.unwrap_or_default())
                })
            };
            let attempt = match leader {
                Some((id, _)) if id == self.id => self.propose_here(commands.clone(), deadline).await,
                Some((id, address)) => self.propose_there(id, &address, commands.clone(), deadline).await,
                None => Attempt::NotTaken("no member leads".to_owned()),
            };
            let reason = match attempt {
                Attempt::Decided(outcome) => return outcome,
                Attempt::NotTaken(reason) => reason,
            };
            if let Err(fatal) = &known.borrow().running_state {
                return Err(KvError::Unavailable {
                    reason: fatal.to_string(),
                });
            }
            // Somebody else may lead soon; ask again when that is known, or a little later.
            let pause = Instant::now() + Duration::from_millis(100);
            if pause >= deadline {
                return Err(KvError::NoLeader { reason });
            }
            let _ = tokio::time::timeout_at(pause, known.changed()).await;
        }
    }

    async fn propose_here(&self, commands: Vec<proto::Command>, deadline: Instant) -> Attempt {
        if let Err(full) = self.disk.check() {
            return Attempt::Decided(Err(full));
        }
        let answered = match self.raft.client_write_ff(Commands(encode_commands(commands))).await {
            Ok(answered) => answered,
            Err(fatal) => {
                return Attempt::Decided(Err(KvError::Unavailable {
                    reason: fatal.to_string(),
                }));
            }
        };
        Attempt::Decided(match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(Ok(response))) => Ok(response.data),
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => {
                return Attempt::NotTaken("this member no longer leads".to_owned());
            }
            Ok(Ok(Err(error))) => Err(KvError::Internal {
                reason: error.to_string(),
            }),
            Ok(Err(_)) => unknown("this member stopped leading while the write was under way"),
            Err(_) => unknown("no quorum confirmed the write in time"),
        })
    }

    async fn propose_there(
        &self,
        id: MemberId,
        address: &str,
        commands: Vec<proto::Command>,
        deadline: Instant,
    ) -> Attempt {
        let mut known = self.raft.server_metrics();
        let replaced = known.wait_for(|metrics| metrics.current_leader.is_some_and(|leader| leader != id));
        let outcome = tokio::select! {
            outcome = self.peers.propose(id, address, commands, deadline) => outcome,
            // A leader that stands still would keep the callers until their deadline.
            Ok(_) = replaced => {
                return Attempt::Decided(unknown("the leader was replaced while the write was under way"));
            }
        };
        match outcome {
            Ok(reply) => Attempt::Decided(reply.answers.into_iter().map(answer_from_proto).collect()),
            Err(status) => match wire::error_from_status(&status, CallKind::Write) {
                error @ (KvError::NoLeader { .. } | KvError::Unavailable { .. }) => {
                    Attempt::NotTaken(error.to_string())
                }
                error => Attempt::Decided(Err(error)),
            },
        }
    }
}

/// What came of handing a batch to somebody.
enum Attempt {
    Decided(Result<Vec<Answer>, KvError>),
    /// It was certainly not carried out.
    NotTaken(String),
}

fn unknown(reason: &str) -> Result<Vec<Answer>, KvError> {
    Err(KvError::OutcomeUnknown {
        reason: reason.to_owned(),
    })
}

/// Takes all that waits, up to the size of one entry. Who has waited too long is told so.
fn gather(first: Pending, waiting: &mut mpsc::Receiver<Pending>, left_over: &mut Option<Pending>) -> Vec<Pending> {
    let now = Instant::now();
    let mut batch = Vec::new();
    let (mut commands, mut bytes) = (0, 0);
    let mut next = Some(first);
    while let Some(pending) = next {
        if pending.deadline <= now {
            let _ = pending.answer.send(Err(KvError::Timeout {
                waited_ms: 0,
                reason: "it waited too long to be proposed".to_owned(),
            }));
        } else if !batch.is_empty()
            && (commands + pending.commands.len() > BATCH_COMMANDS || bytes + pending.bytes > BATCH_BYTES)
        {
            *left_over = Some(pending);
            break;
        } else {
            commands += pending.commands.len();
            bytes += pending.bytes;
            batch.push(pending);
        }
        next = waiting.try_recv().ok();
    }
    batch
}

/// An answer on its way to the member that forwarded the command.
pub fn answer_to_proto(answer: Answer) -> proto::CommandAnswer {
    use proto::command_answer::Answer as Wire;
    proto::CommandAnswer {
        answer: Some(match answer {
            Answer::Txn(answer) => Wire::Txn(wire::answer_to_ref(answer)),
            Answer::MemberId(id) => Wire::MemberId(id),
            Answer::Level(level) => Wire::Level(level),
            Answer::Refused(reason) => Wire::Refused(reason),
        }),
    }
}

fn answer_from_proto(answer: proto::CommandAnswer) -> Result<Answer, KvError> {
    use proto::command_answer::Answer as Wire;
    match answer.answer {
        Some(Wire::Txn(answer)) => Ok(Answer::Txn(wire::answer_from_ref(answer)?)),
        Some(Wire::MemberId(id)) => Ok(Answer::MemberId(id)),
        Some(Wire::Level(level)) => Ok(Answer::Level(level)),
        Some(Wire::Refused(reason)) => Ok(Answer::Refused(reason)),
        // It was carried out, whatever the answer was.
        None => Err(KvError::OutcomeUnknown {
            reason: "the leader's answer is not understood by this version".to_owned(),
        }),
    }
}
