//! The task that owns a connection: it writes orders, matches answers with them by number, and hands events
//! on. It reads always, whatever waits to be written, so that the guard never has to wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use super::{CallError, MOST_POSTED};
use crate::wire::socket::{self, Received};
use crate::wire::{self, Answer, Event, Order, Refusal, ToClient, ToGuard};

/// An order on its way to the guard.
#[derive(Debug)]
pub struct Posted {
    pub order: Order,
    pub descriptors: Vec<OwnedFd>,
    pub reply: oneshot::Sender<Result<Reply, CallError>>,
    /// Where events go from now on.
    pub events: Option<mpsc::Sender<Event>>,
}

#[derive(Debug)]
pub struct Reply {
    pub answer: Answer,
    pub descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Connection {
    socket: UnixDatagram,
    orders: mpsc::Receiver<Posted>,
    next_number: u64,
    unsent: VecDeque<(u64, Vec<u8>, Vec<OwnedFd>)>,
    unanswered: BTreeMap<u64, oneshot::Sender<Result<Reply, CallError>>>,
    events: Option<mpsc::Sender<Event>>,
}

/// The connection is over.
struct Over;

impl Connection {
    pub fn new(socket: UnixDatagram, orders: mpsc::Receiver<Posted>) -> Self {
        Self {
            socket,
            orders,
            next_number: 1,
            unsent: VecDeque::new(),
            unanswered: BTreeMap::new(),
            events: None,
        }
    }

    /// Ends when the guard closes, or when nobody is left to give orders or to take events. Whoever waits for
    /// an answer then learns it from the channel that closes.
    pub async fn run(mut self) {
        while self.step().await.is_ok() {}
    }

    async fn step(&mut self) -> Result<(), Over> {
        let mut interest = Interest::READABLE;
        if !self.unsent.is_empty() {
            interest |= Interest::WRITABLE;
        }
        let takes_orders = !self.orders.is_closed() && self.unsent.len() < MOST_POSTED;
        let listening = self.events.clone();
        tokio::select! {
            posted = self.orders.recv(), if takes_orders => match posted {
                Some(posted) => self.enqueue(posted),
                None => self.carry_on_for_events()?,
            },
            () = closed(listening), if self.orders.is_closed() => return Err(Over),
            ready = self.socket.ready(interest) => {
                let ready = ready.map_err(|_| Over)?;
                if ready.is_readable() || ready.is_read_closed() {
                    self.receive()?;
                }
            }
        }
        self.send_unsent()
    }

    /// The last client is gone, but somebody may still take events.
    fn carry_on_for_events(&mut self) -> Result<(), Over> {
        self.orders.close();
        if self.events.is_some() { Ok(()) } else { Err(Over) }
    }

    fn enqueue(&mut self, posted: Posted) {
        let number = self.next_number;
        self.next_number += 1;
        let order = posted.order;
        match wire::encode(&ToGuard { number, order }) {
            Ok(packet) => {
                self.unsent.push_back((number, packet, posted.descriptors));
                self.unanswered.insert(number, posted.reply);
                if posted.events.is_some() {
                    self.events = posted.events;
                }
            }
            Err(error) => {
                // A caller that gave up needs no answer.
                let _ = posted.reply.send(Err(CallError::not_sent(io::Error::other(error))));
            }
        }
        self.unanswered.retain(|_, reply| !reply.is_closed());
    }

    /// As much as the socket takes; the rest when it is writable again.
    fn send_unsent(&mut self) -> Result<(), Over> {
        while let Some((_, packet, descriptors)) = self.unsent.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            let socket = self.socket.as_fd();
            let sent = self
                .socket
                .try_io(Interest::WRITABLE, || Ok(socket::send(socket, packet, &borrowed)?));
            match sent {
                Ok(()) => {
                    self.unsent.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Over> {
        let socket = self.socket.as_fd();
        match self.socket.try_io(Interest::READABLE, || Ok(socket::receive(socket)?)) {
            Ok(received) => self.take(received),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Over),
        }
    }

    fn take(&mut self, received: Received) -> Result<(), Over> {
        let Received::Packet { bytes, descriptors } = received else {
            return Err(Over);
        };
        match wire::decode(&bytes).map_err(|_| Over)? {
            ToClient::Answer { to: 0, answer } => Err(self.turned_away(answer)),
            ToClient::Answer { to, answer } => {
                if let Some(reply) = self.unanswered.remove(&to) {
                    let descriptor = descriptors.into_iter().next();
                    let _ = reply.send(Ok(Reply { answer, descriptor }));
                }
                Ok(())
            }
            ToClient::Event(event) => {
                // A receiver that is full or gone ends the subscription; it learns that by the channel.
                if self
                    .events
                    .as_ref()
                    .is_some_and(|events| events.try_send(event).is_err())
                {
                    self.events = None;
                }
                Ok(())
            }
        }
    }

    /// The guard closes this connection and says why: it concerns everything that waits.
    fn turned_away(&mut self, answer: Answer) -> Over {
        if let Answer::Refused(refusal) = answer {
            for reply in std::mem::take(&mut self.unanswered).into_values() {
                let refusal: Refusal = refusal.clone();
                let _ = reply.send(Err(CallError::Refused(refusal)));
            }
        }
        Over
    }
}

async fn closed(events: Option<mpsc::Sender<Event>>) {
    match events {
        Some(events) => events.closed().await,
        None => std::future::ready(()).await,
    }
}
