//! Who this member is, and who the others were when last seen. Small text files that people can read; a
//! checksum tells an altered one from a valid one.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::raft::types::MemberId;

/// A member's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster_id: String,
    pub member_id: MemberId,
    /// The member has yet to become a voter, by itself.
    pub wants_vote: bool,
    /// The member whose place it takes when it does.
    pub replaces: Option<MemberId>,
    /// It was in the membership once: if it no longer is, it was removed.
    #[serde(default)]
    pub founded: bool,
}

/// Where members of the cluster were last known to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KnownPeers {
    pub addresses: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    content: serde_json::Value,
    crc32: u32,
}

/// Reads a sealed file; `None` when there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IdentityError> {
    let damaged = || IdentityError::Damaged { path: path.to_owned() };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(IdentityError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|_| damaged())?;
    if sealed.crc32 != checksum(&sealed.content) {
        return Err(damaged());
    }
    serde_json::from_value(sealed.content).map(Some).map_err(|_| damaged())
}

/// Writes a sealed file, durably.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), IdentityError> {
    let context = |source| IdentityError::Io {
        path: path.to_owned(),
        source,
    };
    let content = serde_json::to_value(value).map_err(|error| context(error.into()))?;
    let sealed = Sealed {
        crc32: checksum(&content),
        content,
    };
    let text = serde_json::to_vec_pretty(&sealed).map_err(|error| context(error.into()))?;
    files::replace(path, &text).map_err(context)
}

fn checksum(content: &serde_json::Value) -> u32 {
    crc32fast::hash(content.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_identity_is_damaged_whatever_was_altered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.json");
        assert!(read::<Identity>(&path).unwrap().is_none());
        let identity = Identity {
            cluster_id: "c".to_owned(),
            member_id: 3,
            wants_vote: false,
            replaces: None,
            founded: true,
        };
        write(&path, &identity).unwrap();
        assert_eq!(read::<Identity>(&path).unwrap(), Some(identity.clone()));
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut altered = text.clone();
                altered[at] ^= 1 << bit;
                std::fs::write(&path, &altered).unwrap();
                match read::<Identity>(&path) {
                    Ok(Some(same)) => assert_eq!(same, identity, "byte {at}"),
                    Ok(None) => panic!("byte {at}"),
                    Err(_) => {}
                }
            }
        }
    }
}
