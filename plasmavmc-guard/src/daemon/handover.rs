//! What one program of a guard leaves to the next: a description, and the descriptors it speaks of.
//!
//! The order of the descriptors: the description itself (a memory file, so its size has no limit of a
//! packet), the lock, the listener, the pidfds of children that run, the clients' sockets, the pidfds of
//! readers of claims, the socket and the pidfd of the sentinel.
//!
//! It is the same boot and the same clock, so the deadline is handed over as it stands, and what is frozen in
//! the children's records. A program that would not know what to do with them does not understand this version.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plasmavmc_types::VmId;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::child::{Child, State};
use super::claims::Readers;
use super::clients::{Asker, Clients};
use super::signals::Signals;
use super::upgrade::{HANDOVER_VERSION, Upgrade};
use super::{Guard, GuardError, Options, cannot};
use crate::deadman::Deadman;
use crate::launch::OriginalLimits;
use crate::records::Record;
use crate::sentinel::Sentinel;
use crate::standing;
use crate::wire::Stale;
use crate::wire::socket::{self, Received};

/// The kernel takes at most 253 with one packet.
const DESCRIPTORS_A_PACKET: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
struct Handover {
    v: u32,
    options: Options,
    program: PathBuf,
    limits: OriginalLimits,
    boot_id: String,
    upgrades: u32,
    stale: Vec<Stale>,
    children: Vec<HandedChild>,
    clients: Vec<HandedClient>,
    #[serde(default)]
    deadman: Deadman,
    /// The VMs that a reader of claims is under way for.
    #[serde(default)]
    readers: Vec<VmId>,
    #[serde(default)]
    sentinel: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedChild {
    record: Record,
    state: HandedState,
    kill_ordered: bool,
    #[serde(default)]
    superseded: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HandedState {
    Running,
    Adopted,
    Exited,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedClient {
    subscribed: bool,
    /// The number of its order to upgrade, to be answered by the new program.
    asked: Option<u64>,
}

/// Returns the socket in which everything waits.
pub fn pack(guard: &Guard, program: &Path, asker: Option<Asker>) -> io::Result<OwnedFd> {
    let mut pidfds = Vec::new();
    let mut children = Vec::new();
    for child in guard.children.values() {
        let (state, pidfd) = hand(child)?;
        pidfds.extend(pidfd);
        children.push(HandedChild {
            record: child.record.clone(),
            state,
            kill_ordered: child.kill_ordered,
            superseded: child.superseded,
        });
    }
    // One that does not take what it is sent gets no further chance.
    let kept: Vec<_> = guard
        .clients
        .iter()
        .filter(|(_, client)| !client.is_waiting())
        .collect();
    let clients = kept.iter().map(|(id, client)| HandedClient {
        subscribed: client.subscribed,
        asked: asker.filter(|asker| asker.client == *id).map(|asker| asker.number),
    });
    let handover = Handover {
        v: HANDOVER_VERSION,
        options: guard.options.clone(),
        program: program.to_owned(),
        limits: guard.limits,
        boot_id: guard.boot_id.clone(),
        upgrades: guard.upgrades,
        stale: guard.stale.clone(),
        children,
        clients: clients.collect(),
        deadman: guard.deadman,
        readers: guard.readers.iter().map(|(vm, _)| vm).collect(),
        sentinel: guard.sentinel.is_some(),
    };
    let description = describe(&handover)?;
    let mut descriptors = vec![description.as_fd(), guard.lock.as_fd(), guard.listener.as_fd()];
    descriptors.extend(pidfds);
    descriptors.extend(kept.iter().map(|(_, client)| client.socket.as_fd()));
    descriptors.extend(guard.readers.iter().map(|(_, reader)| reader.pidfd()));
    let sentinel = guard.sentinel.iter();
    descriptors.extend(sentinel.flat_map(|sentinel| [sentinel.socket.as_fd(), sentinel.pidfd.as_fd()]));
    enclose(&descriptors)
}

fn hand(child: &Child) -> io::Result<(HandedState, Option<BorrowedFd<'_>>)> {
    match &child.state {
        State::Running { pidfd } => Ok((HandedState::Running, Some(pidfd.as_fd()))),
        State::Adopted { pidfd } => Ok((HandedState::Adopted, Some(pidfd.as_fd()))),
        State::Exited => Ok((HandedState::Exited, None)),
        State::Preparing { .. } | State::Registered { .. } | State::Ending { .. } => {
            Err(io::Error::other("a launch is under way"))
        }
    }
}

fn describe(handover: &Handover) -> io::Result<File> {
    let mut file = File::from(memfd_create("handover", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(handover)?)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// Puts copies of all descriptors into a socket, after their number, and returns the end to read from.
fn enclose(descriptors: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    socket::send(
        &ours,
        &u64::try_from(descriptors.len()).unwrap_or(u64::MAX).to_le_bytes(),
        &[],
    )?;
    for chunk in descriptors.chunks(DESCRIPTORS_A_PACKET) {
        socket::send(&ours, b"descriptors", chunk)?;
    }
    Ok(theirs)
}

fn disclose(socket: impl AsFd) -> Result<Vec<OwnedFd>, String> {
    let next = || match socket::receive_waiting(&socket, DESCRIPTORS_A_PACKET) {
        Ok(Received::Packet { bytes, descriptors }) => Ok((bytes, descriptors)),
        Ok(Received::Cut | Received::Closed) => Err("it ends too early".to_owned()),
        Err(errno) => Err(format!("standard input: {errno}")),
    };
    let (bytes, _) = next()?;
    let expected = bytes
        .try_into()
        .map(u64::from_le_bytes)
        .map_err(|_| "it has no count".to_owned())?;
    let expected = usize::try_from(expected).map_err(|_| "its count is too high".to_owned())?;
    let mut received = Vec::new();
    while received.len() < expected {
        let (_, descriptors) = next()?;
        received.extend(descriptors);
    }
    Ok(received)
}

/// The guard as it was, and who waits for the answer to the order to upgrade.
pub fn unpack() -> Result<(Guard, Option<Asker>), GuardError> {
    let problem = |problem: String| GuardError::Handover { problem };
    let mut descriptors = disclose(io::stdin()).map_err(problem)?.into_iter();
    let mut next = || {
        descriptors
            .next()
            .ok_or_else(|| problem("a descriptor is missing".to_owned()))
    };
    let mut description = Vec::new();
    let mut file = File::from(next()?);
    file.read_to_end(&mut description)
        .map_err(cannot("read the handover"))?;
    let handover: Handover = serde_json::from_slice(&description).map_err(|error| problem(error.to_string()))?;
    let (lock, listener) = (next()?, next()?);
    let children = handover
        .children
        .into_iter()
        .map(|handed| Ok((handed.record.key.vm, receive(handed, &mut next)?)))
        .collect::<Result<_, GuardError>>()?;
    let mut clients = Clients::default();
    let mut asker = None;
    for handed in handover.clients {
        let client = clients.insert(next()?, handed.subscribed);
        asker = asker.or(handed.asked.map(|number| Asker { client, number }));
    }
    let mut readers = Readers::default();
    for vm in handover.readers {
        readers.take_over(vm, next()?);
    }
    let sentinel = match handover.sentinel {
        true => Some(Sentinel {
            socket: next()?,
            pidfd: next()?,
        }),
        false => None,
    };
    let guard = Guard {
        options: handover.options,
        program: handover.program,
        limits: handover.limits,
        boot_id: handover.boot_id,
        upgrades: handover.upgrades.saturating_add(1),
        last_upgrade_problem: None,
        standing: standing::take(),
        stale: handover.stale,
        lock,
        listener,
        signals: Signals::receive().map_err(cannot("receive signals"))?,
        clients,
        children,
        deadman: handover.deadman,
        next_tick_ms: 0,
        readers,
        sentinel,
        upgrade: Upgrade::Idle,
        ending: false,
    };
    Ok((guard, asker))
}

fn receive(handed: HandedChild, next: &mut impl FnMut() -> Result<OwnedFd, GuardError>) -> Result<Child, GuardError> {
    let state = match handed.state {
        HandedState::Running => State::Running { pidfd: next()? },
        HandedState::Adopted => State::Adopted { pidfd: next()? },
        HandedState::Exited => State::Exited,
    };
    Ok(Child {
        record: handed.record,
        state,
        kill_ordered: handed.kill_ordered,
        superseded: handed.superseded,
    })
}
