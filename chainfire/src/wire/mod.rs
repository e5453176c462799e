//! Between the types of [`crate::kv`] and the messages of `proto/chainfire`.
//!
//! All translation is here, so that services, client and log agree on it. Nothing is copied: keys and
//! values move as reference-counted bytes. What comes from outside is never trusted: a missing or unknown
//! part is [`crate::kv::KvError::Malformed`] and names the field, it is never filled in with a guess.

mod command;
mod kv;
mod status;

pub use command::{answer_from_ref, answer_to_ref, txn_from_command, txn_to_command};
pub use kv::{delete_request, get_request};
pub use status::{CallKind, error_from_status, status_from_error};

/// What a member accepts as one request. Well above every limit of [`crate::kv::Limits`], so that what is
/// too large is answered with the limit's own error.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// What a client accepts as one answer. A deletion of a whole prefix is one revision and so one message
/// of a watch, however many keys it had: this is a bound against nonsense, not a limit of the store.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
