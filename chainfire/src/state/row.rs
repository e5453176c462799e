//! One key's stored state, and the digest that all rows of a state add up to.

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use crate::kv::{KeyValue, Revision};
use crate::proto;

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub value: Bytes,
}

impl Row {
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    pub fn decode(bytes: Bytes) -> Result<Self, prost::DecodeError> {
        let row = proto::Row::decode(bytes)?;
        Ok(Self {
            create_revision: row.create_revision,
            mod_revision: row.mod_revision,
            version: row.version,
            value: row.value,
        })
    }

    pub fn into_key_value(self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }

    fn to_proto(&self) -> proto::Row {
        proto::Row {
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.clone(),
        }
    }
}

/// A sum over all rows, independent of their order: any lost, added or altered row changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u128);

impl Digest {
    pub fn add(&mut self, key: &[u8], row: &Row) {
        self.0 = self.0.wrapping_add(row_hash(key, row));
    }

    pub fn remove(&mut self, key: &[u8], row: &Row) {
        self.0 = self.0.wrapping_sub(row_hash(key, row));
    }

    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    /// An absent digest is that of an empty state.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

fn row_hash(key: &[u8], row: &Row) -> u128 {
    let mut hasher = Xxh3::new();
    let mut head = [0; 32];
    head[..8].copy_from_slice(&(key.len() as u64).to_be_bytes());
    head[8..16].copy_from_slice(&row.create_revision.to_be_bytes());
    head[16..24].copy_from_slice(&row.mod_revision.to_be_bytes());
    head[24..].copy_from_slice(&row.version.to_be_bytes());
    hasher.update(&head);
    hasher.update(key);
    hasher.update(&row.value);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &'static str, mod_revision: Revision) -> Row {
        Row {
            create_revision: 1,
            mod_revision,
            version: 1,
            value: value.into(),
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_order_and_forgets_what_is_removed() {
        let mut forth = Digest::default();
        forth.add(b"a", &row("x", 1));
        forth.add(b"b", &row("y", 2));
        let mut back = Digest::default();
        back.add(b"b", &row("y", 2));
        back.add(b"c", &row("z", 3));
        back.add(b"a", &row("x", 1));
        assert_ne!(forth, back);
        back.remove(b"c", &row("z", 3));
        assert_eq!(forth, back);
        assert_eq!(Digest::from_bytes(&back.to_bytes()), Some(back));
    }

    #[test]
    fn a_digest_tells_keys_from_values_and_revisions_apart() {
        let digest = |key: &[u8], row: Row| {
            let mut digest = Digest::default();
            digest.add(key, &row);
            digest
        };
        assert_ne!(digest(b"ab", row("c", 1)), digest(b"a", row("bc", 1)));
        assert_ne!(digest(b"a", row("c", 1)), digest(b"a", row("c", 2)));
    }
}
