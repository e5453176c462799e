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
        Ok(Self::from_proto(proto::Row::decode(bytes)?))
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

    pub fn from_proto(row: proto::Row) -> Self {
        Self {
            create_revision: row.create_revision,
            mod_revision: row.mod_revision,
            version: row.version,
            value: row.value,
        }
    }

    pub fn to_proto(&self) -> proto::Row {
        proto::Row {
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value.clone(),
        }
    }
}

/// What whoever replaces or deletes a row has to know of it: everything but its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub create_revision: Revision,
    pub version: u64,
    // As bytes, so that it does not have to lie on 16 of them: there is one of these for every key.
    hash: [u8; 16],
}

impl Head {
    pub fn of(key: &[u8], row: &Row) -> Self {
        Self {
            create_revision: row.create_revision,
            version: row.version,
            hash: row_hash(key, row).to_ne_bytes(),
        }
    }
}

/// A sum over all rows, independent of their order: any lost, added or altered row changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u128);

impl Digest {
    pub fn add(&mut self, row: &Head) {
        self.0 = self.0.wrapping_add(u128::from_ne_bytes(row.hash));
    }

    pub fn remove(&mut self, row: &Head) {
        self.0 = self.0.wrapping_sub(u128::from_ne_bytes(row.hash));
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

    fn head(key: &str, value: &'static str, mod_revision: Revision) -> Head {
        Head::of(key.as_bytes(), &row(value, mod_revision))
    }

    #[test]
    fn a_digest_does_not_depend_on_order_and_forgets_what_is_removed() {
        let mut forth = Digest::default();
        forth.add(&head("a", "x", 1));
        forth.add(&head("b", "y", 2));
        let mut back = Digest::default();
        back.add(&head("b", "y", 2));
        back.add(&head("c", "z", 3));
        back.add(&head("a", "x", 1));
        assert_ne!(forth, back);
        back.remove(&head("c", "z", 3));
        assert_eq!(forth, back);
        assert_eq!(Digest::from_bytes(&back.to_bytes()), Some(back));
    }

    #[test]
    fn a_digest_tells_keys_from_values_and_revisions_apart() {
        let digest = |row: Head| {
            let mut digest = Digest::default();
            digest.add(&row);
            digest
        };
        assert_ne!(digest(head("ab", "c", 1)), digest(head("a", "bc", 1)));
        assert_ne!(digest(head("a", "c", 1)), digest(head("a", "c", 2)));
    }
}
