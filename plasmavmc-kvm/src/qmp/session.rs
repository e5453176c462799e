//! The conversation itself, without a socket: bytes and the time in, bytes and outcomes out.
//!
//! QEMU reads ahead at most eight commands and then stops reading, out-of-band ones included. So no more
//! than [`WINDOW`] are ever unanswered, the rest waits here: a `migrate-pause` or a `stop` out of band then
//! gets through to a QEMU that hangs in an earlier command. A command whose deadline passed keeps its place
//! in the window until its reply comes, because it keeps its place in QEMU.
//!
//! Must never: reuse an id, answer a command twice, or send a second command with a descriptor before the
//! first is answered (QEMU holds received descriptors in one place, whoever takes them first has them).

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use serde_json::Value;

use super::MAX_LINE_BYTES;
use super::event::Event;
use super::message::Message;
use super::refusal::Refusal;
use crate::channel::{LineTooLong, Lines};

/// One less than QEMU reads ahead.
const WINDOW: usize = 7;
/// Out-of-band commands are executed at once, so few are ever needed.
const OOB_WINDOW: usize = 4;
/// Commands that wait for room in the window.
const MAX_WAITING: usize = 128;

/// A command to send.
pub(super) struct Request<T> {
    pub name: String,
    /// An object, or null for none.
    pub arguments: Value,
    /// Out of band, if QEMU does that; in its turn otherwise.
    pub oob: bool,
    pub fd: Option<OwnedFd>,
    pub deadline: Instant,
    /// Comes back with the outcome.
    pub token: T,
}

/// What became of a command.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Answered(Result<Value, Refusal>),
    /// Nothing of it was sent.
    NotSent,
    NoAnswer,
}

#[derive(Debug, PartialEq)]
pub(super) enum Output<T> {
    Done {
        token: T,
        outcome: Outcome,
    },
    Event(Event),
    /// A reply to a command that has its outcome already.
    Late {
        id: u64,
    },
    Stray(String),
}

struct Waiting<T> {
    id: u64,
    frame: Vec<u8>,
    lane: Lane,
    fd: Option<OwnedFd>,
    deadline: Instant,
    token: T,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    InTurn,
    OutOfBand,
}

struct OnWire<T> {
    lane: Lane,
    carries_fd: bool,
    /// Gone once the deadline has passed.
    asker: Option<(Instant, T)>,
}

/// The command that is being written.
struct Outgoing {
    id: u64,
    frame: Vec<u8>,
    written: usize,
    fd: Option<OwnedFd>,
}

pub(super) struct Session<T> {
    lines: Lines,
    oob: bool,
    next_id: u64,
    in_turn: VecDeque<Waiting<T>>,
    out_of_band: VecDeque<Waiting<T>>,
    outgoing: Option<Outgoing>,
    on_wire: BTreeMap<u64, OnWire<T>>,
}

impl<T> Session<T> {
    pub fn new() -> Self {
        Self {
            lines: Lines::new(MAX_LINE_BYTES),
            oob: false,
            next_id: 1,
            in_turn: VecDeque::new(),
            out_of_band: VecDeque::new(),
            outgoing: None,
            on_wire: BTreeMap::new(),
        }
    }

    /// QEMU has agreed to execute out of band.
    pub fn enable_oob(&mut self) {
        self.oob = true;
    }

    /// Whether another command may be submitted.
    pub fn has_room(&self) -> bool {
        self.in_turn.len() + self.out_of_band.len() < MAX_WAITING
    }

    pub fn submit(&mut self, request: Request<T>) {
        let id = self.next_id;
        self.next_id += 1;
        let lane = if request.oob && self.oob {
            Lane::OutOfBand
        } else {
            Lane::InTurn
        };
        let waiting = Waiting {
            id,
            frame: frame(lane, &request.name, request.arguments, id),
            lane,
            fd: request.fd,
            deadline: request.deadline,
            token: request.token,
        };
        match lane {
            Lane::InTurn => self.in_turn.push_back(waiting),
            Lane::OutOfBand => self.out_of_band.push_back(waiting),
        }
    }

    /// Forgets waiting commands that nobody wants any more.
    pub fn withdraw(&mut self, unwanted: impl Fn(&T) -> bool) {
        self.in_turn.retain(|waiting| !unwanted(&waiting.token));
        self.out_of_band.retain(|waiting| !unwanted(&waiting.token));
    }

    /// What to write now, with the descriptor that goes with its first byte.
    pub fn transmit(&mut self) -> Option<(&[u8], Option<BorrowedFd<'_>>)> {
        if self.outgoing.is_none() {
            let next = self.take_next()?;
            self.on_wire.insert(
                next.id,
                OnWire {
                    lane: next.lane,
                    carries_fd: next.fd.is_some(),
                    asker: Some((next.deadline, next.token)),
                },
            );
            self.outgoing = Some(Outgoing {
                id: next.id,
                frame: next.frame,
                written: 0,
                fd: next.fd,
            });
        }
        let outgoing = self.outgoing.as_ref()?;
        Some((
            &outgoing.frame[outgoing.written..],
            outgoing.fd.as_ref().map(AsFd::as_fd),
        ))
    }

    fn take_next(&mut self) -> Option<Waiting<T>> {
        let unanswered = |lane| self.on_wire.values().filter(|command| command.lane == lane).count();
        if unanswered(Lane::OutOfBand) < OOB_WINDOW
            && let Some(next) = self.out_of_band.pop_front()
        {
            return Some(next);
        }
        if unanswered(Lane::InTurn) >= WINDOW {
            return None;
        }
        let fd_in_flight = self.on_wire.values().any(|command| command.carries_fd);
        // Nothing overtakes: commands are carried out in the order in which they were given.
        self.in_turn.pop_front_if(|next| next.fd.is_none() || !fd_in_flight)
    }

    /// So many bytes of what `transmit` gave were written.
    pub fn transmitted(&mut self, bytes: usize) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.written += bytes;
            outgoing.fd = None;
            if outgoing.written >= outgoing.frame.len() {
                self.outgoing = None;
            }
        }
    }

    /// Takes in what was read. An error means that the connection is of no use any more.
    pub fn receive(&mut self, bytes: &[u8], outputs: &mut Vec<Output<T>>) -> Result<(), LineTooLong> {
        self.lines.push(bytes);
        loop {
            let message = match self.lines.next_line()? {
                None => return Ok(()),
                Some([]) => continue,
                Some(line) => Message::from_line(line),
            };
            match message {
                Message::Event(event) => outputs.push(Output::Event(event)),
                Message::Stray(text) => outputs.push(Output::Stray(text)),
                Message::Greeting(_) => outputs.push(Output::Stray("a second greeting".to_owned())),
                Message::Reply { id, result } => outputs.push(self.answer(id, result)),
            }
        }
    }

    fn answer(&mut self, id: u64, result: Result<Value, Refusal>) -> Output<T> {
        // What was not even written in full cannot have been answered; its turn is still to come.
        let being_written = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.id == id);
        if being_written {
            return Output::Stray(format!("a reply to {id}, which is not sent yet"));
        }
        match self.on_wire.remove(&id).map(|command| command.asker) {
            Some(Some((_, token))) => Output::Done {
                token,
                outcome: Outcome::Answered(result),
            },
            Some(None) => Output::Late { id },
            // Twice answered, or never asked.
            None => Output::Stray(format!("a reply to {id}, which nobody waits for")),
        }
    }

    /// The next moment at which `expire` has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self
            .in_turn
            .iter()
            .chain(&self.out_of_band)
            .map(|waiting| waiting.deadline);
        let sent = self.on_wire.values().filter_map(|command| command.asker.as_ref());
        waiting.chain(sent.map(|(deadline, _)| *deadline)).min()
    }

    /// Ends what has not been answered in time.
    pub fn expire(&mut self, now: Instant, outputs: &mut Vec<Output<T>>) {
        for queue in [&mut self.in_turn, &mut self.out_of_band] {
            let (late, in_time) = std::mem::take(queue)
                .into_iter()
                .partition(|waiting| waiting.deadline <= now);
            *queue = in_time;
            let late: VecDeque<Waiting<T>> = late;
            outputs.extend(late.into_iter().map(|waiting| Output::Done {
                token: waiting.token,
                outcome: Outcome::NotSent,
            }));
        }
        if let Some(outgoing) = &self.outgoing
            && outgoing.written == 0
            && let Some(command) = self.on_wire.get(&outgoing.id)
            && command.asker.as_ref().is_some_and(|(deadline, _)| *deadline <= now)
        {
            let asker = self.on_wire.remove(&outgoing.id).and_then(|command| command.asker);
            self.outgoing = None;
            outputs.extend(asker.map(|(_, token)| Output::Done {
                token,
                outcome: Outcome::NotSent,
            }));
        }
        for command in self.on_wire.values_mut() {
            if let Some((_, token)) = command.asker.take_if(|(deadline, _)| *deadline <= now) {
                let outcome = Outcome::NoAnswer;
                outputs.push(Output::Done { token, outcome });
            }
        }
    }

    /// All commands that still wait, and whether something of them was sent.
    pub fn end(self) -> impl Iterator<Item = (T, bool)> {
        let unsent = self
            .outgoing
            .filter(|outgoing| outgoing.written == 0)
            .map(|outgoing| outgoing.id);
        let sent = self.on_wire.into_iter().filter_map(move |(id, command)| {
            let (_, token) = command.asker?;
            Some((token, unsent != Some(id)))
        });
        let waiting = self.in_turn.into_iter().chain(self.out_of_band);
        sent.chain(waiting.map(|waiting| (waiting.token, false)))
    }
}

/// A command as it is sent.
fn frame(lane: Lane, name: &str, arguments: Value, id: u64) -> Vec<u8> {
    let verb = match lane {
        Lane::InTurn => "execute",
        Lane::OutOfBand => "exec-oob",
    };
    let mut command = serde_json::Map::new();
    command.insert(verb.to_owned(), name.into());
    if !arguments.is_null() {
        command.insert("arguments".to_owned(), arguments);
    }
    command.insert("id".to_owned(), id.into());
    let mut frame = Value::Object(command).to_string().into_bytes();
    frame.push(b'\n');
    frame
}

#[cfg(test)]
mod tests;
