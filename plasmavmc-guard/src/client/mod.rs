//! How the server talks to the guard.
//!
//! A [`Client`] is a connection; its clones share it, and their orders go out side by side. When it breaks,
//! everything that waits is told so and the client is of no more use: connecting again, and asking the guard
//! what became of orders without an answer, is the caller's business, because only the caller knows what it
//! wanted. Every wait has a deadline.

mod connection;
mod ensure;
mod error;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use plasmavmc_types::{Epoch, VmId};
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::wire::socket;
use crate::wire::{Answer, Event, Held, Key, Order, SpawnOrder, Status};
use connection::{Connection, Posted, Reply};

pub use ensure::ensure_running;
pub use error::{CallError, ConnectError, EnsureError};

/// A guard answers at once, or something is wrong with it or the host.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The guard gives up on a launch after 10 s, on an upgrade after 17 s, and then answers.
const SPAWN_PATIENCE: Duration = Duration::from_secs(13);
const UPGRADE_PATIENCE: Duration = Duration::from_secs(20);
/// Orders of this process that wait to be sent.
const MOST_POSTED: usize = 64;
/// Events that wait to be taken: more than all children exiting at once.
const MOST_EVENTS: usize = 1024;

/// A connection to a guard.
#[derive(Debug, Clone)]
pub struct Client {
    posted: mpsc::Sender<Posted>,
}

/// What happens to children without being ordered, from the moment of subscribing on: exits, and freezings.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// `None` when the connection broke, or when events came faster than they were taken: then connect or
    /// subscribe again, and list.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Client {
    /// Connects to the guard that serves a folder. Must be called within a tokio runtime.
    pub fn connect(folder: &Path) -> Result<Self, ConnectError> {
        let failed = |source: std::io::Error| ConnectError {
            folder: folder.to_owned(),
            source,
        };
        let socket = socket::connect(folder).map_err(|errno| failed(errno.into()))?;
        // Any socket of tokio's will do: it is only asked when the descriptor is ready.
        let socket = UnixDatagram::from_std(socket.into()).map_err(failed)?;
        let (posted, orders) = mpsc::channel(MOST_POSTED);
        // It ends when the last clone of this client is dropped or the guard closes.
        tokio::spawn(Connection::new(socket, orders).run());
        Ok(Self { posted })
    }

    pub async fn status(&self) -> Result<Status, CallError> {
        match self.call(Order::Status, Vec::new(), ANSWER_PATIENCE).await?.answer {
            Answer::Status(status) => Ok(*status),
            other => Err(CallError::strange(&other)),
        }
    }

    /// All that the guard holds, sorted by VM.
    pub async fn list(&self) -> Result<Vec<Held>, CallError> {
        let mut all: Vec<Held> = Vec::new();
        loop {
            let after: Option<VmId> = all.last().map(|held| held.key.vm);
            match self
                .call(Order::List { after }, Vec::new(), ANSWER_PATIENCE)
                .await?
                .answer
            {
                Answer::List { held, more } => {
                    let is_last = !more || held.is_empty();
                    all.extend(held);
                    if is_last {
                        return Ok(all);
                    }
                }
                other => return Err(CallError::strange(&other)),
            }
        }
    }

    /// Runs a process. Repeating an order that was carried out answers with the same process.
    ///
    /// The descriptors are sent as copies; the caller's stay open.
    pub async fn spawn(&self, order: SpawnOrder, descriptors: &[BorrowedFd<'_>]) -> Result<Held, CallError> {
        let copies = descriptors.iter().map(|descriptor| descriptor.try_clone_to_owned());
        let copies: Vec<OwnedFd> = copies.collect::<Result<_, _>>().map_err(CallError::not_sent)?;
        let order = Order::Spawn(Box::new(order));
        held(self.call(order, copies, SPAWN_PATIENCE).await?).map(|(held, _)| held)
    }

    /// Sends SIGKILL. The end of the process comes as an event.
    pub async fn kill(&self, key: Key) -> Result<Held, CallError> {
        held(self.call(Order::Kill(key), Vec::new(), ANSWER_PATIENCE).await?).map(|(held, _)| held)
    }

    /// Makes the guard forget a child that exited, and says one last time how.
    pub async fn collect(&self, key: Key) -> Result<Held, CallError> {
        held(self.call(Order::Collect(key), Vec::new(), ANSWER_PATIENCE).await?).map(|(held, _)| held)
    }

    /// A pidfd of a child that has not exited.
    pub async fn pidfd(&self, key: Key) -> Result<OwnedFd, CallError> {
        let (held, pidfd) = held(self.call(Order::Pidfd(key), Vec::new(), ANSWER_PATIENCE).await?)?;
        pidfd.ok_or_else(|| CallError::strange(&Answer::Held(held)))
    }

    /// Lets leased children execute until this moment, in milliseconds of CLOCK_BOOTTIME. What is frozen stays so.
    pub async fn lease(&self, epoch: Epoch, until_boottime_ms: u64) -> Result<(), CallError> {
        let order = Order::Lease {
            epoch,
            until_boottime_ms,
        };
        done(self.call(order, Vec::new(), ANSWER_PATIENCE).await?)
    }

    /// Lets a frozen child go on, if the deadline is ahead and of this session. One that is not frozen is no error.
    pub async fn thaw(&self, key: Key, epoch: Epoch) -> Result<Held, CallError> {
        held(
            self.call(Order::Thaw { key, epoch }, Vec::new(), ANSWER_PATIENCE)
                .await?,
        )
        .map(|(held, _)| held)
    }

    /// Takes the place of an earlier subscription of this connection.
    pub async fn subscribe(&self) -> Result<Events, CallError> {
        let (sender, events) = mpsc::channel(MOST_EVENTS);
        let (reply, answered) = oneshot::channel();
        let posted = Posted {
            order: Order::Subscribe,
            descriptors: Vec::new(),
            reply,
            events: Some(sender),
        };
        done(self.exchange(posted, answered, ANSWER_PATIENCE).await?)?;
        Ok(Events { events })
    }

    /// Replaces the guard's program in place: by this one, or by what lies at its own path now.
    pub async fn upgrade(&self, program: Option<String>) -> Result<(), CallError> {
        let order = Order::Upgrade { program };
        done(self.call(order, Vec::new(), UPGRADE_PATIENCE).await?)
    }

    /// Ends the guard.
    pub async fn stop(&self, leave_running: bool) -> Result<(), CallError> {
        let order = Order::Stop { leave_running };
        done(self.call(order, Vec::new(), ANSWER_PATIENCE).await?)
    }

    async fn call(&self, order: Order, descriptors: Vec<OwnedFd>, patience: Duration) -> Result<Reply, CallError> {
        let (reply, answered) = oneshot::channel();
        let posted = Posted {
            order,
            descriptors,
            reply,
            events: None,
        };
        self.exchange(posted, answered, patience).await
    }

    async fn exchange(
        &self,
        posted: Posted,
        answered: oneshot::Receiver<Result<Reply, CallError>>,
        patience: Duration,
    ) -> Result<Reply, CallError> {
        let waiting = async {
            self.posted.send(posted).await.map_err(|_| CallError::closed_before())?;
            answered.await.map_err(|_| CallError::Unanswered)?
        };
        let reply = timeout(patience, waiting)
            .await
            .map_err(|_| CallError::TimedOut { after: patience })??;
        match reply.answer {
            Answer::Refused(refusal) => Err(CallError::Refused(refusal)),
            answer => Ok(Reply { answer, ..reply }),
        }
    }
}

fn held(reply: Reply) -> Result<(Held, Option<OwnedFd>), CallError> {
    match reply.answer {
        Answer::Held(held) => Ok((held, reply.descriptor)),
        other => Err(CallError::strange(&other)),
    }
}

fn done(reply: Reply) -> Result<(), CallError> {
    match reply.answer {
        Answer::Done => Ok(()),
        other => Err(CallError::strange(&other)),
    }
}
