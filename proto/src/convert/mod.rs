//! Between messages and plain validated data.
//!
//! ```text
//!   spec    VmSpec, in the API and in the store: the same message
//!   store   everything else the store keeps
//! ```
//! Reading names everything that is wrong at once, by the field the message has, and never guesses: a number
//! that names nothing here, written by a later version, is an error. Must never: lose a field, or read back
//! another value than was written.

pub mod spec;
pub mod store;

use std::fmt::Display;

use plasmavmc_types::Checks;
use uuid::Uuid;

/// An id as it is stored.
pub(crate) fn id_bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// An id that was stored.
pub(crate) fn read_id(checks: &mut Checks, field: &str, bytes: &[u8]) -> Option<Uuid> {
    let id = Uuid::from_slice(bytes).ok();
    if id.is_none() {
        checks.refuse(field, format!("has {} bytes, an id has 16", bytes.len()));
    }
    id
}

/// An id that may be missing, which no bytes stand for. `None` only with a problem kept.
pub(crate) fn read_optional_id(checks: &mut Checks, field: &str, bytes: &[u8]) -> Option<Option<Uuid>> {
    if bytes.is_empty() {
        return Some(None);
    }
    read_id(checks, field, bytes).map(Some)
}

/// The meaning of an enum's number. `None` only with a problem kept.
pub(crate) fn read_enum<E: TryFrom<i32>>(checks: &mut Checks, field: &str, number: i32) -> Option<E> {
    let known = E::try_from(number).ok();
    if known.is_none() {
        refuse_number(checks, field, number);
    }
    known
}

pub(crate) fn refuse_number(checks: &mut Checks, field: &str, number: impl Display) {
    checks.refuse(field, format!("is {number}, which means nothing to this version"));
}

#[cfg(test)]
mod descriptor_tests;
