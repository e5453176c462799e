//! A repeated request is answered like the first: the id of a request is kept with a hash of what it asked for,
//! in the transaction of the change it made.

use plasmavmc_types::{OperationId, RequestId, VmId};
use prost::Message;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::clock::wall_ms;
use crate::store::{Mirror, Request, Write};

/// A call that changes something.
#[derive(Debug, Clone)]
pub struct Asked {
    id: Option<RequestId>,
    content_sha256: [u8; 32],
}

impl Asked {
    /// `content` is the request without its id, and without what does not change what is done.
    pub fn new(method: &str, id: &str, content: &impl Message) -> Result<Self, ApiError> {
        let id = match id {
            "" => None,
            id => Some(RequestId::new(id).map_err(|invalid| ApiError::Field {
                field: "request_id".to_owned(),
                problem: invalid.to_string(),
            })?),
        };
        let mut hash = Sha256::new();
        hash.update(method.as_bytes());
        hash.update([0]);
        hash.update(content.encode_to_vec());
        Ok(Self {
            id,
            content_sha256: hash.finalize().into(),
        })
    }

    /// What the first call did, if there was one.
    pub fn answered(&self, mirror: &Mirror) -> Result<Option<Request>, ApiError> {
        let Some(id) = &self.id else {
            return Ok(None);
        };
        match mirror.request(id) {
            None => Ok(None),
            Some(first) if first.value.content_sha256 == self.content_sha256 => Ok(Some(first.value)),
            Some(_) => Err(ApiError::RequestIdReused(id.to_string())),
        }
    }

    /// Notes what this call does, in the transaction that does it.
    pub fn note(&self, write: Write, vm: VmId, operation: Option<OperationId>) -> Write {
        let Some(id) = &self.id else {
            return write;
        };
        let request = Request {
            content_sha256: self.content_sha256,
            vm: Some(vm),
            operation,
            at_ms: wall_ms(),
        };
        write.put_request(id, &request)
    }

    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// The id, for messages.
    pub fn id(&self) -> String {
        self.id.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}
