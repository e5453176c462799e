//! What a guard and its clients say to each other.
//!
//! One packet of a SOCK_SEQPACKET socket is one message in JSON, with descriptors beside it where the
//! message calls for them. Every packet names the version of this language first, so that a stranger gets
//! told so instead of being misread. Orders are numbered by the client and answered under their number, in
//! any order; events are not asked for one by one.
//!
//! Must never happen: a packet that the other side could not tell whole from cut, or an unbounded one.

pub(crate) mod order;
mod refusal;
pub mod socket;

use plasmavmc_types::{AttemptId, Epoch, Incarnation, VmId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use order::{Cgroup, DeathSignal, Lease, Output, Owner, SpawnOrder};
pub use refusal::{Refusal, Step};

/// The version of everything in this module. It stays while the packets of older releases can still be read;
/// what came later is left out where it says nothing.
pub const VERSION: u32 = 1;
/// The longest packet. Command lines of QEMU are far below 10 KiB.
pub const MAX_PACKET_BYTES: usize = 96 * 1024;
/// The most descriptors that come with one packet.
pub const MAX_DESCRIPTORS: usize = 64;
/// The most children one `List` answer tells of, so that it fits into a packet.
pub const LIST_PAGE: usize = 128;

/// One attempt to run one VM: what a child is known by. An order for another attempt never hits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub vm: VmId,
    pub attempt: AttemptId,
}

/// What a client orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// What the guard is and what it may do; answered by [`Answer::Status`].
    Status,
    /// What it holds, sorted, beginning after this VM; answered by [`Answer::List`].
    List { after: Option<VmId> },
    /// Run a process. Answered by [`Answer::Held`] when it executes the program.
    Spawn(Box<SpawnOrder>),
    /// SIGKILL; answered by [`Answer::Held`] as soon as the signal is sent, not when the process is gone.
    Kill(Key),
    /// Forget a child that exited; answered by [`Answer::Held`], for the last time.
    Collect(Key),
    /// A pidfd of the child comes with the answer, [`Answer::Held`].
    Pidfd(Key),
    /// From the answer on, every exit and every freezing is told as an [`Event`]. Subscribe first, then list:
    /// nothing is missed.
    Subscribe,
    /// Leased children may execute until this moment, in milliseconds of CLOCK_BOOTTIME; the word of the session
    /// with this epoch. A higher epoch replaces the deadline, the same one only ever moves it on, a lower one is
    /// refused. It thaws nothing. Answered by [`Answer::Done`].
    Lease { epoch: Epoch, until_boottime_ms: u64 },
    /// Let a frozen child go on, if the deadline is ahead at that moment and still that of the session in which it was
    /// proven that it may: an order that comes late must not act on the lease of a later session. Answered by
    /// [`Answer::Held`], also for a child that is not frozen.
    Thaw { key: Key, epoch: Epoch },
    /// Replace the guard's program in place. Answered by [`Answer::Done`], from the new program.
    Upgrade { program: Option<String> },
    /// End the guard. Refused while it holds children that run, unless they are to be left running.
    Stop { leave_running: bool },
}

/// What the guard answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    List { held: Vec<Held>, more: bool },
    Held(Held),
    Done,
    Refused(Refusal),
}

/// What the guard says without being asked, to those who subscribed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Exited(Held),
    /// The guard stopped it: the deadline passed. Only an [`Order::Thaw`] lets it go on.
    Frozen(Held),
}

/// A packet to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToClient {
    /// Number 0 answers what had no readable number.
    Answer {
        to: u64,
        answer: Answer,
    },
    Event(Event),
}

/// A packet to the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToGuard {
    pub number: u64,
    pub order: Order,
}

/// A child as the guard knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub key: Key,
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: tells the process from a later one with the same pid.
    pub start_ticks: u64,
    pub phase: Phase,
    /// What was asked for and could not be had on this host, as sentences.
    pub notes: Vec<String>,
    /// Absent for a child that the deadline does not concern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<HeldLease>,
}

/// What the lease means to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLease {
    pub incarnation: Incarnation,
    /// The guard stopped it and keeps it so, whatever became of the deadline since.
    pub frozen: bool,
}

/// Where a child is in its life; see the diagram in [`crate::daemon`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A process of the guard sets up what the program will find. It waits.
    Preparing,
    /// Its record is written; it was told to execute the program.
    Registered,
    /// It executes the program, and its exit status will be known.
    Running,
    /// It runs, started by a guard that died: its exit will be seen, its exit status will not.
    Adopted,
    /// It was killed before it executed the program, and is not gone yet.
    Ending,
    Exited(Exit),
}

impl Phase {
    pub fn is_exited(&self) -> bool {
        matches!(self, Self::Exited(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub reason: ExitReason,
    /// When the guard saw it, in milliseconds since 1970.
    pub seen_unix_ms: u64,
}

/// Why a child ended, as far as the guard can know. What a guest did is told by QMP, not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
        core_dumped: bool,
    },
    /// SIGKILL, and this guard had sent it on order.
    KilledOnOrder,
    /// SIGKILL, and the child's own cgroup counts a kill for lack of memory.
    OutOfMemory,
    /// The guard had sent SIGKILL, because it read a claim of a higher incarnation than this frozen child's:
    /// the VM is another host's.
    Superseded,
    /// It was adopted: the kernel tells its status to the parent it had, and that one is dead.
    Unknown {
        kill_ordered: bool,
    },
}

/// What a guard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub pid: i32,
    pub version: String,
    /// How often this process replaced its program.
    pub upgrades: u32,
    /// Why the last try to replace it failed; empty when it did not.
    pub last_upgrade_problem: Option<String>,
    pub children: usize,
    pub clients: usize,
    /// `None` when all memory is locked; else why not.
    pub memory_not_locked: Option<String>,
    /// `None` when it is scheduled before everything ordinary; else why not.
    pub not_realtime: Option<String>,
    /// Records found at the start that fitted no process, the latest last.
    pub stale: Vec<Stale>,
    /// The latest lease; `None` before the first one that came to this guard.
    #[serde(default)]
    pub lease: Option<LeaseStatus>,
    /// How many children that live are leased,
    #[serde(default)]
    pub leased: usize,
    /// and how many of those are frozen.
    #[serde(default)]
    pub frozen: usize,
}

/// Until when leased children may execute, and by the word of which session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub epoch: Epoch,
    pub until_boottime_ms: u64,
}

/// A record that a guard found when it started, and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// The name of the record's file; the content may be anything.
    pub record: String,
    pub key: Option<Key>,
    pub reason: String,
}

#[derive(Deserialize)]
struct Spoken {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Packet<T> {
    v: u32,
    #[serde(rename = "m")]
    message: T,
}

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the packet speaks version {spoken}, this program speaks {VERSION}: bring both to one release")]
    Version { spoken: u32 },
    #[error("the packet of {bytes} bytes cannot be read")]
    Malformed {
        bytes: usize,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("the message takes {bytes} bytes, {MAX_PACKET_BYTES} fit into a packet: shorten the command line")]
    TooLong { bytes: usize },
    #[error("the message cannot be written as JSON")]
    Unwritable(#[from] serde_json::Error),
}

pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let bytes = serde_json::to_vec(&Packet { v: VERSION, message })?;
    if bytes.len() > MAX_PACKET_BYTES {
        return Err(EncodeError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let malformed = |source| DecodeError::Malformed {
        bytes: bytes.len(),
        source,
    };
    // The version alone first: another version's message need not look like ours in anything else.
    let Spoken { v: spoken } = serde_json::from_slice(bytes).map_err(malformed)?;
    if spoken != VERSION {
        return Err(DecodeError::Version { spoken });
    }
    let packet: Packet<T> = serde_json::from_slice(bytes).map_err(malformed)?;
    Ok(packet.message)
}

#[cfg(test)]
mod tests;
