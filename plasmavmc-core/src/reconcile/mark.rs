//! Conditions by which a host remembers where it is: they are in the status, so that whoever runs on this host next
//! goes on from there. A claim takes all of them away.

use plasmavmc_types::{Condition, Label, VmStatus};

/// The attempt died by itself, which has been counted.
pub const CRASHED: &str = "crashed";
/// The attempt came to nothing because something holds what it needs.
pub const WAITING: &str = "waiting";
/// A restart was taken on; this attempt is the one to be stopped.
pub(super) const RESTARTING: &str = "restarting";
/// A reboot was taken on in this attempt.
pub(super) const REBOOTING: &str = "rebooting";
/// The agent has answered, and the guest was asked to power off, for a restart.
pub(super) const GOING_DOWN: &str = "going-down";
/// QEMU's process lives and does not answer.
pub const MONITOR_SILENT: &str = "monitor-silent";
/// Something of it runs that could not be taken over.
pub const LEFT_ALONE: &str = "left-alone";

const MAX_TEXT_BYTES: usize = 1024;

pub(super) fn has(status: &VmStatus, name: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.name.as_str() == name)
}

/// Whether it belongs to an order that is under way.
pub(super) fn is_of_order(condition: &Condition) -> bool {
    [RESTARTING, REBOOTING, GOING_DOWN].contains(&condition.name.as_str())
}

/// Adds a condition, in place of one of the same name.
pub(super) fn set(conditions: &mut Vec<Condition>, name: &str, text: impl Into<String>) {
    unset(conditions, name);
    if let Ok(name) = Label::new(name) {
        let text = shortened(&text.into());
        conditions.push(Condition { name, text });
    }
}

pub(super) fn unset(conditions: &mut Vec<Condition>, name: &str) {
    conditions.retain(|condition| condition.name.as_str() != name);
}

/// A text that fits into a status, its end kept: QEMU says last what was wrong.
pub(super) fn shortened(text: &str) -> String {
    let text = text.trim();
    let mut start = text.len().saturating_sub(MAX_TEXT_BYTES - "... ".len());
    if start == 0 || text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("... {}", &text[start..])
}
