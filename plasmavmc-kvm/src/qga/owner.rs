//! The one task that speaks to an agent: one command after the other, each after a sync.
//!
//! Must never: let a command wait past its deadline because another takes long, or leave one without an
//! outcome.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::MAX_ANSWER_BYTES;
use super::conversation::{Conversation, Heard, command};
use super::error::QgaError;
use crate::channel::{Channel, ChannelSender, Incoming, SendError};
use crate::qmp::{ErrorClass, whole_milliseconds};

/// Commands that wait for their turn.
const MAX_PENDING: usize = 64;

/// What an answer is awaited as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Answer,
    /// The command answers only if it is refused.
    NothingUnlessRefused,
}

pub(super) struct Ask {
    pub name: String,
    pub arguments: Value,
    pub expect: Expect,
    pub within: Duration,
    pub deadline: Instant,
    /// Missing if nobody waits for it.
    pub answer: Option<oneshot::Sender<Result<Value, QgaError>>>,
}

impl Ask {
    fn is_abandoned(&self) -> bool {
        self.answer.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

fn tell(answer: Option<oneshot::Sender<Result<Value, QgaError>>>, result: Result<Value, QgaError>) {
    if let Some(answer) = answer {
        // Whoever asked may be gone.
        let _ = answer.send(result);
    }
}

pub(super) struct Owner {
    pub vm: String,
    pub sync_within: Duration,
    pub channel: Channel,
    pub sender: ChannelSender,
    pub asks: mpsc::Receiver<Ask>,
    pub conversation: Conversation,
    pub pending: VecDeque<Ask>,
    /// The command that has its turn.
    pub current: String,
}

/// Why waiting for the agent ended without what was waited for.
enum Broken {
    Deadline,
    Connection,
    Closed,
}

impl Owner {
    pub async fn run(mut self, mut released: oneshot::Receiver<()>) {
        loop {
            let ask = match self.pending.pop_front() {
                Some(ask) => ask,
                None => tokio::select! {
                    _ = &mut released => break,
                    ask = self.asks.recv() => match ask {
                        Some(ask) => ask,
                        None => break,
                    },
                    incoming = self.channel.receive() => match incoming {
                        Some(incoming) => {
                            // Nobody asked: taken only so that it does not pile up.
                            self.take_in(incoming);
                            continue;
                        }
                        None => break,
                    },
                },
            };
            if ask.is_abandoned() {
                continue;
            }
            let Ask {
                name,
                arguments,
                expect,
                within,
                deadline,
                answer,
            } = ask;
            self.current = name;
            let result = tokio::select! {
                _ = &mut released => {
                    // How far it got is not known here.
                    let (vm, command) = (self.vm.clone(), self.current.clone());
                    tell(answer, Err(QgaError::Interrupted { vm, command }));
                    break;
                }
                result = self.carry_out(&arguments, expect, deadline, within) => result,
            };
            self.conversation.give_up();
            tell(answer, result);
        }
        self.channel.close().await;
        // Those who still wait see the end of their queue, and say so.
    }

    async fn carry_out(
        &mut self,
        arguments: &Value,
        expect: Expect,
        deadline: Instant,
        within: Duration,
    ) -> Result<Value, QgaError> {
        self.sync(deadline).await?;
        let mut frame = command(&self.current, arguments);
        match expect {
            Expect::Answer => self.conversation.expect_answer(),
            Expect::NothingUnlessRefused => frame.extend(self.conversation.confirm(new_sync_id())),
        }
        let heard = self.exchange(frame, deadline).await;
        let vm = self.vm.clone();
        let command = self.current.clone();
        match heard {
            Ok(Heard::Answer(Ok(value))) => Ok(value),
            Ok(Heard::Confirmed | Heard::Synced) => Ok(Value::Null),
            Ok(Heard::Answer(Err(refusal))) if refusal.class == ErrorClass::CommandNotFound => {
                Err(QgaError::Unsupported { vm, command, refusal })
            }
            Ok(Heard::Answer(Err(refusal))) => Err(QgaError::Refused { vm, command, refusal }),
            Ok(Heard::TooLong) => Err(QgaError::AnswerTooLong {
                vm,
                command,
                limit_bytes: MAX_ANSWER_BYTES,
            }),
            Err((Broken::Closed, Begun::No)) => Err(QgaError::Closed { vm }),
            // The agent has just answered, and does not read any more.
            Err((Broken::Deadline, Begun::No)) => Err(QgaError::NotAnswering { vm, after: within }),
            Err((Broken::Connection, Begun::No)) => Err(QgaError::NotConnected { vm }),
            Err((Broken::Deadline, Begun::Yes)) => Err(QgaError::NoAnswer {
                vm,
                command,
                after: within,
            }),
            Err((Broken::Connection | Broken::Closed, Begun::Yes)) => Err(QgaError::Interrupted { vm, command }),
        }
    }

    /// Proves that an agent listens, and that nothing of the past is left to be heard.
    async fn sync(&mut self, deadline: Instant) -> Result<(), QgaError> {
        let start = Instant::now();
        let deadline = deadline.min(start + self.sync_within);
        let frame = self.conversation.sync(new_sync_id());
        let vm = self.vm.clone();
        match self.exchange(frame, deadline).await {
            Ok(_) => Ok(()),
            Err((Broken::Deadline, _)) => Err(QgaError::NotAnswering {
                vm,
                after: whole_milliseconds(deadline.saturating_duration_since(start)),
            }),
            Err((Broken::Connection, _)) => Err(QgaError::NotConnected { vm }),
            Err((Broken::Closed, _)) => Err(QgaError::Closed { vm }),
        }
    }

    /// Sends a frame and waits for what the conversation expects.
    async fn exchange(&mut self, frame: Vec<u8>, deadline: Instant) -> Result<Heard, (Broken, Begun)> {
        let sender = self.sender.clone();
        let within = deadline.saturating_duration_since(Instant::now());
        let mut sending = pin!(sender.send(frame, within));
        let mut begun = None;
        loop {
            let next_expiry = self.pending.iter().map(|ask| ask.deadline).min().unwrap_or(deadline);
            let sent = begun.unwrap_or(Begun::Yes);
            tokio::select! {
                sent = &mut sending, if begun.is_none() => match sent {
                    Ok(()) => begun = Some(Begun::Yes),
                    Err(error) => return Err(broken_by(&error)),
                },
                incoming = self.channel.receive() => match incoming {
                    None => return Err((Broken::Closed, sent)),
                    Some(incoming) => match self.take_in(incoming) {
                        Taken::Heard(heard) => return Ok(heard),
                        Taken::Interruption => return Err((Broken::Connection, sent)),
                        Taken::Nothing => {}
                    },
                },
                Some(ask) = self.asks.recv() => self.queue(ask),
                () = tokio::time::sleep_until(next_expiry.min(deadline).into()) => {
                    let now = Instant::now();
                    self.expire_pending(now);
                    // While sending, the sender keeps the deadline: it knows how much was sent.
                    if begun.is_some() && now >= deadline {
                        return Err((Broken::Deadline, sent));
                    }
                    if begun.is_none() && now >= deadline {
                        return Err((&mut sending).await.err().map_or((Broken::Deadline, Begun::Yes), |e| broken_by(&e)));
                    }
                }
            }
        }
    }

    fn take_in(&mut self, incoming: Incoming) -> Taken {
        match incoming {
            Incoming::Data(bytes) => match self.conversation.receive(&bytes).pop() {
                Some(heard) => Taken::Heard(heard),
                None => Taken::Nothing,
            },
            Incoming::Lost { bytes } => {
                tracing::warn!(vm = self.vm, bytes, "some of the guest agent's answer was lost");
                self.conversation.lost();
                Taken::Nothing
            }
            Incoming::Connected | Incoming::Disconnected => {
                self.conversation.restart();
                Taken::Interruption
            }
        }
    }

    fn queue(&mut self, ask: Ask) {
        if self.pending.len() < MAX_PENDING {
            self.pending.push_back(ask);
        } else {
            self.refuse(ask);
        }
    }

    /// A command whose turn has not come in time is not carried out at all.
    fn expire_pending(&mut self, now: Instant) {
        for ask in std::mem::take(&mut self.pending) {
            if ask.deadline > now {
                self.pending.push_back(ask);
            } else {
                self.refuse(ask);
            }
        }
    }

    fn refuse(&self, ask: Ask) {
        let busy = QgaError::Busy {
            vm: self.vm.clone(),
            command: ask.name,
            with: self.current.clone(),
            after: ask.within,
        };
        tell(ask.answer, Err(busy));
    }
}

enum Taken {
    Heard(Heard),
    Interruption,
    Nothing,
}

/// Whether the agent may have seen some of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Yes,
    No,
}

fn broken_by(error: &SendError) -> (Broken, Begun) {
    let begun = if error.was_begun() { Begun::Yes } else { Begun::No };
    match error {
        SendError::NotSent { .. } | SendError::Unfinished { .. } => (Broken::Deadline, begun),
        // Its length was checked before it came here.
        SendError::NotConnected { .. } | SendError::Disconnected { .. } | SendError::TooLong { .. } => {
            (Broken::Connection, begun)
        }
        SendError::Closed { .. } => (Broken::Closed, begun),
    }
}

/// Used once, and small enough for agents that count in floating point.
fn new_sync_id() -> u64 {
    const BITS: u32 = 48;
    rand::random::<u64>() >> (u64::BITS - BITS)
}
