//! The one task that owns a channel's listener and its session.
//!
//! Must never: wait for anything but sockets, orders and the next deadline.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::inbox::{Inbox, Incoming};
use super::outbox::{Fate, Outbox};
use super::port::ChannelState;
use super::socket::Listener;

const READ_BYTES: usize = 64 * 1024;
/// Reads in a row before orders and deadlines are looked at again.
const READS_PER_TURN: usize = 16;
/// A process out of descriptors cannot accept; it must not try again without a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the ends of the channel tell the task.
pub(super) enum Order {
    Send {
        frame: Vec<u8>,
        deadline: Instant,
        /// Told nothing if there is no session.
        fate: oneshot::Sender<Option<Fate>>,
    },
    Disconnect,
}

type Told = oneshot::Sender<Option<Fate>>;

pub(super) struct Task {
    listener: Listener,
    inbox: Arc<Inbox>,
    orders: mpsc::Receiver<Order>,
    publish: watch::Sender<ChannelState>,
    session: Option<UnixStream>,
    outbox: Outbox<Told>,
    fates: Vec<(Told, Fate)>,
    accept_after: Option<Instant>,
}

/// What a session's stream has to say.
#[derive(PartialEq, Eq)]
enum Stream {
    Open,
    Ended,
}

impl Task {
    pub fn new(
        listener: Listener,
        inbox: Arc<Inbox>,
        orders: mpsc::Receiver<Order>,
        publish: watch::Sender<ChannelState>,
    ) -> Self {
        Self {
            listener,
            inbox,
            orders,
            publish,
            session: None,
            outbox: Outbox::new(),
            fates: Vec::new(),
            accept_after: None,
        }
    }

    pub async fn run(mut self, mut released: oneshot::Receiver<()>) {
        loop {
            let deadline = self.outbox.next_deadline();
            let wants_to_write = self.outbox.next().is_some();
            tokio::select! {
                _ = &mut released => break,
                accepted = self.listener.accept(), if self.accept_after.is_none() => self.accepted(accepted),
                () = passed(self.accept_after) => self.accept_after = None,
                Some(order) = self.orders.recv() => self.obey(order),
                ready = ready(self.session.as_ref(), wants_to_write) => self.serve(ready),
                () = passed(deadline) => {}
            }
            self.outbox.expire(Instant::now(), &mut self.fates);
            self.tell_fates();
        }
        self.end_session();
        self.tell_fates();
        self.inbox.close();
    }

    fn accepted(&mut self, accepted: io::Result<UnixStream>) {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(path = ?self.listener.path(), %error, "cannot accept QEMU's connection");
                self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
        };
        // What QEMU wrote before it gave the old connection up is still in there.
        self.drain();
        self.end_session();
        let peer_pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        self.session = Some(stream);
        self.inbox.put(Incoming::Connected);
        self.publish.send_modify(|state| {
            state.sessions += 1;
            state.connected = true;
            state.peer_pid = peer_pid;
        });
    }

    fn obey(&mut self, order: Order) {
        match order {
            // A queue that is full of frames nobody reads has no turn to offer.
            Order::Send { fate, .. } if !self.outbox.has_room() => self.fates.push((fate, Fate::NotSent)),
            Order::Send { frame, deadline, fate } if self.session.is_some() => self.outbox.push(frame, deadline, fate),
            Order::Send { fate, .. } => {
                // Whoever sent it may be gone.
                let _ = fate.send(None);
            }
            Order::Disconnect => self.end_session(),
        }
    }

    fn serve(&mut self, ready: io::Result<tokio::io::Ready>) {
        let ended = match ready {
            Ok(ready) => {
                let read = if ready.is_readable() {
                    self.drain()
                } else {
                    Stream::Open
                };
                if ready.is_writable() {
                    self.write();
                }
                read == Stream::Ended
            }
            Err(_) => true,
        };
        if ended {
            self.end_session();
        }
    }

    /// Reads what is there, up to a turn's share.
    fn drain(&mut self) -> Stream {
        let Some(session) = &self.session else {
            return Stream::Open;
        };
        // Not kept: hundreds of idle channels would hold one each.
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            match session.try_read(&mut buffer) {
                Ok(0) => return Stream::Ended,
                Ok(count) => self.inbox.put_data(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Stream::Open,
                // However it broke: it is over, and QEMU makes a new one.
                Err(_) => return Stream::Ended,
            }
        }
        Stream::Open
    }

    /// Writes what fits. That the session has ended is seen by reading, after the last bytes it sent.
    fn write(&mut self) {
        let Some(session) = &self.session else { return };
        while let Some(bytes) = self.outbox.next() {
            match session.try_write(bytes) {
                Ok(count) => self.outbox.written(count, &mut self.fates),
                Err(_) => return,
            }
        }
    }

    fn end_session(&mut self) {
        if self.session.take().is_none() {
            return;
        }
        self.outbox.disconnect(&mut self.fates);
        self.inbox.put(Incoming::Disconnected);
        self.publish.send_modify(|state| {
            state.connected = false;
            state.peer_pid = None;
        });
    }

    fn tell_fates(&mut self) {
        for (told, fate) in self.fates.drain(..) {
            // Whoever sent it may be gone.
            let _ = told.send(Some(fate));
        }
    }
}

async fn ready(session: Option<&UnixStream>, wants_to_write: bool) -> io::Result<tokio::io::Ready> {
    let interest = if wants_to_write {
        Interest::READABLE | Interest::WRITABLE
    } else {
        Interest::READABLE
    };
    match session {
        Some(session) => session.ready(interest).await,
        None => std::future::pending().await,
    }
}

/// When the moment has passed; never, without one.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
