//! One member goes on alone, as the only one of a NEW cluster, when the majority of the old one is lost for good; or a
//! backup does. Offline: the member is not running.
//!
//! ```text
//!   folder of a member --log replayed to its end--+
//!   backup ---------------------------------------+--> recovered.snap --> identity --> old store aside --> snapshots/
//!                                                      changed rows,      new ids
//!                                                      new ids
//! ```
//! A crash anywhere leaves the old store, or `recovered.snap`: with it the folder does not start, and is finished by
//! doing it again. The log is replayed to its end, and not only to what was known to be committed: what was acknowledged
//! may have been the end of it.
//!
//! Must never: keep the cluster's id, or the member's. What the lost members know and promised is worth nothing here,
//! and the other way round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};

use super::folder::{Folder, FolderError};
use super::identity::{self, Identity, IdentityError};
use crate::claim::Claim;
use crate::files;
use crate::kv::{KvError, Limits};
use crate::log::{LogOptions, LogStore, OpenError};
use crate::metrics::Metrics;
use crate::proto::{self, cluster_client::ClusterClient};
use crate::raft::types::{MemberId, Membership, StoredMembership};
use crate::state::{
    self, Digest, Head, Row, SnapshotError, SnapshotFile, SnapshotReader, SnapshotStore, State, StateError,
    StateOptions, write_snapshot_file,
};
use crate::transport;

/// Revisions go on so much later: what the lost members gave out is not given out again for something else.
const REVISIONS_AHEAD: u64 = 1_000_000_000;
const REPLAYED_AT_ONCE: u64 = 256;
/// A member that takes longer does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{folder} belongs to no cluster: there is nothing to go on with")]
    NoMember { folder: PathBuf },
    #[error("{folder} holds a store already: a backup is restored into an empty folder")]
    NotEmpty { folder: PathBuf },
    #[error("the log cannot be trusted ({0}): recover another member, or a backup")]
    Log(#[from] OpenError),
    #[error("the state cannot be trusted ({0}): recover another member, or a backup")]
    State(#[from] StateError),
    #[error("the log cannot be replayed: {reason}")]
    Replay { reason: String },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the state says of its members what cannot be read: {reason}")]
    Members { reason: String },
}

/// A member of the cluster that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    pub id: MemberId,
    pub name: String,
    pub address: String,
    pub votes: bool,
    /// It is the one that goes on.
    pub is_own: bool,
}

/// What goes on, read to its end. Nothing has been changed yet.
#[derive(Debug)]
pub struct Survivor {
    folder: Folder,
    _lock: Claim,
    source: Source,
    meta: proto::StateMeta,
    own: Option<MemberId>,
}

#[derive(Debug)]
enum Source {
    Member { log: LogStore, state: State },
    Backup(PathBuf),
}

/// Completes what a crash interrupted; answers the new cluster's id if there was something.
pub fn finish_begun(root: &Path) -> Result<Option<String>, RecoverError> {
    if !root.join("identity.json").exists() && !Folder::recovered_in(root).exists() {
        return Ok(None);
    }
    let (folder, _lock) = Folder::take(root)?;
    if !folder.recovered().exists() {
        return Ok(None);
    }
    finish(&folder).map(Some)
}

impl Survivor {
    /// The member in this folder.
    pub async fn of_member(root: &Path, limits: Limits) -> Result<Self, RecoverError> {
        if !root.join("identity.json").exists() {
            let folder = root.to_owned();
            return Err(RecoverError::NoMember { folder });
        }
        let (folder, lock) = Folder::take(root)?;
        let identity = identity::read::<Identity>(&folder.identity())?.ok_or_else(|| RecoverError::NoMember {
            folder: root.to_owned(),
        })?;
        let (log, state) = replay(&folder, limits).await?;
        let meta = state.boundary().to_meta();
        Ok(Self {
            folder,
            _lock: lock,
            source: Source::Member { log, state },
            meta,
            own: Some(identity.member_id),
        })
    }

    /// A backup, to be put into this folder.
    pub fn of_backup(file: &Path, root: &Path) -> Result<Self, RecoverError> {
        let checked = SnapshotFile::open_checked(file)?;
        if root.join("identity.json").exists() || root.join("log").exists() {
            let folder = root.to_owned();
            return Err(RecoverError::NotEmpty { folder });
        }
        let (folder, lock) = Folder::take(root)?;
        Ok(Self {
            folder,
            _lock: lock,
            source: Source::Backup(file.to_owned()),
            meta: checked.meta,
            own: None,
        })
    }

    /// The cluster that was.
    pub fn cluster_id(&self) -> &str {
        &self.meta.cluster_id
    }

    pub fn revision(&self) -> u64 {
        self.meta.revision
    }

    pub fn members(&self) -> Result<Vec<KnownMember>, RecoverError> {
        let unreadable = |reason: String| RecoverError::Members { reason };
        let stored = self.meta.membership.clone().unwrap_or_default();
        let stored = StoredMembership::try_from(stored).map_err(|error| unreadable(error.to_string()))?;
        let membership: &Membership = stored.membership();
        let voters: Vec<MemberId> = membership.voter_ids().collect();
        let known = membership.nodes().map(|(id, peer)| KnownMember {
            id: *id,
            name: peer.name.clone(),
            address: peer.address.clone(),
            votes: voters.contains(id),
            is_own: Some(*id) == self.own,
        });
        Ok(known.collect())
    }

    /// The other members of the cluster that was which answer now.
    pub async fn answering(&self) -> Result<Vec<KnownMember>, RecoverError> {
        let others: Vec<KnownMember> = self.members()?.into_iter().filter(|member| !member.is_own).collect();
        let asked = others
            .iter()
            .map(|member| answers(&member.address, &self.meta.cluster_id));
        let answers = futures::future::join_all(asked).await;
        let answering = others.into_iter().zip(answers).filter(|(_, answers)| *answers);
        Ok(answering.map(|(member, _)| member).collect())
    }

    /// All that is stored.
    pub fn values(&self) -> Result<BTreeMap<Bytes, Bytes>, RecoverError> {
        let mut values = BTreeMap::new();
        self.each_row(|key, row| {
            values.insert(key, row.value);
            Ok(())
        })?;
        Ok(values)
    }

    fn each_row(&self, mut take: impl FnMut(Bytes, Row) -> Result<(), RecoverError>) -> Result<(), RecoverError> {
        match &self.source {
            Source::Member { state, .. } => {
                for row in state.pin(0)?.rows() {
                    let (key, row) = row?;
                    take(key, row)?;
                }
            }
            Source::Backup(file) => {
                let mut reader = SnapshotReader::open(file)?;
                while let Some((key, row)) = reader.next_row()? {
                    take(key, row)?;
                }
            }
        }
        Ok(())
    }

    /// Makes it the only member of a new cluster, with these values changed or added. Answers the cluster's id.
    pub fn recover(self, name: &str, advertise: &str, changes: BTreeMap<Bytes, Bytes>) -> Result<String, RecoverError> {
        let mut rows = BTreeMap::new();
        self.each_row(|key, row| {
            rows.insert(key, row);
            Ok(())
        })?;
        let revision = self.meta.revision + REVISIONS_AHEAD;
        for (key, value) in changes {
            let before = rows.get(&key);
            let row = Row {
                create_revision: before.map_or(revision, |row| row.create_revision),
                mod_revision: revision,
                version: before.map_or(0, |row| row.version) + 1,
                value,
            };
            rows.insert(key, row);
        }
        let mut digest = Digest::default();
        for (key, row) in &rows {
            digest.add(&Head::of(key, row));
        }
        let meta = proto::StateMeta {
            revision,
            keys: u64::try_from(rows.len()).unwrap_or(u64::MAX),
            digest: digest.to_bytes(),
            ..alone(&self.meta, name, advertise)
        };
        write_snapshot_file(&self.folder.recovered(), &meta, rows.into_iter().map(Ok))?;
        if let Source::Member { log, .. } = &self.source {
            log.close();
        }
        let Self {
            folder, _lock, source, ..
        } = self;
        drop(source);
        finish(&folder)
    }
}

/// The record of a state whose only member is a new one of a new cluster. Its place in the log is that of the first
/// leader it will have, since what comes after must not seem to be older.
fn alone(before: &proto::StateMeta, name: &str, advertise: &str) -> proto::StateMeta {
    let id = before.next_member_id.max(1);
    let index = before.applied.map_or(0, |at| at.index);
    let at = Some(proto::LogId {
        term: 1,
        leader: id,
        index,
    });
    let me = proto::Peer {
        id,
        name: name.to_owned(),
        address: advertise.to_owned(),
    };
    proto::StateMeta {
        applied: at,
        cluster_id: uuid::Uuid::new_v4().to_string(),
        membership: Some(proto::StoredMembership {
            at,
            membership: Some(proto::Membership {
                voters: vec![proto::VoterSet { ids: vec![id] }],
                peers: vec![me],
            }),
        }),
        next_member_id: id + 1,
        allotted: Vec::new(),
        ..before.clone()
    }
}

/// Everything that is in the log, applied.
async fn replay(folder: &Folder, limits: Limits) -> Result<(LogStore, State), RecoverError> {
    let failed = |error: &dyn std::fmt::Display| RecoverError::Replay {
        reason: error.to_string(),
    };
    let mut log = LogStore::open(LogOptions::new(folder.log(), folder.watermark()))?;
    let held = log.get_log_state().await.map_err(|error| failed(&error))?;
    let extent = state::LogExtent {
        purged: held.last_purged_log_id,
        last: held.last_log_id,
    };
    let options = StateOptions {
        folder: folder.root().to_owned(),
        limits,
        flush: state::FlushLimits::default(),
    };
    let metrics = Arc::new(Metrics::default());
    let state::Opened { mut machine, state, .. } = state::open(&options, extent, Arc::clone(&metrics.state))?;
    let end = held.last_log_id.map_or(0, |last| last.index + 1);
    let mut next = state.boundary().applied.map_or(0, |at| at.index + 1);
    while next < end {
        let upto = end.min(next + REPLAYED_AT_ONCE);
        let entries = log
            .try_get_log_entries(next..upto)
            .await
            .map_err(|error| failed(&error))?;
        let Some(last) = entries.last() else {
            return Err(failed(&format!("entry {next} is missing")));
        };
        next = last.log_id.index + 1;
        machine.apply(entries).await.map_err(|error| failed(&error))?;
    }
    Ok((log, state))
}

async fn answers(address: &str, cluster_id: &str) -> bool {
    let Ok(channel) = transport::connect(address, &transport::ConnectOptions::default()) else {
        return false;
    };
    let mut client = ClusterClient::new(channel);
    let status = tokio::time::timeout(ANSWERS_WITHIN, client.status(proto::StatusRequest {})).await;
    // One that is just opening its store has no cluster's id yet, and is there all the same.
    matches!(status, Ok(Ok(status)) if ["", cluster_id].contains(&status.get_ref().cluster_id.as_str()))
}

/// From here on only the new cluster is left.
fn finish(folder: &Folder) -> Result<String, RecoverError> {
    let recovered = folder.recovered();
    let file = SnapshotFile::open_checked(&recovered)?;
    let membership = file.membership().map_err(|error| RecoverError::Members {
        reason: error.to_string(),
    })?;
    let own = membership.membership().voter_ids().next();
    let identity = Identity {
        cluster_id: file.meta.cluster_id.clone(),
        member_id: own.ok_or_else(|| RecoverError::Members {
            reason: "nobody votes".to_owned(),
        })?,
        wants_vote: false,
        replaces: None,
        founded: true,
    };
    let io = |source| {
        RecoverError::from(FolderError::Io {
            path: recovered.clone(),
            source,
        })
    };
    // The new id first: without its log it promises nothing to anybody.
    identity::write(&folder.identity(), &identity)?;
    let aside = folder.quarantine()?;
    tracing::info!(aside = %aside.display(), "set the store of the old cluster aside");
    // Where the lost members were is of no use any more.
    let _ = std::fs::remove_file(folder.peers());
    let snapshots = folder.root().join("snapshots");
    std::fs::create_dir_all(&snapshots).map_err(io)?;
    std::fs::rename(&recovered, SnapshotStore::path_of(&snapshots, &file.meta)).map_err(io)?;
    files::sync_folder(&snapshots).map_err(io)?;
    files::sync_folder(folder.root()).map_err(io)?;
    Ok(identity.cluster_id)
}
