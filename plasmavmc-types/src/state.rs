//! What state a VM is in, for people and programs, and what QEMU calls it.
//!
//! ```text
//!  pending --placed--> starting --cont--> running <-------> paused
//!                       |   ^              ^   |  \           |
//!                       |   |         thaw |   |   \ stop     | stop
//!                       v   |              |   |    \         |
//!                    failed |              |   |     v        v
//!                           |              |   |     stopping
//!                           |              |   | freeze  |
//!                           |              |   v         | the process is gone
//!                           |             frozen         |
//!                           |                | killed:   |
//!                           |                | moved     |
//!                           |                v           v
//!                           +--- start --- stopped <-----+
//! ```
//!
//! `migrating` lies between two hosts, and `unknown` is what a reader makes of a status whose writer has
//! not been heard of. `stopped` is said only when the process is gone: a QEMU that has shut its guest down
//! still holds the locks of its disks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The state of a VM as a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Wanted, but on no host yet.
    Pending,
    /// Its host has claimed it; its guest does not execute yet.
    Starting,
    Running,
    /// Its QEMU holds still; [`PauseCause`] says why.
    Paused,
    /// Held still because its host has no valid lease.
    Frozen,
    Stopping,
    /// No process exists.
    Stopped,
    Migrating,
    /// Given up on; the status has the reason.
    Failed,
    /// Its host has not been heard of for too long.
    Unknown,
}

impl VmState {
    pub const ALL: [VmState; 10] = [
        VmState::Pending,
        VmState::Starting,
        VmState::Running,
        VmState::Paused,
        VmState::Frozen,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Migrating,
        VmState::Failed,
        VmState::Unknown,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            VmState::Pending => "pending",
            VmState::Starting => "starting",
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Frozen => "frozen",
            VmState::Stopping => "stopping",
            VmState::Stopped => "stopped",
            VmState::Migrating => "migrating",
            VmState::Failed => "failed",
            VmState::Unknown => "unknown",
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no state of a VM")]
pub struct ParseVmStateError(String);

impl FromStr for VmState {
    type Err = ParseVmStateError;

    fn from_str(text: &str) -> Result<Self, ParseVmStateError> {
        let state = VmState::ALL.into_iter().find(|state| state.as_str() == text);
        state.ok_or_else(|| ParseVmStateError(text.to_owned()))
    }
}

/// Why a QEMU that is not frozen holds still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    Asked,
    /// The guest went to sleep (ACPI S3).
    Suspended,
    /// A disk answered with an error and its policy is to wait.
    IoError,
    GuestPanicked,
    /// The guest's watchdog fired.
    Watchdog,
    InternalError,
    /// QEMU writes or reads a saved state.
    Snapshot,
    /// A debugger holds it.
    Debugger,
}

impl PauseCause {
    pub const ALL: [PauseCause; 8] = [
        PauseCause::Asked,
        PauseCause::Suspended,
        PauseCause::IoError,
        PauseCause::GuestPanicked,
        PauseCause::Watchdog,
        PauseCause::InternalError,
        PauseCause::Snapshot,
        PauseCause::Debugger,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            PauseCause::Asked => "asked",
            PauseCause::Suspended => "suspended",
            PauseCause::IoError => "io_error",
            PauseCause::GuestPanicked => "guest_panicked",
            PauseCause::Watchdog => "watchdog",
            PauseCause::InternalError => "internal_error",
            PauseCause::Snapshot => "snapshot",
            PauseCause::Debugger => "debugger",
        }
    }
}

impl fmt::Display for PauseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PauseCause {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let cause = PauseCause::ALL.into_iter().find(|cause| cause.as_str() == text);
        cause.ok_or_else(|| Invalid::whole("pause cause", format!("is {text:?}, which nobody knows")))
    }
}

/// The run state that QEMU reports over QMP. A later QEMU may know more of them: that is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum QemuRunState {
    Colo,
    Debug,
    FinishMigrate,
    GuestPanicked,
    InMigrate,
    InternalError,
    IoError,
    Paused,
    PostMigrate,
    PreLaunch,
    RestoreVm,
    Running,
    SaveVm,
    Shutdown,
    Suspended,
    Watchdog,
    Other(String),
}

/// QEMU's words with ours beside them.
const QEMU_WORDS: [(&str, QemuRunState); 16] = [
    ("colo", QemuRunState::Colo),
    ("debug", QemuRunState::Debug),
    ("finish-migrate", QemuRunState::FinishMigrate),
    ("guest-panicked", QemuRunState::GuestPanicked),
    ("inmigrate", QemuRunState::InMigrate),
    ("internal-error", QemuRunState::InternalError),
    ("io-error", QemuRunState::IoError),
    ("paused", QemuRunState::Paused),
    ("postmigrate", QemuRunState::PostMigrate),
    ("prelaunch", QemuRunState::PreLaunch),
    ("restore-vm", QemuRunState::RestoreVm),
    ("running", QemuRunState::Running),
    ("save-vm", QemuRunState::SaveVm),
    ("shutdown", QemuRunState::Shutdown),
    ("suspended", QemuRunState::Suspended),
    ("watchdog", QemuRunState::Watchdog),
];

impl QemuRunState {
    pub fn as_str(&self) -> &str {
        match self {
            QemuRunState::Other(word) => word,
            known => QEMU_WORDS
                .iter()
                .find(|(_, state)| state == known)
                .map_or("unknown", |(word, _)| word),
        }
    }

    /// What a client sees of it.
    pub fn vm_state(&self) -> VmState {
        match self {
            QemuRunState::Running => VmState::Running,
            QemuRunState::PreLaunch => VmState::Starting,
            QemuRunState::Colo | QemuRunState::FinishMigrate | QemuRunState::InMigrate | QemuRunState::PostMigrate => {
                VmState::Migrating
            }
            QemuRunState::Shutdown => VmState::Stopping,
            QemuRunState::Other(_) => VmState::Unknown,
            _ => VmState::Paused,
        }
    }

    /// Why QEMU holds still; `None` where it does not, or not for itself.
    pub fn pause_cause(&self) -> Option<PauseCause> {
        match self {
            QemuRunState::Paused => Some(PauseCause::Asked),
            QemuRunState::Suspended => Some(PauseCause::Suspended),
            QemuRunState::IoError => Some(PauseCause::IoError),
            QemuRunState::GuestPanicked => Some(PauseCause::GuestPanicked),
            QemuRunState::Watchdog => Some(PauseCause::Watchdog),
            QemuRunState::InternalError => Some(PauseCause::InternalError),
            QemuRunState::SaveVm | QemuRunState::RestoreVm => Some(PauseCause::Snapshot),
            QemuRunState::Debug => Some(PauseCause::Debugger),
            _ => None,
        }
    }
}

impl From<String> for QemuRunState {
    fn from(word: String) -> Self {
        let known = QEMU_WORDS.iter().find(|(text, _)| *text == word);
        known.map_or(QemuRunState::Other(word), |(_, state)| state.clone())
    }
}

impl From<QemuRunState> for String {
    fn from(state: QemuRunState) -> Self {
        state.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_word_everywhere() {
        for state in VmState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        assert!("Running".parse::<VmState>().is_err());
    }

    #[test]
    fn causes_have_one_word_everywhere() {
        for cause in PauseCause::ALL {
            assert_eq!(cause.to_string().parse(), Ok(cause));
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{cause}\""));
        }
        assert!("Asked".parse::<PauseCause>().is_err());
    }

    #[test]
    fn every_word_of_qemu_is_kept_apart() {
        for (word, state) in QEMU_WORDS {
            assert_eq!(QemuRunState::from(word.to_owned()), state);
            assert_eq!(state.as_str(), word);
            let pauses = state.vm_state() == VmState::Paused;
            assert_eq!(state.pause_cause().is_some(), pauses, "{word}");
        }
    }

    #[test]
    fn a_word_of_a_later_qemu_is_kept_and_claims_nothing() {
        let later = QemuRunState::from("levitating".to_owned());
        assert_eq!(later.as_str(), "levitating");
        assert_eq!(later.vm_state(), VmState::Unknown);
        assert_eq!(serde_json::to_string(&later).unwrap(), "\"levitating\"");
    }

    #[test]
    fn a_guest_that_has_shut_down_is_not_stopped_yet() {
        assert_eq!(QemuRunState::Shutdown.vm_state(), VmState::Stopping);
    }
}
