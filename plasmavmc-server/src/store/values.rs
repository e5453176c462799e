//! What is kept besides the data of plasmavmc-types, and any value as one type.

use plasmavmc_core::view::{PlacementMode, Recovery};
use plasmavmc_types::{
    Beat, Decision, HostRecord, Operation, OperationId, Placement, Session, Timings, VmId, VmRecord, VmStatus,
};

/// The settings of the cluster, written when it is founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterConfig {
    pub timings: Timings,
    pub placement: PlacementMode,
    pub recovery: Recovery,
}

impl ClusterConfig {
    /// The format of everything that is stored. A server that finds another one must not write.
    pub const FORMAT: u32 = 1;
}

/// That a call was carried out, so that its repetition is answered like the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Of what was asked for: the same id with another content is a mistake of the caller.
    pub content_sha256: [u8; 32],
    pub vm: Option<VmId>,
    pub operation: Option<OperationId>,
    pub at_ms: u64,
}

/// The right of some hosts to join, of which only a hash is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub secret_sha256: [u8; 32],
    pub expires_at_ms: u64,
    pub uses_left: u32,
}

/// Any value that is kept.
#[expect(
    clippy::large_enum_variant,
    reason = "most values are VM records, and each is moved once, to where it is kept by itself"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredValue {
    Config(ClusterConfig),
    HostRecord(HostRecord),
    Session(Session),
    Beat(Beat),
    VmRecord(VmRecord),
    Placement(Placement),
    Status(VmStatus),
    /// Of a name or number: the VM that has it.
    Pointer(VmId),
    Request(Request),
    Operation(Operation),
    Decision(Decision),
    Token(Token),
}
