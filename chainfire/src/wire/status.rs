//! The one table between [`KvError`] and gRPC statuses.
//!
//! A status carries the error's sentence as message, its name in the metadata `chainfire-reason` and each
//! of its fields in `chainfire-<field>` (texts in `chainfire-<field>-bin`, for they may hold any letter).
//! So an error that crosses the wire, even twice, is the same error at the other end.
//!
//! A status without a reason was not made by a store. What it means for a write is decided here, and never
//! in favour of "nothing was changed" unless that is certain.

use std::error::Error;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::kv::KvError;

const REASON: &str = "chainfire-reason";

/// Texts are cut there: headers have a limit of their own, and a lost status would be a worse answer.
const MAX_TEXT_BYTES: usize = 1024;

/// Whether an answer that got lost may hide a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    Read,
    Write,
}

/// A field of an error as it travels in metadata.
trait Field: Sized {
    fn write(&self, name: &'static str, metadata: &mut MetadataMap);
    fn read(name: &'static str, metadata: &MetadataMap) -> Option<Self>;
}

impl Field for u64 {
    fn write(&self, name: &'static str, metadata: &mut MetadataMap) {
        metadata.insert(name, MetadataValue::from(*self));
    }

    fn read(name: &'static str, metadata: &MetadataMap) -> Option<Self> {
        metadata.get(name)?.to_str().ok()?.parse().ok()
    }
}

impl Field for usize {
    fn write(&self, name: &'static str, metadata: &mut MetadataMap) {
        (*self as u64).write(name, metadata);
    }

    fn read(name: &'static str, metadata: &MetadataMap) -> Option<Self> {
        u64::read(name, metadata)?.try_into().ok()
    }
}

impl Field for String {
    fn write(&self, name: &'static str, metadata: &mut MetadataMap) {
        let value = MetadataValue::from_bytes(cut(self).as_bytes());
        // Building the key only fails for names that are not lower-case ASCII; ours are literals below.
        if let Ok(key) = tonic::metadata::BinaryMetadataKey::from_bytes(format!("{name}-bin").as_bytes()) {
            metadata.insert_bin(key, value);
        }
    }

    fn read(name: &'static str, metadata: &MetadataMap) -> Option<Self> {
        let bytes = metadata.get_bin(format!("{name}-bin"))?.to_bytes().ok()?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// What a limit of [`KvError::TooMany`] counts: the words are fixed, so that they can be `'static`.
impl Field for &'static str {
    fn write(&self, name: &'static str, metadata: &mut MetadataMap) {
        self.to_string().write(name, metadata);
    }

    fn read(name: &'static str, metadata: &MetadataMap) -> Option<Self> {
        const COUNTED: [&str; 4] = ["watches", "clients", "backups", "queued transactions"];
        let word = String::read(name, metadata)?;
        Some(COUNTED.into_iter().find(|known| *known == word).unwrap_or("requests"))
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

macro_rules! table {
    ($($variant:ident { $($field:ident),* } => $code:ident $reason:literal,)*) => {
        fn code_and_reason(error: &KvError) -> (Code, &'static str) {
            match error {
                $(KvError::$variant { .. } => (Code::$code, $reason),)*
            }
        }

        fn write_fields(error: &KvError, metadata: &mut MetadataMap) {
            match error {
                $(KvError::$variant { $($field),* } => {
                    $($field.write(concat!("chainfire-", stringify!($field)), metadata);)*
                })*
            }
        }

        fn read_error(reason: &str, metadata: &MetadataMap) -> Option<KvError> {
            match reason {
                $($reason => Some(KvError::$variant {
                    $($field: Field::read(concat!("chainfire-", stringify!($field)), metadata)?),*
                }),)*
                _ => None,
            }
        }
    };
}

table! {
    EmptyKey {} => InvalidArgument "EMPTY_KEY",
    KeyTooLong { bytes, limit } => InvalidArgument "KEY_TOO_LONG",
    ValueTooLarge { bytes, limit } => InvalidArgument "VALUE_TOO_LARGE",
    TxnTooManyOps { ops, limit } => InvalidArgument "TXN_TOO_MANY_OPS",
    TxnTooLarge { bytes, limit } => InvalidArgument "TXN_TOO_LARGE",
    PageTooLarge { asked, limit } => InvalidArgument "PAGE_TOO_LARGE",
    AfterOutsidePrefix {} => InvalidArgument "AFTER_OUTSIDE_PREFIX",
    Malformed { reason } => InvalidArgument "MALFORMED",
    Compacted { asked, compacted } => OutOfRange "COMPACTED",
    FutureRevision { asked, current } => OutOfRange "FUTURE_REVISION",
    SlowWatcher { needed, compacted } => Aborted "SLOW_WATCHER",
    TooMany { what, limit } => ResourceExhausted "TOO_MANY",
    Overloaded { limit } => ResourceExhausted "OVERLOADED",
    DiskFull { reason } => ResourceExhausted "DISK_FULL",
    NoLeader { reason } => Unavailable "NO_LEADER",
    Unavailable { reason } => Unavailable "UNAVAILABLE",
    Timeout { waited_ms, reason } => DeadlineExceeded "TIMEOUT",
    // Not Unavailable: generic clients repeat such calls by themselves.
    OutcomeUnknown { reason } => Unknown "OUTCOME_UNKNOWN",
    Internal { reason } => Internal "INTERNAL",
}

/// The status that carries an error to a client.
pub fn status_from_error(error: &KvError) -> Status {
    let (code, reason) = code_and_reason(error);
    let mut metadata = MetadataMap::new();
    metadata.insert(REASON, MetadataValue::from_static(reason));
    write_fields(error, &mut metadata);
    Status::with_metadata(code, cut(&error.to_string()), metadata)
}

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        status_from_error(&error)
    }
}

/// The error that a status carries, or what a status of other origin means for a call of this kind.
pub fn error_from_status(status: &Status, kind: CallKind) -> KvError {
    let metadata = status.metadata();
    let reason = metadata.get(REASON).and_then(|value| value.to_str().ok());
    match reason {
        Some(reason) => read_error(reason, metadata).unwrap_or_else(|| foreign_error(status, kind)),
        None => foreign_error(status, kind),
    }
}

fn foreign_error(status: &Status, kind: CallKind) -> KvError {
    let reason = sentence(status);
    if was_never_sent(status) || was_refused(status.code()) {
        return KvError::Unavailable { reason };
    }
    match (kind, status.code()) {
        (CallKind::Write, _) => KvError::OutcomeUnknown { reason },
        (CallKind::Read, Code::InvalidArgument) => KvError::Malformed { reason },
        (CallKind::Read, Code::OutOfRange | Code::DataLoss) => KvError::Internal { reason },
        // A read changes nothing, so another member may be asked whatever went wrong with this one.
        (CallKind::Read, _) => KvError::Unavailable { reason },
    }
}

/// Codes with which a server turns a call away before it looks at it.
fn was_refused(code: Code) -> bool {
    matches!(
        code,
        Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied
    )
}

/// Whether the request certainly never left: no connection came about, or it was closed while the request
/// still waited in our own queue.
fn was_never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What went wrong, with the innermost cause: "transport error" alone helps nobody.
fn sentence(status: &Status) -> String {
    let mut innermost = None;
    let mut cause = status.source();
    while let Some(error) = cause {
        innermost = Some(error);
        cause = error.source();
    }
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match innermost.map(ToString::to_string) {
        Some(detail) if !message.contains(&detail) => format!("{message}: {detail}"),
        _ => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<KvError> {
        let reason = || "größer als \"gedacht\"\n".to_string();
        vec![
            KvError::EmptyKey,
            KvError::KeyTooLong { bytes: 2, limit: 1 },
            KvError::ValueTooLarge { bytes: 3, limit: 1 },
            KvError::TxnTooManyOps { ops: 4, limit: 1 },
            KvError::TxnTooLarge { bytes: 5, limit: 1 },
            KvError::PageTooLarge { asked: 6, limit: 1 },
            KvError::AfterOutsidePrefix,
            KvError::Compacted { asked: 7, compacted: 8 },
            KvError::FutureRevision { asked: 9, current: 1 },
            KvError::SlowWatcher {
                needed: 1,
                compacted: u64::MAX,
            },
            KvError::TooMany {
                what: "watches",
                limit: 1,
            },
            KvError::Overloaded { limit: 1 },
            KvError::NoLeader { reason: reason() },
            KvError::Timeout {
                waited_ms: 5000,
                reason: reason(),
            },
            KvError::OutcomeUnknown { reason: reason() },
            KvError::DiskFull { reason: reason() },
            KvError::Unavailable { reason: reason() },
            KvError::Malformed { reason: reason() },
            KvError::Internal { reason: reason() },
        ]
    }

    #[test]
    fn every_error_crosses_the_wire_unchanged() {
        for error in one_of_each() {
            // By way of real headers, as it travels.
            let response = status_from_error(&error).into_http::<tonic::body::Body>();
            let status = Status::from_header_map(response.headers()).expect("a status");
            assert_eq!(status.message(), error.to_string());
            assert_ne!(status.code(), Code::Ok);
            assert_eq!(error_from_status(&status, CallKind::Write), error);
        }
    }

    #[test]
    fn reasons_are_distinct() {
        let mut reasons: Vec<_> = one_of_each().iter().map(|error| code_and_reason(error).1).collect();
        let all = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), all);
    }

    #[test]
    fn a_long_text_is_cut_at_a_letter() {
        let reason = "ä".repeat(MAX_TEXT_BYTES);
        let status = status_from_error(&KvError::Internal { reason });
        let KvError::Internal { reason } = error_from_status(&status, CallKind::Read) else {
            panic!("another error: {status}");
        };
        assert_eq!(reason.len(), MAX_TEXT_BYTES);
        assert!(status.message().len() <= MAX_TEXT_BYTES);
    }

    #[test]
    fn a_lost_answer_of_a_write_is_an_unknown_outcome() {
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::Internal,
            Code::DeadlineExceeded,
            Code::Unknown,
        ] {
            let status = Status::new(code, "connection reset");
            let write = error_from_status(&status, CallKind::Write);
            assert!(matches!(write, KvError::OutcomeUnknown { .. }), "{code:?}: {write:?}");
            let read = error_from_status(&status, CallKind::Read);
            assert!(matches!(read, KvError::Unavailable { .. }), "{code:?}: {read:?}");
        }
    }

    #[test]
    fn a_call_that_was_turned_away_changed_nothing() {
        let status = Status::new(Code::Unimplemented, "no such service");
        let error = error_from_status(&status, CallKind::Write);
        assert!(matches!(error, KvError::Unavailable { .. }), "{error:?}");
    }

    #[test]
    fn a_refused_connection_changed_nothing_and_says_why() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
        let error = error_from_status(&status, CallKind::Write);
        assert_eq!(
            error,
            KvError::Unavailable {
                reason: "refused".into()
            }
        );
    }

    #[test]
    fn a_reason_without_its_fields_is_not_believed() {
        let mut status = Status::new(Code::InvalidArgument, "?");
        status
            .metadata_mut()
            .insert(REASON, MetadataValue::from_static("KEY_TOO_LONG"));
        let error = error_from_status(&status, CallKind::Write);
        assert!(matches!(error, KvError::OutcomeUnknown { .. }), "{error:?}");
    }
}
