//! What the rest of the program holds of a guest agent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qapi::Command;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::MAX_ANSWER_BYTES;
use super::conversation::Conversation;
use super::error::QgaError;
use super::owner::{Ask, Expect, Owner};
use crate::channel::{Channel, ChannelState};
use crate::qmp::whole_milliseconds;

/// Commands that wait for the owner.
const QUEUE: usize = 16;
/// The longest command that is sent.
const MAX_COMMAND_BYTES: usize = 4 * 1024 * 1024;

/// QEMU tries once a second to connect.
const CONNECTS_WITHIN: Duration = Duration::from_millis(1500);
/// A connection that comes and goes is not waited for again and again.
const CONNECT_TRIES: u32 = 5;

/// How an agent is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentOptions {
    /// How long an agent has for a sync, before it counts as not there.
    pub sync_within: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            sync_within: Duration::from_secs(3),
        }
    }
}

/// An agent that has just answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// How long the sync and the ping took together.
    pub took: Duration,
}

/// A guest agent. It and its channel end when this is dropped or closed; share it behind an `Arc`.
#[derive(Debug)]
pub struct Agent {
    vm: String,
    asks: mpsc::Sender<Ask>,
    channel: watch::Receiver<ChannelState>,
    /// Ends the owner when it goes.
    _alive: oneshot::Sender<()>,
    owner: JoinHandle<()>,
}

impl Agent {
    /// `vm` is the name that errors show. Needs a tokio runtime.
    pub fn attach(channel: Channel, vm: &str, options: AgentOptions) -> Self {
        let (asks, taken) = mpsc::channel(QUEUE);
        let (alive, released) = oneshot::channel();
        let state = channel.state();
        let owner = Owner {
            vm: vm.to_owned(),
            sync_within: options.sync_within,
            sender: channel.sender(),
            channel,
            asks: taken,
            conversation: Conversation::new(MAX_ANSWER_BYTES),
            pending: VecDeque::new(),
            current: String::new(),
        };
        Self {
            vm: vm.to_owned(),
            asks,
            channel: state,
            _alive: alive,
            owner: tokio::spawn(owner.run(released)),
        }
    }

    pub(super) fn vm(&self) -> String {
        self.vm.clone()
    }

    /// Executes a command of the agent's schema.
    pub async fn execute<C: Command>(&self, command: &C, within: Duration) -> Result<C::Ok, QgaError> {
        let arguments = serde_json::to_value(command).map_err(|error| QgaError::BadArguments {
            command: C::NAME.to_owned(),
            problem: error.to_string(),
        })?;
        let answer = self.ask(C::NAME, arguments, Expect::Answer, within).await?;
        serde_json::from_value(answer).map_err(|error| QgaError::Unexpected {
            vm: self.vm(),
            command: C::NAME.to_owned(),
            source: Arc::new(error),
        })
    }

    /// Executes any command. `arguments` is an object, or null for none.
    pub async fn execute_raw(&self, command: &str, arguments: Value, within: Duration) -> Result<Value, QgaError> {
        self.ask(command, arguments, Expect::Answer, within).await
    }

    pub(super) async fn ask(
        &self,
        command: &str,
        arguments: Value,
        expect: Expect,
        within: Duration,
    ) -> Result<Value, QgaError> {
        let bytes = arguments.to_string().len();
        let is_sendable = arguments.is_object() || arguments.is_null();
        if !is_sendable || bytes > MAX_COMMAND_BYTES {
            return Err(QgaError::BadArguments {
                command: command.to_owned(),
                problem: format!("{bytes} bytes of JSON; an object of at most {MAX_COMMAND_BYTES} is needed"),
            });
        }
        let within = whole_milliseconds(within);
        let deadline = Instant::now() + within;
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            name: command.to_owned(),
            arguments,
            expect,
            within,
            deadline,
            answer: Some(answer),
        };
        match tokio::time::timeout_at(deadline.into(), self.asks.send(ask)).await {
            Err(_) => Err(QgaError::Busy {
                vm: self.vm(),
                command: command.to_owned(),
                with: "many other commands".to_owned(),
                after: within,
            }),
            Ok(Err(_)) => Err(QgaError::Closed { vm: self.vm() }),
            // The owner keeps the deadline, since it alone knows how far the command got.
            Ok(Ok(())) => answered
                .await
                .unwrap_or_else(|_| Err(QgaError::Closed { vm: self.vm() })),
        }
    }

    /// Asks for a command to be queued, and for nothing more: for what has to be released when nobody can
    /// wait for it.
    pub(super) fn ask_without_waiting(&self, command: &str, arguments: Value, within: Duration) {
        let ask = Ask {
            name: command.to_owned(),
            arguments,
            expect: Expect::Answer,
            within,
            deadline: Instant::now() + within,
            answer: None,
        };
        // A queue that is full has to do without.
        let _ = self.asks.try_send(ask);
    }

    /// Whether an agent listens: proven by a sync and a ping, not by an open port. After a restart of the server
    /// QEMU needs a moment to connect, which is no silence of the agent: it is waited for.
    pub async fn health(&self, within: Duration) -> Result<Health, QgaError> {
        let start = Instant::now();
        let connects = start + CONNECTS_WITHIN.min(within);
        let mut state = self.channel.clone();
        for _ in 0..CONNECT_TRIES {
            let left = within.saturating_sub(start.elapsed());
            match self.execute(&qapi::qga::guest_ping {}, left).await {
                Err(error @ QgaError::NotConnected { .. }) => {
                    let connected = state.wait_for(|state| state.connected);
                    let in_time = tokio::time::timeout_at(connects.into(), connected).await;
                    if !matches!(in_time, Ok(Ok(_))) {
                        return Err(error);
                    }
                }
                answered => return answered.map(|_| Health { took: start.elapsed() }),
            }
        }
        Err(QgaError::NotConnected { vm: self.vm() })
    }

    /// Ends the conversation and its channel, and waits for both.
    pub async fn close(self) {
        let Self { _alive, owner, .. } = self;
        drop(_alive);
        // It ends at once. A panic in it has been reported by the runtime.
        let _ = owner.await;
    }
}
