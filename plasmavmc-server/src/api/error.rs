//! Everything a call can be refused with, and the one table from there to gRPC.
//!
//! Each error has a code, a reason for programs (`ErrorInfo.reason`, domain `plasmavmc`), and a sentence for
//! people that says what to do. Fields that are wrong are listed as `BadRequest` violations.

use std::time::Duration;

use chainfire::kv::KvError;
use plasmavmc_core::lifecycle::Rejection;
use plasmavmc_types::{HostId, Invalid, Operation, OperationError, OperationId, OperationState};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::store::WriteError;

/// Whose reasons these are.
pub const DOMAIN: &str = "plasmavmc";
const NO_QUORUM_REMEDY: &str = "start the servers that are down, or mend the network between them; what this server \
                                knows can be read with `stale`";
/// When to ask a server again that has just started.
const STARTS_WITHIN: Duration = Duration::from_millis(200);

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    #[error(
        "this server belongs to no cluster: found one with 'plasmavmc cluster init', or join one with \
         'plasmavmc cluster join'"
    )]
    NotInACluster,
    #[error("this server has just started and opens its store: try again in a moment, or ask another server")]
    Starting,
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("{field} {problem}")]
    Field { field: String, problem: String },
    #[error("there is no VM {0}: 'plasmavmc vm list' shows those there are")]
    VmNotFound(String),
    #[error("there is no host {0}: 'plasmavmc host list' shows those there are")]
    HostNotFound(String),
    #[error("there is no operation {0}; ended ones are kept for a while only")]
    OperationNotFound(String),
    #[error("there is a VM {0} already: choose another name, or delete that one first")]
    NameTaken(String),
    #[error("vmid {0} is taken: choose another, or leave it out and one is allotted")]
    VmidTaken(u32),
    #[error("request id {0} was used for something else: use a new id for each request")]
    RequestIdReused(String),
    #[error("the VM of request {0} has been deleted since")]
    RequestOutlived(String),
    #[error("the VM is at generation {now}, not {asked}: somebody changed it; read it again, then change it")]
    StaleGeneration { asked: u64, now: u64 },
    #[error("{}", .0.message)]
    Rejected(Rejection),
    #[error("{}: {}", sentence_of(.0), error_of(.0).map_or("it was cancelled", |error| &error.message))]
    OperationEnded(Box<Operation>),
    #[error("operation {operation} goes on ({step}); 'plasmavmc op wait {operation}' waits for its end")]
    StillUnderWay { operation: OperationId, step: String },
    #[error("others changed the same thing at the same time ({tries} tries): try again")]
    Contended { tries: u32 },
    #[error("{0}")]
    Kv(KvError),
    #[error("this server has not heard of the latest changes within {} ms: try again, ask another server, or ask with `stale`", .0.as_millis())]
    Behind(Duration),
    #[error("there are {limit} watches on this server, which is all it allows: ask another server, or close some")]
    TooManyWatches { limit: usize },
    #[error(
        "changes since revision {asked} are no longer kept: begin again without a revision, which lists everything first"
    )]
    RevisionGone { asked: u64 },
    #[error(
        "revision {asked} does not exist yet, the store is at {current}: resume with a revision this cluster gave out"
    )]
    RevisionAhead { asked: u64, current: u64 },
    #[error("the stream fell behind: resume from the last revision it gave")]
    FellBehind,
    #[error("this server is stopping: call another one, or this one in a moment")]
    Stopping,
    #[error("VM {vm} has no console now: {why}")]
    NoConsole { vm: String, why: String },
    #[error("the host {host} of this VM cannot be reached: {why}")]
    HostUnreachable { host: String, why: String },
    #[error("{0}")]
    Token(TokenError),
    #[error("{0}")]
    Cluster(ClusterError),
    #[error("{0}: this is a mistake in the program, please report it")]
    Internal(String),
}

/// Why a join token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not one of this cluster: 'plasmavmc cluster token' on a server of the cluster prints one")]
    Unknown,
    #[error("the token has expired: 'plasmavmc cluster token' on a server of the cluster prints a new one")]
    Expired,
    #[error("the token has been used up: 'plasmavmc cluster token' on a server of the cluster prints a new one")]
    UsedUp,
}

/// Why a cluster is not founded, joined or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("this server belongs to a cluster already ({0}); a folder belongs to one cluster for good")]
    AlreadyMember(String),
    #[error("this server is just founding or joining a cluster: wait for the end of that")]
    UnderWay,
    #[error("the cluster has a host {name} already ({host}): start this server with another --name")]
    HostNameTaken { name: String, host: HostId },
    #[error("{reason}")]
    CannotJoin { reason: String },
    #[error("the cluster cannot be founded: {reason}")]
    CannotFound { reason: String },
    #[error("host {host} has VMs ({vms}): {remedy}")]
    HostHasVms {
        host: String,
        vms: String,
        remedy: &'static str,
    },
    #[error("host {host} is alive: stop its server first, so that it does not go on as if it belonged here")]
    HostAlive { host: String },
    #[error("host {host} is silent: say that it will never come back (`dead`), or bring it back first")]
    HostSilent { host: String },
    #[error("host {host} is the one that answers: ask another server of the cluster to remove it")]
    HostIsMe { host: String },
    #[error("a witness cannot found a cluster: it runs no VMs; begin on a host that does, and let the witness join it")]
    WitnessFounds,
    #[error("the cluster has {voters} voters, as many as are good: a witness would not vote, so it is of no use")]
    WitnessWithoutVote { voters: usize },
    #[error("{host} is a witness: it runs no VMs, so that there is nothing to drain; just stop its server")]
    HostIsWitness { host: String },
    #[error(
        "host {host} has no open session: there is nothing to prepare. What ran on it is treated as after a failure"
    )]
    HostIsNotHere { host: String },
    #[error(
        "host {host} was lost when the cluster was recovered: see that it runs no VMs, say so with 'plasmavmc cluster \
         remove {host} --dead', and let it join with an empty folder"
    )]
    HostUnconfirmed { host: String },
    #[error(
        "host {host} runs a version that does not say under which timings it beats: upgrade its server first, then \
         change them"
    )]
    HostSaysNoTimings { host: String },
    #[error("the members of the store cannot be changed: {reason}")]
    Membership { reason: String },
}

impl TokenError {
    const fn reason(self) -> &'static str {
        match self {
            TokenError::Unknown => "TOKEN_UNKNOWN",
            TokenError::Expired => "TOKEN_EXPIRED",
            TokenError::UsedUp => "TOKEN_USED_UP",
        }
    }
}

impl ClusterError {
    const fn row(&self) -> (Code, &'static str) {
        match self {
            ClusterError::AlreadyMember(_) => (Code::FailedPrecondition, "IN_A_CLUSTER"),
            ClusterError::UnderWay => (Code::Aborted, "CLUSTER_CHANGE_UNDER_WAY"),
            ClusterError::HostNameTaken { .. } => (Code::AlreadyExists, "HOST_NAME_TAKEN"),
            ClusterError::CannotJoin { .. } => (Code::FailedPrecondition, "CANNOT_JOIN"),
            ClusterError::CannotFound { .. } => (Code::FailedPrecondition, "CANNOT_FOUND"),
            ClusterError::HostHasVms { .. } => (Code::FailedPrecondition, "HOST_HAS_VMS"),
            ClusterError::HostAlive { .. } => (Code::FailedPrecondition, "HOST_ALIVE"),
            ClusterError::HostSilent { .. } => (Code::FailedPrecondition, "HOST_SILENT"),
            ClusterError::HostIsMe { .. } => (Code::FailedPrecondition, "HOST_IS_THIS_ONE"),
            ClusterError::WitnessFounds => (Code::FailedPrecondition, "WITNESS_FOUNDS"),
            ClusterError::WitnessWithoutVote { .. } => (Code::FailedPrecondition, "WITNESS_WITHOUT_VOTE"),
            ClusterError::HostIsWitness { .. } => (Code::FailedPrecondition, "HOST_IS_WITNESS"),
            ClusterError::HostIsNotHere { .. } => (Code::FailedPrecondition, "HOST_IS_NOT_HERE"),
            ClusterError::HostUnconfirmed { .. } => (Code::FailedPrecondition, "HOST_UNCONFIRMED"),
            ClusterError::HostSaysNoTimings { .. } => (Code::FailedPrecondition, "HOST_SAYS_NO_TIMINGS"),
            ClusterError::Membership { .. } => (Code::FailedPrecondition, "MEMBERSHIP"),
        }
    }
}

fn sentence_of(operation: &Operation) -> String {
    let Operation { kind, vm_name, .. } = operation;
    format!("{kind} of VM {vm_name}")
}

fn error_of(operation: &Operation) -> Option<&OperationError> {
    match &operation.state {
        OperationState::Failed(error) => Some(error),
        _ => None,
    }
}

/// The table of the store's errors: what they mean for a call of ours.
fn kv_row(error: &KvError) -> (Code, &'static str) {
    match error {
        KvError::NoLeader { .. } => (Code::Unavailable, "NO_QUORUM"),
        KvError::Unavailable { .. } => (Code::Unavailable, "STORE_UNAVAILABLE"),
        KvError::Timeout { .. } => (Code::Unavailable, "STORE_TIMEOUT"),
        KvError::OutcomeUnknown { .. } => (Code::Unknown, "OUTCOME_UNKNOWN"),
        KvError::DiskFull { .. } => (Code::ResourceExhausted, "DISK_FULL"),
        KvError::Overloaded { .. } => (Code::ResourceExhausted, "OVERLOADED"),
        KvError::TooMany { .. } => (Code::ResourceExhausted, "TOO_MANY"),
        KvError::Compacted { .. } => (Code::OutOfRange, "REVISION_COMPACTED"),
        KvError::FutureRevision { .. } => (Code::OutOfRange, "REVISION_AHEAD"),
        KvError::SlowWatcher { .. } => (Code::Aborted, "FELL_BEHIND"),
        KvError::ValueTooLarge { .. } | KvError::TxnTooLarge { .. } | KvError::TxnTooManyOps { .. } => {
            (Code::InvalidArgument, "TOO_LARGE")
        }
        _ => (Code::Internal, "STORE_ERROR"),
    }
}

impl ApiError {
    /// The table: code and reason of each error.
    fn row(&self) -> (Code, &str) {
        match self {
            ApiError::NotInACluster => (Code::FailedPrecondition, "NOT_IN_A_CLUSTER"),
            ApiError::Starting => (Code::Unavailable, "STARTING"),
            ApiError::Invalid(_) | ApiError::Field { .. } => (Code::InvalidArgument, "INVALID_ARGUMENT"),
            ApiError::VmNotFound(_) => (Code::NotFound, "VM_NOT_FOUND"),
            ApiError::HostNotFound(_) => (Code::NotFound, "HOST_NOT_FOUND"),
            ApiError::OperationNotFound(_) => (Code::NotFound, "OPERATION_NOT_FOUND"),
            ApiError::NameTaken(_) => (Code::AlreadyExists, "NAME_TAKEN"),
            ApiError::VmidTaken(_) => (Code::AlreadyExists, "VMID_TAKEN"),
            ApiError::RequestIdReused(_) => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
            ApiError::RequestOutlived(_) => (Code::NotFound, "VM_NOT_FOUND"),
            ApiError::StaleGeneration { .. } => (Code::Aborted, "STALE_GENERATION"),
            ApiError::Rejected(rejection) => (code_of(rejection.code.number()), rejection.reason),
            ApiError::OperationEnded(operation) => match error_of(operation) {
                Some(error) => (code_of(error.code), &error.reason),
                None => (Code::Aborted, "OPERATION_CANCELLED"),
            },
            ApiError::StillUnderWay { .. } => (Code::DeadlineExceeded, "STILL_UNDER_WAY"),
            ApiError::Contended { .. } => (Code::Aborted, "CONTENDED"),
            ApiError::Kv(error) => kv_row(error),
            ApiError::Behind(_) => (Code::Unavailable, "BEHIND"),
            ApiError::TooManyWatches { .. } => (Code::ResourceExhausted, "TOO_MANY_WATCHES"),
            ApiError::RevisionGone { .. } => (Code::OutOfRange, "REVISION_COMPACTED"),
            ApiError::RevisionAhead { .. } => (Code::OutOfRange, "REVISION_AHEAD"),
            ApiError::FellBehind => (Code::Aborted, "FELL_BEHIND"),
            ApiError::Stopping => (Code::Unavailable, "STOPPING"),
            ApiError::NoConsole { .. } => (Code::FailedPrecondition, "NO_CONSOLE"),
            ApiError::HostUnreachable { .. } => (Code::Unavailable, "HOST_UNREACHABLE"),
            ApiError::Token(error) => (Code::PermissionDenied, error.reason()),
            ApiError::Cluster(error) => error.row(),
            ApiError::Internal(_) => (Code::Internal, "INTERNAL"),
        }
    }

    /// What programs may want besides: ids, and what would have been right.
    fn facts(&self) -> Vec<(String, String)> {
        let fact = |key: &str, value: &dyn ToString| (key.to_owned(), value.to_string());
        match self {
            ApiError::StaleGeneration { now, .. } => vec![fact("generation", now)],
            ApiError::Kv(KvError::NoLeader { .. }) => vec![fact("remedy", &NO_QUORUM_REMEDY)],
            ApiError::Rejected(rejection) => rejection
                .operation
                .iter()
                .map(|operation| fact("operation", operation))
                .collect(),
            ApiError::OperationEnded(operation) => {
                vec![fact("operation", &operation.id), fact("vm", &operation.vm)]
            }
            ApiError::StillUnderWay { operation, .. } => vec![fact("operation", operation)],
            ApiError::RevisionAhead { current, .. } => vec![fact("revision", current)],
            _ => Vec::new(),
        }
    }

    fn violations(&self) -> Vec<(String, String)> {
        match self {
            ApiError::Invalid(invalid) => invalid
                .problems()
                .iter()
                .map(|problem| (problem.field.clone(), problem.problem.clone()))
                .collect(),
            ApiError::Field { field, problem } => vec![(field.clone(), problem.clone())],
            _ => Vec::new(),
        }
    }
}

fn code_of(number: u32) -> Code {
    i32::try_from(number).map_or(Code::Unknown, Code::from_i32)
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        if matches!(error, ApiError::Internal(_)) {
            tracing::error!(%error, "a call failed that should not have");
        }
        let (code, reason) = error.row();
        let mut details = ErrorDetails::with_error_info(
            reason,
            DOMAIN,
            error.facts().into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        if matches!(error, ApiError::Starting) {
            details.set_retry_info(Some(STARTS_WITHIN));
        }
        for (field, problem) in error.violations() {
            details.add_bad_request_violation(field, problem);
        }
        Status::with_error_details(code, error.to_string(), details)
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        ApiError::Kv(error)
    }
}

/// Of a transaction whose race nobody looks into.
impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Kv(error) => ApiError::Kv(error),
            WriteError::Raced => ApiError::Contended { tries: 1 },
            error @ WriteError::Unguarded { .. } => ApiError::Internal(error.to_string()),
        }
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        ApiError::Rejected(rejection)
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        ApiError::Token(error)
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        ApiError::Cluster(error)
    }
}
