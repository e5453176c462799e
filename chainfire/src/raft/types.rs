//! The types that openraft is parametrised with. Nothing outside this crate sees them.

use std::fmt;

use bytes::Bytes;

use crate::state::{Answer, SnapshotFile};

/// The id of a member: never used twice, not even for the same machine.
pub type MemberId = u64;

/// How a member is found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    pub name: String,
    /// `host:port`; the host may be a name, an IPv4 or a bracketed IPv6 address.
    pub address: String,
}

/// An encoded `CommandBatch`: encoded once by the proposer, opaque to log and network.
#[derive(Clone, PartialEq, Eq)]
pub struct Commands(pub Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commands({} bytes)", self.0.len())
    }
}

/// One answer for each command of an entry. Empty for entries without commands.
pub type Answers = Vec<Answer>;

openraft::declare_raft_types!(
    /// Our parameters for openraft.
    pub TypeConfig:
        D = Commands,
        R = Answers,
        NodeId = MemberId,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotFile,
        AsyncRuntime = openraft::TokioRuntime,
);

pub type LogId = openraft::LogId<MemberId>;
pub type Ballot = openraft::Vote<MemberId>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type Membership = openraft::Membership<MemberId, Peer>;
pub type StoredMembership = openraft::StoredMembership<MemberId, Peer>;
pub type StorageError = openraft::StorageError<MemberId>;
pub type Raft = openraft::Raft<TypeConfig>;
