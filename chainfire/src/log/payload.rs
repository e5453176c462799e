//! How log ids, ballots and entries lie on disk.
//!
//! The log beneath takes a record that ends early for one that a crash tore, and drops it. So no damaged
//! byte may ever look like an early end: ids and ballots have one size, each begins with its own mark (a
//! record whose type was altered is read as the wrong thing and fails at once), and the length of a payload
//! is checked before it is believed. What is damaged answers `InvalidData`; `UnexpectedEof` is left to
//! bytes that are truly not there.

use std::io::{self, Read, Write};

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message;
use raft_log::codeq::{Decode, Encode};

use super::flush::FlushGroup;
use crate::proto;
use crate::raft::types::{Ballot, Commands, Entry, LogId, Membership, TypeConfig};

/// The largest payload of an entry. Far above what the limits of the store let through.
pub const MAX_ENTRY_BYTES: usize = 4 * 1024 * 1024;

const LOG_ID_MARK: u8 = b'L';
const BALLOT_MARK: u8 = b'V';
/// What an entry costs in memory besides its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 96;

/// Our parameters for the log beneath.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LogTypes;

impl raft_log::Types for LogTypes {
    type LogId = StoredLogId;
    type LogPayload = StoredPayload;
    type Vote = StoredBallot;
    type Callback = FlushGroup;
    type UserData = ();

    fn log_index(log_id: &StoredLogId) -> u64 {
        log_id.0.index
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        payload.body.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// A log id: a mark, term, leader and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredLogId(pub LogId);

impl Encode for StoredLogId {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        write_marked(
            &mut to,
            LOG_ID_MARK,
            [self.0.leader_id.term, self.0.leader_id.node_id, self.0.index],
        )
    }
}

impl Decode for StoredLogId {
    fn decode<R: Read>(from: R) -> io::Result<Self> {
        let [term, leader, index] = read_marked(from, LOG_ID_MARK, "log id")?;
        Ok(Self(LogId::new(CommittedLeaderId::new(term, leader), index)))
    }
}

/// A ballot, in as many bytes as a log id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct StoredBallot(pub Ballot);

impl Encode for StoredBallot {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        let leader = self.0.leader_id;
        write_marked(
            &mut to,
            BALLOT_MARK,
            [leader.term, leader.node_id, u64::from(self.0.committed)],
        )
    }
}

impl Decode for StoredBallot {
    fn decode<R: Read>(from: R) -> io::Result<Self> {
        match read_marked(from, BALLOT_MARK, "ballot")? {
            [term, node, 0] => Ok(Self(Ballot::new(term, node))),
            [term, node, 1] => Ok(Self(Ballot::new_committed(term, node))),
            _ => Err(damaged("ballot")),
        }
    }
}

fn write_marked<W: Write>(to: &mut W, mark: u8, numbers: [u64; 3]) -> io::Result<usize> {
    to.write_all(&[mark])?;
    for number in numbers {
        to.write_all(&number.to_be_bytes())?;
    }
    Ok(1 + 3 * 8)
}

fn read_marked<R: Read>(mut from: R, mark: u8, what: &str) -> io::Result<[u64; 3]> {
    // The mark alone first: a short record of another type must fail by its mark, not by its length.
    if read_bytes::<1, _>(&mut from)? != [mark] {
        return Err(damaged(what));
    }
    let mut numbers = [0; 3];
    for number in &mut numbers {
        *number = u64::from_be_bytes(read_bytes(&mut from)?);
    }
    Ok(numbers)
}

fn read_bytes<const N: usize, R: Read>(from: &mut R) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged {what}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank = 1,
    Commands = 2,
    Membership = 3,
}

/// What an entry carries: kind, length and a checksum of the two, then the body. The body is covered by
/// the checksum of the record around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload {
    kind: Kind,
    body: Bytes,
}

impl StoredPayload {
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The entry with this payload. A damaged membership was refused when it was read.
    pub fn into_entry(self, id: StoredLogId) -> io::Result<Entry> {
        let payload = match self.kind {
            Kind::Blank => EntryPayload::Blank,
            Kind::Commands => EntryPayload::Normal(Commands(self.body)),
            Kind::Membership => EntryPayload::Membership(decode_membership(&self.body)?),
        };
        Ok(openraft::Entry::<TypeConfig> { log_id: id.0, payload })
    }

    fn header(kind: u8, length: u32) -> [u8; 9] {
        let mut header = [0; 9];
        header[0] = kind;
        header[1..5].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32fast::hash(&header[..5]);
        header[5..].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

impl From<&EntryPayload<TypeConfig>> for StoredPayload {
    fn from(payload: &EntryPayload<TypeConfig>) -> Self {
        match payload {
            EntryPayload::Blank => Self {
                kind: Kind::Blank,
                body: Bytes::new(),
            },
            // Copied, because the newest entries stay in memory: a slice of what came over the network
            // would keep the whole buffer it was received in.
            EntryPayload::Normal(Commands(bytes)) => Self {
                kind: Kind::Commands,
                body: Bytes::copy_from_slice(bytes),
            },
            EntryPayload::Membership(membership) => Self {
                kind: Kind::Membership,
                body: proto::Membership::from(membership).encode_to_vec().into(),
            },
        }
    }
}

impl Encode for StoredPayload {
    fn encode<W: Write>(&self, mut to: W) -> io::Result<usize> {
        let length = u32::try_from(self.body.len()).map_err(|_| damaged("length of an entry"))?;
        let header = Self::header(self.kind as u8, length);
        to.write_all(&header)?;
        to.write_all(&self.body)?;
        Ok(header.len() + self.body.len())
    }
}

impl Decode for StoredPayload {
    fn decode<R: Read>(mut from: R) -> io::Result<Self> {
        let header: [u8; 9] = read_bytes(&mut from)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        if header != Self::header(header[0], length) || length as usize > MAX_ENTRY_BYTES {
            return Err(damaged("length of an entry"));
        }
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body)?;
        let kind = match header[0] {
            1 => Kind::Blank,
            2 => Kind::Commands,
            3 => decode_membership(&body).map(|_| Kind::Membership)?,
            _ => return Err(damaged("kind of an entry")),
        };
        Ok(Self {
            kind,
            body: body.into(),
        })
    }
}

fn decode_membership(body: &[u8]) -> io::Result<Membership> {
    let invalid = |error: crate::codec::CodecError| io::Error::new(io::ErrorKind::InvalidData, error);
    proto::Membership::decode(body)
        .map_err(|error| invalid(error.into()))?
        .try_into()
        .map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        let told = value.encode(&mut bytes).unwrap();
        assert_eq!(told, bytes.len());
        bytes
    }

    fn log_id() -> StoredLogId {
        StoredLogId(LogId::new(CommittedLeaderId::new(0x0102, 3), 0x0405))
    }

    fn commands(bytes: &'static [u8]) -> StoredPayload {
        StoredPayload::from(&EntryPayload::Normal(Commands(Bytes::from_static(bytes))))
    }

    /// The bytes of released versions: they may be added to, never changed.
    #[test]
    fn frozen_bytes() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(encoded(&log_id())),
            "4c000000000000010200000000000000030000000000000405"
        );
        assert_eq!(
            hex(encoded(&StoredBallot(Ballot::new_committed(7, 2)))),
            "56000000000000000700000000000000020000000000000001"
        );
        assert_eq!(hex(encoded(&commands(b"abc"))), "020000000325ebf5c7616263");
        assert_eq!(
            hex(encoded(&StoredPayload::from(&EntryPayload::Blank))),
            "0100000000fb42dead"
        );
    }

    #[test]
    fn ids_and_ballots_have_one_size() {
        let ballot = StoredBallot(Ballot::new(1, 2));
        assert_eq!(encoded(&log_id()).len(), encoded(&ballot).len());
        assert_eq!(StoredLogId::decode(&encoded(&log_id())[..]).unwrap(), log_id());
        assert_eq!(StoredBallot::decode(&encoded(&ballot)[..]).unwrap(), ballot);
    }

    #[test]
    fn one_taken_for_the_other_is_damage_even_where_bytes_are_short() {
        let ballot = encoded(&StoredBallot(Ballot::new(1, 2)));
        for length in 1..=ballot.len() {
            let error = StoredLogId::decode(&ballot[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn no_flipped_bit_of_a_header_looks_like_a_torn_end() {
        let whole = encoded(&commands(b"the body"));
        for bit in 0..9 * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = StoredPayload::decode(&flipped[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "bit {bit}");
        }
    }

    #[test]
    fn a_torn_payload_ends_early() {
        let whole = encoded(&commands(b"the body"));
        for length in 0..whole.len() {
            let error = StoredPayload::decode(&whole[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
        assert_eq!(StoredPayload::decode(&whole[..]).unwrap(), commands(b"the body"));
    }

    #[test]
    fn a_membership_that_is_none_is_damage() {
        let mut bytes = StoredPayload::header(3, 2).to_vec();
        bytes.extend([0x0a, 0x00]);
        let error = StoredPayload::decode(&bytes[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
