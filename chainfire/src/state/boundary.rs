//! The points at which a state may be stored: after a whole entry, never within one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::row::Digest;
use crate::codec;
use crate::kv::Revision;
use crate::proto;
use crate::raft::types::{LogId, StoredMembership};

/// What changes rarely about a state, shared between boundaries.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub cluster_id: String,
    pub feature_level: u32,
    pub next_member_id: u64,
    /// The last few allotted member ids, by request.
    pub allotted: VecDeque<(String, u64)>,
    pub membership: StoredMembership,
}

/// The state after a whole entry: the only points at which it may be stored.
#[derive(Debug, Clone, Default)]
pub struct Boundary {
    pub applied: Option<LogId>,
    pub revision: Revision,
    pub keys: u64,
    pub digest: Digest,
    pub settings: Arc<Settings>,
}

impl Boundary {
    pub fn to_meta(&self) -> proto::StateMeta {
        proto::StateMeta {
            applied: self.applied.map(proto::LogId::from),
            revision: self.revision,
            membership: Some((&self.settings.membership).into()),
            cluster_id: self.settings.cluster_id.clone(),
            feature_level: self.settings.feature_level,
            next_member_id: self.settings.next_member_id,
            keys: self.keys,
            digest: self.digest.to_bytes(),
            allotted: self
                .settings
                .allotted
                .iter()
                .map(|(request_id, member_id)| proto::Allotted {
                    request_id: request_id.clone(),
                    member_id: *member_id,
                })
                .collect(),
        }
    }

    pub fn from_meta(meta: proto::StateMeta) -> Result<Self, codec::CodecError> {
        let membership = meta
            .membership
            .map(StoredMembership::try_from)
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            applied: meta.applied.map(LogId::from),
            revision: meta.revision,
            keys: meta.keys,
            digest: Digest::from_bytes(&meta.digest).ok_or(codec::CodecError::Missing {
                message: "a record of the state",
                field: "digest of 16 bytes",
            })?,
            settings: Arc::new(Settings {
                cluster_id: meta.cluster_id,
                feature_level: meta.feature_level,
                next_member_id: meta.next_member_id,
                allotted: meta.allotted.into_iter().map(|a| (a.request_id, a.member_id)).collect(),
                membership,
            }),
        })
    }
}
