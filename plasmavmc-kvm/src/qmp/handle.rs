//! What the rest of the program holds of a connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qapi::Command;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::MAX_COMMAND_BYTES;
use super::error::{CloseReason, QmpError};
use super::event::{Event, Events};
use super::message::Greeting;
use super::task::{Ask, Order};

/// A connection to QEMU's monitor. Clones are the same connection; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Qmp {
    pub(super) orders: mpsc::Sender<Order>,
    /// Weak, so that subscribers see the end.
    pub(super) events: broadcast::WeakSender<Event>,
    pub(super) ended: watch::Receiver<Option<Arc<CloseReason>>>,
    pub(super) greeting: Arc<Greeting>,
    pub(super) oob: bool,
    pub(super) peer_pid: Option<i32>,
}

/// How a command goes out.
pub(super) struct Sending {
    pub oob: bool,
    pub fd: Option<OwnedFd>,
}

impl Qmp {
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Whether commands can really be executed out of band here.
    pub fn has_oob(&self) -> bool {
        self.oob
    }

    /// The process that opened the monitor's socket, as the kernel tells it: who adopts a QEMU compares it
    /// with the process it believes to speak to.
    pub fn peer_pid(&self) -> Option<i32> {
        self.peer_pid
    }

    /// Executes a command of QEMU's schema. Dropping the future withdraws a command that is not sent yet.
    pub async fn execute<C: Command>(&self, command: &C, within: Duration) -> Result<C::Ok, QmpError> {
        self.execute_typed(command, false, within).await
    }

    /// The same past all commands in their turn, if QEMU does that for this command; in its turn otherwise.
    pub async fn execute_oob<C: Command>(&self, command: &C, within: Duration) -> Result<C::Ok, QmpError> {
        self.execute_typed(command, C::ALLOW_OOB, within).await
    }

    async fn execute_typed<C: Command>(&self, command: &C, oob: bool, within: Duration) -> Result<C::Ok, QmpError> {
        let arguments = serde_json::to_value(command).map_err(|error| QmpError::BadArguments {
            command: C::NAME.to_owned(),
            problem: error.to_string(),
        })?;
        let answer = self.send(C::NAME, arguments, Sending { oob, fd: None }, within).await?;
        serde_json::from_value(answer).map_err(|error| QmpError::Unexpected {
            command: C::NAME.to_owned(),
            source: Arc::new(error),
        })
    }

    /// Executes any command. `arguments` is an object, or null for none.
    pub async fn execute_raw(&self, command: &str, arguments: Value, within: Duration) -> Result<Value, QmpError> {
        let sending = Sending { oob: false, fd: None };
        self.send(command, arguments, sending, within).await
    }

    pub(super) async fn send(
        &self,
        command: &str,
        arguments: Value,
        Sending { oob, fd }: Sending,
        within: Duration,
    ) -> Result<Value, QmpError> {
        check(command, &arguments)?;
        let within = whole_milliseconds(within);
        let deadline = Instant::now() + within;
        let (answer, answered) = oneshot::channel();
        let order = Order::Execute(Ask {
            name: command.to_owned(),
            arguments,
            oob,
            fd,
            within,
            deadline,
            answer,
        });
        match tokio::time::timeout_at(deadline.into(), self.orders.send(order)).await {
            Err(_) => Err(QmpError::NotSent {
                command: command.to_owned(),
                after: within,
            }),
            Ok(Err(_)) => Err(self.closed_error(command)),
            // The task keeps the deadline, since it alone knows whether anything was sent.
            Ok(Ok(())) => answered.await.unwrap_or_else(|_| Err(self.closed_error(command))),
        }
    }

    fn closed_error(&self, command: &str) -> QmpError {
        let reason = self.ended.borrow().clone();
        QmpError::Closed {
            command: command.to_owned(),
            reason: reason.unwrap_or_else(|| Arc::new(CloseReason::Released)),
        }
    }

    /// Events from now on.
    pub fn events(&self) -> Events {
        Events::new(self.events.upgrade().map(|events| events.subscribe()))
    }

    /// Why the connection has ended; empty while it has not.
    pub fn end_reason(&self) -> Option<Arc<CloseReason>> {
        self.ended.borrow().clone()
    }

    /// Waits for the connection to end.
    pub async fn ended(&self) -> Arc<CloseReason> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Arc::new(CloseReason::Released)),
            Err(_) => Arc::new(CloseReason::Released),
        }
    }

    /// Ends the connection for all clones, and waits until the socket is closed. QEMU goes on.
    pub async fn close(self) {
        // An error means that it has ended already.
        if self.orders.send(Order::Close).await.is_ok() {
            self.ended().await;
        }
    }
}

/// What is left of a deadline is shown to people, too.
pub(crate) fn whole_milliseconds(duration: Duration) -> Duration {
    Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000)
}

/// What can be told without asking QEMU.
fn check(command: &str, arguments: &Value) -> Result<(), QmpError> {
    if !arguments.is_object() && !arguments.is_null() {
        return Err(QmpError::BadArguments {
            command: command.to_owned(),
            problem: super::refusal::excerpt(arguments.to_string().as_bytes()),
        });
    }
    let bytes = command.len() + arguments.to_string().len();
    if bytes > MAX_COMMAND_BYTES {
        return Err(QmpError::TooLong {
            command: command.to_owned(),
            bytes,
            limit: MAX_COMMAND_BYTES,
        });
    }
    Ok(())
}
