//! The bytes of each value: the protobuf messages of `plasmavmc.store`, checked when they are read.
//!
//! A value is readable or it is an error that says why; nothing is guessed. Unknown fields of later versions
//! are dropped by protobuf, so a member must not rewrite what a later one wrote: the format number in
//! [`ClusterConfig`] guards that.

use bytes::Bytes;
use plasmavmc_core::view::{PlacementMode, Recovery};
use plasmavmc_proto::convert::store::{read_beat, read_pointer, write_beat, write_pointer};
use plasmavmc_proto::store;
use plasmavmc_types::{
    Beat, BeatSequence, Decision, HostRecord, Invalid, Operation, OperationId, Placement, Session, Timings,
    TimingsFields, VmId, VmRecord, VmStatus,
};
use prost::Message;
use uuid::Uuid;

use super::keys::ParsedKey;
use super::values::{ClusterConfig, Request, StoredValue, Token};

/// The sequence before a beat's message: big-endian, so that the store's compare of bytes tells a later beat.
const SEQUENCE_BYTES: usize = size_of::<u64>();

/// Why bytes are not the value they should be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    #[error("not the message it should be: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("format {found} is not known to this version, which has {}", ClusterConfig::FORMAT)]
    Format { found: u32 },
    #[error("the placement mode {0:?} is not known to this version")]
    PlacementMode(String),
    #[error("{field} has {found} bytes, not {expected}")]
    Length {
        field: &'static str,
        found: usize,
        expected: usize,
    },
}

/// Reads the value of a key, whatever it is.
pub fn decode(key: &ParsedKey, bytes: &[u8]) -> Result<StoredValue, CodecError> {
    let value = match key {
        ParsedKey::Config => StoredValue::Config(decode_config(bytes)?),
        ParsedKey::HostRecord(_) => StoredValue::HostRecord(decode_host(bytes)?),
        ParsedKey::Session(_) => StoredValue::Session(decode_session(bytes)?),
        ParsedKey::Beat(_) => StoredValue::Beat(decode_beat(bytes)?),
        ParsedKey::VmRecord(_) => StoredValue::VmRecord(decode_record(bytes)?),
        ParsedKey::Placement(_) => StoredValue::Placement(decode_placement(bytes)?),
        ParsedKey::Status(_) => StoredValue::Status(decode_status(bytes)?),
        ParsedKey::Name(_) | ParsedKey::Number(_) => StoredValue::Pointer(decode_pointer(bytes)?),
        ParsedKey::Request(_) => StoredValue::Request(decode_request(bytes)?),
        ParsedKey::Operation(_) => StoredValue::Operation(decode_operation(bytes)?),
        ParsedKey::Decision(_) => StoredValue::Decision(decode_decision(bytes)?),
        ParsedKey::Token(_) => StoredValue::Token(decode_token(bytes)?),
    };
    Ok(value)
}

fn bytes_of(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

pub fn encode_record(record: &VmRecord) -> Bytes {
    bytes_of(&store::VmRecord::from(record))
}

pub fn decode_record(bytes: &[u8]) -> Result<VmRecord, CodecError> {
    Ok(store::VmRecord::decode(bytes)?.try_into()?)
}

pub fn encode_placement(placement: &Placement) -> Bytes {
    bytes_of(&store::Placement::from(placement))
}

pub fn decode_placement(bytes: &[u8]) -> Result<Placement, CodecError> {
    Ok(store::Placement::decode(bytes)?.try_into()?)
}

pub fn encode_status(status: &VmStatus) -> Bytes {
    bytes_of(&store::VmStatus::from(status))
}

pub fn decode_status(bytes: &[u8]) -> Result<VmStatus, CodecError> {
    Ok(store::VmStatus::decode(bytes)?.try_into()?)
}

pub fn encode_host(record: &HostRecord) -> Bytes {
    bytes_of(&store::HostRecord::from(record))
}

pub fn decode_host(bytes: &[u8]) -> Result<HostRecord, CodecError> {
    Ok(store::HostRecord::decode(bytes)?.try_into()?)
}

pub fn encode_session(session: &Session) -> Bytes {
    bytes_of(&store::Session::from(session))
}

pub fn decode_session(bytes: &[u8]) -> Result<Session, CodecError> {
    Ok(store::Session::decode(bytes)?.try_into()?)
}

pub fn encode_beat(beat: &Beat) -> Bytes {
    let message = write_beat(beat);
    let mut bytes = Vec::with_capacity(SEQUENCE_BYTES + message.encoded_len());
    bytes.extend_from_slice(&beat.sequence.to_ordered_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    Bytes::from(bytes)
}

pub fn decode_beat(bytes: &[u8]) -> Result<Beat, CodecError> {
    let Some((sequence, message)) = bytes.split_first_chunk::<SEQUENCE_BYTES>() else {
        return Err(CodecError::Length {
            field: "a beat",
            found: bytes.len(),
            expected: SEQUENCE_BYTES,
        });
    };
    let sequence = BeatSequence(u64::from_be_bytes(*sequence));
    Ok(read_beat(sequence, store::Beat::decode(message)?)?)
}

pub fn encode_operation(operation: &Operation) -> Bytes {
    bytes_of(&store::Operation::from(operation))
}

pub fn decode_operation(bytes: &[u8]) -> Result<Operation, CodecError> {
    Ok(store::Operation::decode(bytes)?.try_into()?)
}

pub fn encode_decision(decision: &Decision) -> Bytes {
    bytes_of(&store::Decision::from(decision))
}

pub fn decode_decision(bytes: &[u8]) -> Result<Decision, CodecError> {
    Ok(store::Decision::decode(bytes)?.try_into()?)
}

pub fn encode_pointer(vm: VmId) -> Bytes {
    bytes_of(&write_pointer(vm))
}

pub fn decode_pointer(bytes: &[u8]) -> Result<VmId, CodecError> {
    Ok(read_pointer(&store::VmPointer::decode(bytes)?)?)
}

pub fn encode_config(config: &ClusterConfig) -> Bytes {
    bytes_of(&store::ClusterConfig {
        format: ClusterConfig::FORMAT,
        beat_ms: config.timings.beat_ms,
        freeze_after_ms: config.timings.freeze_after_ms,
        failover_after_ms: config.timings.failover_after_ms,
        placement: match config.placement {
            PlacementMode::Spread => "spread",
            PlacementMode::Pack => "pack",
        }
        .to_owned(),
        recovery_generation: config.recovery.generation,
        recovered_at_ms: config.recovery.at_ms,
    })
}

pub fn decode_config(bytes: &[u8]) -> Result<ClusterConfig, CodecError> {
    let message = store::ClusterConfig::decode(bytes)?;
    if message.format != ClusterConfig::FORMAT {
        return Err(CodecError::Format { found: message.format });
    }
    let timings = Timings::new(TimingsFields {
        beat_ms: message.beat_ms,
        freeze_after_ms: message.freeze_after_ms,
        failover_after_ms: message.failover_after_ms,
    })?;
    let placement = match message.placement.as_str() {
        "spread" => PlacementMode::Spread,
        "pack" => PlacementMode::Pack,
        _ => return Err(CodecError::PlacementMode(message.placement)),
    };
    let recovery = Recovery {
        generation: message.recovery_generation,
        at_ms: message.recovered_at_ms,
    };
    Ok(ClusterConfig {
        timings,
        placement,
        recovery,
    })
}

pub fn encode_request(request: &Request) -> Bytes {
    let id = |id: Option<Uuid>| id.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    bytes_of(&store::Request {
        content_sha256: request.content_sha256.to_vec(),
        vm: id(request.vm.map(VmId::as_uuid)),
        operation: id(request.operation.map(OperationId::as_uuid)),
        at_ms: request.at_ms,
    })
}

pub fn decode_request(bytes: &[u8]) -> Result<Request, CodecError> {
    let message = store::Request::decode(bytes)?;
    Ok(Request {
        content_sha256: sha256("content_sha256", &message.content_sha256)?,
        vm: optional_id("vm", &message.vm)?.map(VmId::from_uuid),
        operation: optional_id("operation", &message.operation)?.map(OperationId::from_uuid),
        at_ms: message.at_ms,
    })
}

pub fn encode_token(token: &Token) -> Bytes {
    bytes_of(&store::Token {
        secret_sha256: token.secret_sha256.to_vec(),
        expires_at_ms: token.expires_at_ms,
        uses_left: token.uses_left,
    })
}

pub fn decode_token(bytes: &[u8]) -> Result<Token, CodecError> {
    let message = store::Token::decode(bytes)?;
    Ok(Token {
        secret_sha256: sha256("secret_sha256", &message.secret_sha256)?,
        expires_at_ms: message.expires_at_ms,
        uses_left: message.uses_left,
    })
}

fn sha256(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], CodecError> {
    fixed(field, bytes)
}

fn optional_id(field: &'static str, bytes: &[u8]) -> Result<Option<Uuid>, CodecError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    fixed(field, bytes).map(Uuid::from_bytes).map(Some)
}

fn fixed<const LENGTH: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; LENGTH], CodecError> {
    bytes.try_into().map_err(|_| CodecError::Length {
        field,
        found: bytes.len(),
        expected: LENGTH,
    })
}

#[cfg(test)]
pub(crate) mod tests;
