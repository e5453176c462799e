//! Who this host is: an id for as long as it belongs to a cluster, and a name. Kept in `host.json`.
//!
//! Must never: make a new id where a file is there that cannot be read. The id binds what runs here to what
//! the cluster knows of it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use plasmavmc_types::{HostId, HostName, Invalid};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read or write {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be understood ({reason}); it says who this host is: repair it, or put back a copy")]
    Damaged { path: PathBuf, reason: String },
    #[error("the name of this machine cannot be that of a host: give one with --name")]
    Name(#[source] Invalid),
    #[error(
        "this host belongs to its cluster as one that runs VMs, so it cannot be a witness: take it out with 'plasmavmc \
         cluster remove', and let the witness join with an empty folder"
    )]
    NoWitness,
}

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    pub host_id: HostId,
    pub name: HostName,
    /// It votes and runs no VMs. Fixed when it joins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub witness: bool,
}

/// What this host was told to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: Option<&'a HostName>,
    /// What it is called if nobody says so.
    pub usual: &'a str,
    pub witness: bool,
    /// It has taken its place in a cluster, so that it stays what it is.
    pub is_member: bool,
}

impl HostIdentity {
    /// The identity in this folder, under the name that was given; made if there is none.
    pub fn load_or_make(state: &Path, wanted: Wanted<'_>) -> Result<Self, IdentityError> {
        let path = state.join("host.json");
        let stored = read(&path)?;
        let name = match (wanted.name, &stored) {
            (Some(name), _) => name.clone(),
            (None, Some(stored)) => stored.name.clone(),
            (None, None) => HostName::new(wanted.usual).map_err(IdentityError::Name)?,
        };
        let witness = match &stored {
            Some(stored) if wanted.is_member => stored.witness,
            _ => wanted.witness,
        };
        if wanted.witness && !witness {
            return Err(IdentityError::NoWitness);
        }
        let host_id = stored.as_ref().map(|stored| stored.host_id);
        let identity = Self {
            host_id: host_id.unwrap_or_else(|| HostId::from_uuid(Uuid::new_v4())),
            name,
            witness,
        };
        if stored.as_ref() != Some(&identity) {
            let io = |source| IdentityError::Io {
                path: path.clone(),
                source,
            };
            write(&path, &identity).map_err(io)?;
        }
        Ok(identity)
    }
}

fn read(path: &Path) -> Result<Option<HostIdentity>, IdentityError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(IdentityError::Io { path, source });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| IdentityError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

/// Durable, or not at all.
fn write(path: &Path, identity: &HostIdentity) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec_pretty(identity)?)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(folder: &Path, name: Option<&str>, usual: &str) -> Result<HostIdentity, IdentityError> {
        let name = name.map(|name| HostName::new(name).unwrap());
        let wanted = Wanted {
            name: name.as_ref(),
            usual,
            witness: false,
            is_member: false,
        };
        HostIdentity::load_or_make(folder, wanted)
    }

    #[test]
    fn an_id_stays_and_a_name_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(folder.path(), None, "alpha").unwrap();
        assert_eq!(first.name.as_str(), "alpha");
        let again = load(folder.path(), None, "other").unwrap();
        assert_eq!(again, first);
        let renamed = load(folder.path(), Some("beta"), "other").unwrap();
        assert_eq!((renamed.host_id, renamed.name.as_str()), (first.host_id, "beta"));
        assert_eq!(load(folder.path(), None, "x").unwrap(), renamed);
    }

    #[test]
    fn a_damaged_identity_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("host.json"), "{").unwrap();
        let error = load(folder.path(), None, "alpha").unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }));
        assert_eq!(std::fs::read(folder.path().join("host.json")).unwrap(), b"{");
    }

    #[test]
    fn a_machine_whose_name_does_not_fit_needs_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path(), None, "7").is_err());
    }

    #[test]
    fn what_has_joined_stays_what_it_is() {
        let told = |witness, is_member| Wanted {
            name: None,
            usual: "alpha",
            witness,
            is_member,
        };
        let folder = tempfile::tempdir().unwrap();
        let host = HostIdentity::load_or_make(folder.path(), told(false, false)).unwrap();
        // As hosts wrote it before there were witnesses.
        let text = std::fs::read_to_string(folder.path().join("host.json")).unwrap();
        assert!(!text.contains("witness"), "{text}");
        let error = HostIdentity::load_or_make(folder.path(), told(true, true)).unwrap_err();
        assert!(matches!(error, IdentityError::NoWitness));
        let witness = HostIdentity::load_or_make(folder.path(), told(true, false)).unwrap();
        assert!(witness.witness && witness.host_id == host.host_id);
        assert_eq!(
            HostIdentity::load_or_make(folder.path(), told(false, true)).unwrap(),
            witness
        );
    }
}
