//! Who is connected, and what waits to be sent to them.
//!
//! A client is served as long as it takes what it is sent. One that does not, or that sends what cannot be
//! read, is dropped: the guard has no time for anybody. Nothing a client does reaches its children but orders.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::journal::say;
use crate::wire::socket::{self, Received};
use crate::wire::{self, Answer, Event, Refusal, ToClient, ToGuard};

pub const MOST_CLIENTS: usize = 32;
/// Packets that wait for one client: more than all children exiting at once.
const MOST_WAITING: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// Which order of which client waits for an answer. The client may be gone when the answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub client: ClientId,
    pub number: u64,
}

#[derive(Debug)]
pub struct Client {
    pub socket: OwnedFd,
    pub subscribed: bool,
    waiting: VecDeque<Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    packet: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

#[derive(Debug, Default)]
pub struct Clients {
    connected: BTreeMap<ClientId, Client>,
    next: u64,
}

/// What a readable client had.
pub enum Incoming {
    Nothing,
    Order {
        asker: Asker,
        order: wire::Order,
        descriptors: Vec<OwnedFd>,
    },
}

impl Client {
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Clients {
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.connected.iter().map(|(id, client)| (*id, client))
    }

    pub fn len(&self) -> usize {
        self.connected.len()
    }

    pub fn insert(&mut self, socket: OwnedFd, subscribed: bool) -> ClientId {
        let id = ClientId(self.next);
        self.next += 1;
        let waiting = VecDeque::new();
        self.connected.insert(
            id,
            Client {
                socket,
                subscribed,
                waiting,
            },
        );
        id
    }

    /// Takes everybody who knocks, and turns away whom the guard does not serve.
    pub fn accept(&mut self, listener: &OwnedFd) {
        for _ in 0..MOST_CLIENTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = rustix::net::accept_with(listener, flags) else {
                return;
            };
            match self.admit(&socket) {
                Ok(()) => {
                    self.insert(socket, false);
                }
                Err(refusal) => {
                    say(&format!("a client was turned away: {refusal}"));
                    turn_away(&socket, refusal);
                }
            }
        }
    }

    fn admit(&self, socket: &OwnedFd) -> Result<(), Refusal> {
        let peer = rustix::net::sockopt::socket_peercred(socket).map_err(|errno| Refusal::Failed {
            problem: format!("the credentials of the peer: {errno}"),
        })?;
        let own = rustix::process::geteuid();
        if !peer.uid.is_root() && peer.uid != own {
            return Err(Refusal::NotAllowed {
                uid: peer.uid.as_raw(),
                allowed: own.as_raw(),
            });
        }
        if self.connected.len() >= MOST_CLIENTS {
            return Err(Refusal::TooManyClients { limit: MOST_CLIENTS });
        }
        Ok(())
    }

    /// Takes the next packet of a client. What is no order ends its connection.
    pub fn receive(&mut self, id: ClientId) -> Incoming {
        let Some(client) = self.connected.get(&id) else {
            return Incoming::Nothing;
        };
        let problem = match socket::receive(&client.socket) {
            Err(Errno::AGAIN | Errno::INTR) => return Incoming::Nothing,
            Err(_) | Ok(Received::Closed) => {
                self.connected.remove(&id);
                return Incoming::Nothing;
            }
            Ok(Received::Cut) => format!(
                "longer than {} bytes or more than {} descriptors",
                wire::MAX_PACKET_BYTES,
                wire::MAX_DESCRIPTORS
            ),
            Ok(Received::Packet { bytes, descriptors }) => match wire::decode::<ToGuard>(&bytes) {
                Ok(ToGuard { number, order }) => {
                    let asker = Asker { client: id, number };
                    return Incoming::Order {
                        asker,
                        order,
                        descriptors,
                    };
                }
                Err(error) => in_full(&error),
            },
        };
        say(&format!(
            "a client was dropped for a packet that is no order: {problem}"
        ));
        turn_away(&client.socket, Refusal::Unreadable { problem });
        self.connected.remove(&id);
        Incoming::Nothing
    }

    pub fn answer(&mut self, asker: Asker, answer: Answer, descriptor: Option<OwnedFd>) {
        let to = asker.number;
        let packet = wire::encode(&ToClient::Answer { to, answer }).or_else(|error| {
            let refusal = Refusal::Failed {
                problem: error.to_string(),
            };
            let answer = Answer::Refused(refusal);
            wire::encode(&ToClient::Answer { to, answer })
        });
        match packet {
            Ok(packet) => self.send(asker.client, packet, descriptor),
            // Not even the refusal could be written: the client must not wait for it.
            Err(_) => self.drop_client(asker.client, "its answer cannot be written"),
        }
    }

    pub fn publish(&mut self, event: &Event) {
        let Ok(packet) = wire::encode(&ToClient::Event(event.clone())) else {
            return;
        };
        let subscribed = self.connected.iter().filter(|(_, client)| client.subscribed);
        let ids: Vec<ClientId> = subscribed.map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, packet.clone(), None);
        }
    }

    pub fn subscribe(&mut self, id: ClientId) {
        if let Some(client) = self.connected.get_mut(&id) {
            client.subscribed = true;
        }
    }

    /// Sends what waits, as far as the client takes it.
    pub fn flush(&mut self, id: ClientId) {
        let Some(client) = self.connected.get_mut(&id) else {
            return;
        };
        while let Some(next) = client.waiting.front() {
            match send_one(&client.socket, next) {
                Ok(()) => {
                    client.waiting.pop_front();
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => {
                    self.connected.remove(&id);
                    return;
                }
            }
        }
    }

    fn send(&mut self, id: ClientId, packet: Vec<u8>, descriptor: Option<OwnedFd>) {
        let Some(client) = self.connected.get_mut(&id) else {
            return;
        };
        if client.waiting.len() >= MOST_WAITING {
            self.drop_client(id, "it does not take what it is sent");
            return;
        }
        client.waiting.push_back(Outgoing { packet, descriptor });
        self.flush(id);
    }

    fn drop_client(&mut self, id: ClientId, reason: &str) {
        say(&format!("a client was dropped: {reason}"));
        self.connected.remove(&id);
    }
}

fn send_one(socket: &OwnedFd, outgoing: &Outgoing) -> Result<(), Errno> {
    let descriptor: Vec<_> = outgoing.descriptor.iter().map(AsFd::as_fd).collect();
    socket::send(socket, &outgoing.packet, &descriptor)
}

/// Tells why before the connection closes, if there is room for it.
fn turn_away(socket: &OwnedFd, refusal: Refusal) {
    let answer = Answer::Refused(refusal);
    if let Ok(packet) = wire::encode(&ToClient::Answer { to: 0, answer }) {
        let _ = socket::send(socket, &packet, &[]);
    }
}

/// An error with its causes, in one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
