//! Making an empty folder into a member whose state is a backup.

use std::path::{Path, PathBuf};

use super::folder::{Folder, FolderError};
use super::identity::{self, Identity, IdentityError};
use crate::proto;
use crate::state::SnapshotStore;

/// Where the backup's rows are to be written, and the record they get: that of a cluster of one.
#[derive(Debug)]
pub struct Restored {
    pub snapshot: PathBuf,
    pub meta: proto::StateMeta,
}

/// Prepares a folder. The member is there once the snapshot file is.
pub fn restore_folder(
    root: &Path,
    name: &str,
    advertise: &str,
    backup: &proto::StateMeta,
) -> Result<Restored, FolderError> {
    const ID: u64 = 1;
    let (folder, _lock) = Folder::take(root)?;
    let cluster_id = uuid::Uuid::new_v4().to_string();
    let me = proto::Peer {
        id: ID,
        name: name.to_owned(),
        address: advertise.to_owned(),
    };
    let meta = proto::StateMeta {
        cluster_id: cluster_id.clone(),
        membership: Some(proto::StoredMembership {
            at: backup.applied,
            membership: Some(proto::Membership {
                voters: vec![proto::VoterSet { ids: vec![ID] }],
                peers: vec![me],
            }),
        }),
        next_member_id: backup.next_member_id.max(ID + 1),
        ..backup.clone()
    };
    let identity = Identity {
        cluster_id,
        member_id: ID,
        wants_vote: false,
        replaces: None,
        founded: true,
    };
    identity::write(&folder.identity(), &identity).map_err(|error| match error {
        IdentityError::Io { path, source } => FolderError::Io { path, source },
        IdentityError::Damaged { path } => FolderError::Format { path },
    })?;
    let snapshots = root.join("snapshots");
    std::fs::create_dir_all(&snapshots).map_err(|source| FolderError::Io {
        path: snapshots.clone(),
        source,
    })?;
    Ok(Restored {
        snapshot: SnapshotStore::path_of(&snapshots, &meta),
        meta,
    })
}
