//! Between the types of openraft and the messages of `raft.proto`, for log, network and snapshots alike.
//!
//! What is decoded came over a network or from a disk: nothing here may panic on it, and nothing may be
//! guessed. A message that lacks a part, or contradicts itself, is a [`CodecError`].

use std::collections::{BTreeMap, BTreeSet};

use openraft::{CommittedLeaderId, EntryPayload};

use crate::proto;
use crate::raft::types::{Ballot, Commands, Entry, LogId, MemberId, Membership, Peer, StoredMembership};

/// Why a message is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{message} lacks its {field}")]
    Missing { message: &'static str, field: &'static str },
    #[error("a membership has an empty set of voters")]
    EmptyVoterSet,
    #[error("a membership names member {id} twice")]
    TwiceNamed { id: MemberId },
    #[error("a membership has the voter {id}, but not where to find it")]
    UnknownVoter { id: MemberId },
    #[error("not a message: {0}")]
    Wire(#[from] prost::DecodeError),
}

impl From<LogId> for proto::LogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            leader: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<proto::LogId> for LogId {
    fn from(id: proto::LogId) -> Self {
        LogId::new(CommittedLeaderId::new(id.term, id.leader), id.index)
    }
}

impl From<Ballot> for proto::Ballot {
    fn from(ballot: Ballot) -> Self {
        Self {
            term: ballot.leader_id.term,
            node: ballot.leader_id.node_id,
            committed: ballot.committed,
        }
    }
}

impl From<proto::Ballot> for Ballot {
    fn from(ballot: proto::Ballot) -> Self {
        if ballot.committed {
            Ballot::new_committed(ballot.term, ballot.node)
        } else {
            Ballot::new(ballot.term, ballot.node)
        }
    }
}

impl From<&Membership> for proto::Membership {
    fn from(membership: &Membership) -> Self {
        let voters = membership
            .get_joint_config()
            .iter()
            .map(|set| proto::VoterSet {
                ids: set.iter().copied().collect(),
            })
            .collect();
        let peers = membership
            .nodes()
            .map(|(id, peer)| proto::Peer {
                id: *id,
                name: peer.name.clone(),
                address: peer.address.clone(),
            })
            .collect();
        Self { voters, peers }
    }
}

impl TryFrom<proto::Membership> for Membership {
    type Error = CodecError;

    fn try_from(membership: proto::Membership) -> Result<Self, CodecError> {
        let mut peers = BTreeMap::new();
        for proto::Peer { id, name, address } in membership.peers {
            if peers.insert(id, Peer { name, address }).is_some() {
                return Err(CodecError::TwiceNamed { id });
            }
        }
        let mut sets = Vec::with_capacity(membership.voters.len());
        for proto::VoterSet { ids } in membership.voters {
            let mut set = BTreeSet::new();
            for id in ids {
                if !peers.contains_key(&id) {
                    return Err(CodecError::UnknownVoter { id });
                }
                if !set.insert(id) {
                    return Err(CodecError::TwiceNamed { id });
                }
            }
            if set.is_empty() {
                return Err(CodecError::EmptyVoterSet);
            }
            sets.push(set);
        }
        Ok(Membership::new(sets, peers))
    }
}

impl From<&StoredMembership> for proto::StoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            at: stored.log_id().map(proto::LogId::from),
            membership: Some(stored.membership().into()),
        }
    }
}

impl TryFrom<proto::StoredMembership> for StoredMembership {
    type Error = CodecError;

    fn try_from(stored: proto::StoredMembership) -> Result<Self, CodecError> {
        let membership = stored.membership.ok_or(CodecError::Missing {
            message: "a stored membership",
            field: "membership",
        })?;
        Ok(StoredMembership::new(
            stored.at.map(LogId::from),
            membership.try_into()?,
        ))
    }
}

impl From<&Entry> for proto::Entry {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(Commands(bytes)) => Some(proto::entry::Payload::Commands(bytes.clone())),
            EntryPayload::Membership(membership) => Some(proto::entry::Payload::Membership(membership.into())),
        };
        Self {
            id: Some(entry.log_id.into()),
            payload,
        }
    }
}

impl TryFrom<proto::Entry> for Entry {
    type Error = CodecError;

    fn try_from(entry: proto::Entry) -> Result<Self, CodecError> {
        let id = entry.id.ok_or(CodecError::Missing {
            message: "an entry",
            field: "id",
        })?;
        let payload = match entry.payload {
            None => EntryPayload::Blank,
            Some(proto::entry::Payload::Commands(bytes)) => EntryPayload::Normal(Commands(bytes)),
            Some(proto::entry::Payload::Membership(membership)) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Entry {
            log_id: id.into(),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn peer(id: MemberId) -> proto::Peer {
        proto::Peer {
            id,
            name: format!("n{id}"),
            address: format!("[::1]:{id}"),
        }
    }

    fn membership(sets: &[&[MemberId]], peers: &[MemberId]) -> proto::Membership {
        proto::Membership {
            voters: sets.iter().map(|ids| proto::VoterSet { ids: ids.to_vec() }).collect(),
            peers: peers.iter().copied().map(peer).collect(),
        }
    }

    #[test]
    fn a_joint_membership_keeps_the_order_of_its_sets_and_its_learners() {
        let sent = membership(&[&[4, 9], &[1, 2]], &[1, 2, 4, 7, 9]);
        let held = Membership::try_from(sent.clone()).unwrap();
        assert_eq!(
            *held.get_joint_config(),
            vec![BTreeSet::from([4, 9]), BTreeSet::from([1, 2])]
        );
        assert_eq!(held.learner_ids().collect::<Vec<_>>(), vec![7]);
        assert_eq!(proto::Membership::from(&held), sent);
    }

    #[test]
    fn memberships_that_contradict_themselves_are_refused() {
        let refused = |message| Membership::try_from(message).unwrap_err();
        assert_eq!(
            refused(membership(&[&[1, 2]], &[1])),
            CodecError::UnknownVoter { id: 2 }
        );
        assert_eq!(refused(membership(&[&[1, 1]], &[1])), CodecError::TwiceNamed { id: 1 });
        assert_eq!(refused(membership(&[&[1]], &[1, 1])), CodecError::TwiceNamed { id: 1 });
        assert_eq!(refused(membership(&[&[]], &[1])), CodecError::EmptyVoterSet);
    }

    #[test]
    fn the_membership_of_a_new_member_survives() {
        let none = StoredMembership::default();
        let sent = proto::StoredMembership::from(&none);
        assert_eq!(StoredMembership::try_from(sent).unwrap(), none);
    }

    #[test]
    fn what_lacks_a_part_is_refused() {
        let entry = Entry::try_from(proto::Entry::default()).unwrap_err();
        assert_eq!(entry.to_string(), "an entry lacks its id");
        let stored = StoredMembership::try_from(proto::StoredMembership::default()).unwrap_err();
        assert_eq!(stored.to_string(), "a stored membership lacks its membership");
    }

    #[test]
    fn every_kind_of_entry_survives() {
        let log_id = LogId::new(CommittedLeaderId::new(7, 3), 41);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Commands(Bytes::new())),
            EntryPayload::Normal(Commands(Bytes::from_static(b"batch"))),
            EntryPayload::Membership(membership(&[&[1]], &[1, 2]).try_into().unwrap()),
        ];
        for payload in payloads {
            let entry = Entry { log_id, payload };
            let wire = proto::Entry::from(&entry).encode_to_vec();
            let back = Entry::try_from(proto::Entry::decode(wire.as_slice()).unwrap()).unwrap();
            assert_eq!(back, entry);
        }
    }

    #[test]
    fn ballots_survive() {
        for ballot in [Ballot::new(3, 8), Ballot::new_committed(u64::MAX, 1)] {
            assert_eq!(Ballot::from(proto::Ballot::from(ballot)), ballot);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let entry = proto::Entry::decode(bytes.as_slice()).map_err(CodecError::from).and_then(Entry::try_from);
            if let Ok(entry) = entry {
                let again = Entry::try_from(proto::Entry::from(&entry));
                prop_assert_eq!(again, Ok(entry));
            }
            let membership =
                proto::Membership::decode(bytes.as_slice()).map_err(CodecError::from).and_then(Membership::try_from);
            if let Ok(membership) = membership {
                prop_assert_eq!(Membership::try_from(proto::Membership::from(&membership)), Ok(membership));
            }
        }
    }
}
