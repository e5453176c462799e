//! The one task that owns a monitor's socket.
//!
//! Must never: wait for anything but the socket, the queue of commands, and the next deadline; so neither
//! a slow caller nor a slow subscriber holds it up.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::error::{CloseReason, QmpError};
use super::event::Event;
use super::session::{Outcome, Output, Request, Session};

const READ_BYTES: usize = 64 * 1024;
/// Reads in a row before deadlines and new commands are looked at again.
const READS_PER_TURN: usize = 16;

/// What the handles tell the task.
pub(super) enum Order {
    Execute(Ask),
    EnableOob,
    Close,
}

/// A command, and who waits for it.
pub(super) struct Ask {
    pub name: String,
    pub arguments: Value,
    pub oob: bool,
    pub fd: Option<OwnedFd>,
    pub within: Duration,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<Value, QmpError>>,
}

struct Asker {
    name: String,
    within: Duration,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

impl Asker {
    fn tell(self, outcome: Outcome) {
        let Self {
            name: command,
            within: after,
            answer,
        } = self;
        let result = match outcome {
            Outcome::Answered(result) => result.map_err(|refusal| QmpError::Refused { command, refusal }),
            Outcome::NotSent => Err(QmpError::NotSent { command, after }),
            Outcome::NoAnswer => Err(QmpError::NoAnswer { command, after }),
        };
        // Whoever asked may be gone: then nobody needs to know.
        let _ = answer.send(result);
    }
}

pub(super) struct Task {
    pub stream: UnixStream,
    pub orders: mpsc::Receiver<Order>,
    pub events: broadcast::Sender<Event>,
    /// Where the end of the connection is told.
    pub ended: watch::Sender<Option<Arc<CloseReason>>>,
}

impl Task {
    pub async fn run(mut self) {
        let mut session = Session::new();
        let reason = Arc::new(self.converse(&mut session).await);
        tracing::debug!(%reason, "the connection to QEMU's monitor has ended");
        // From here on nothing can be asked, and what waits in the queue is told so.
        self.orders.close();
        drop(self.stream);
        self.ended.send_replace(Some(Arc::clone(&reason)));
        for (asker, sent) in session.end() {
            let (command, reason) = (asker.name, Arc::clone(&reason));
            let error = if sent {
                QmpError::Interrupted { command, reason }
            } else {
                QmpError::Closed { command, reason }
            };
            let _ = asker.answer.send(Err(error));
        }
        while let Some(order) = self.orders.recv().await {
            if let Order::Execute(Ask { name, answer, .. }) = order {
                let reason = Arc::clone(&reason);
                let _ = answer.send(Err(QmpError::Closed { command: name, reason }));
            }
        }
    }

    async fn converse(&mut self, session: &mut Session<Asker>) -> CloseReason {
        let mut outputs = Vec::new();
        loop {
            session.withdraw(|asker| asker.answer.is_closed());
            let interest = match session.transmit() {
                Some(_) => Interest::READABLE | Interest::WRITABLE,
                None => Interest::READABLE,
            };
            let deadline = session.next_deadline();
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Execute(ask)) => submit(session, ask),
                    Some(Order::EnableOob) => session.enable_oob(),
                    Some(Order::Close) | None => return CloseReason::Released,
                },
                ready = self.stream.ready(interest) => {
                    if let Err(reason) = ready.map_err(CloseReason::Io).and_then(|ready| {
                        if ready.is_writable() {
                            self.write(session)?;
                        }
                        if ready.is_readable() {
                            self.read(session, &mut outputs)?;
                        }
                        Ok(())
                    }) {
                        self.deliver(&mut outputs);
                        return reason;
                    }
                },
                () = passed(deadline) => {}
            }
            session.expire(Instant::now(), &mut outputs);
            self.deliver(&mut outputs);
        }
    }

    fn read(&self, session: &mut Session<Asker>, outputs: &mut Vec<Output<Asker>>) -> Result<(), CloseReason> {
        // Not kept: hundreds of idle connections would hold one each.
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(CloseReason::Eof),
                Ok(count) => session
                    .receive(&buffer[..count], outputs)
                    .map_err(CloseReason::NotQmp)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A QEMU that is killed with commands unread resets the connection.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(CloseReason::Eof),
                Err(error) => return Err(CloseReason::Io(error)),
            }
        }
        Ok(())
    }

    fn write(&self, session: &mut Session<Asker>) -> Result<(), CloseReason> {
        while let Some((bytes, fd)) = session.transmit() {
            let sent = self
                .stream
                .try_io(Interest::WRITABLE, || send(self.stream.as_fd(), bytes, fd));
            match sent {
                Ok(count) => session.transmitted(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The replies to what was read before may still be there to read: the end comes after them.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(CloseReason::Eof),
                Err(error) => return Err(CloseReason::Io(error)),
            }
        }
        Ok(())
    }

    fn deliver(&self, outputs: &mut Vec<Output<Asker>>) {
        for output in outputs.drain(..) {
            match output {
                Output::Done { token, outcome } => token.tell(outcome),
                Output::Event(event) => {
                    // Nobody may listen just now.
                    let _ = self.events.send(event);
                }
                Output::Late { id } => tracing::debug!(id, "QEMU answered after the deadline"),
                Output::Stray(text) => tracing::warn!(text, "QEMU sent what cannot be used"),
            }
        }
    }
}

fn submit(session: &mut Session<Asker>, ask: Ask) {
    let token = Asker {
        name: ask.name.clone(),
        within: ask.within,
        answer: ask.answer,
    };
    if !session.has_room() {
        // A queue that is full of commands QEMU does not take has no turn to offer.
        return token.tell(Outcome::NotSent);
    }
    session.submit(Request {
        token,
        name: ask.name,
        arguments: ask.arguments,
        oob: ask.oob,
        fd: ask.fd,
        deadline: ask.deadline,
    });
}

/// Writes, and hands over the descriptor with the first byte.
fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the descriptor to pass"));
    }
    let parts = [io::IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL).map_err(io::Error::from)
}

/// When the moment has passed; never, without one.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
