//! What can be wrong with a history, in words that let a reader find the place.

use std::fmt;

use chainfire::kv::{Key, Revision};
use serde::Serialize;

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// No order of the calls on this key explains all answers.
    NotLinearizable {
        key: Key,
        stuck_at: String,
    },
    /// The search gave up. Not a proof of a broken promise, but no proof of a kept one either.
    Undecided {
        key: Key,
        steps: usize,
    },
    /// No watch covers these revisions, so what happened there is not known: a fault of the test.
    NotCovered {
        from: Revision,
        to: Revision,
    },
    /// An acknowledged write is not there.
    LostWrite {
        key: Key,
        revision: Revision,
        found: String,
    },
    /// A value or change that nobody has written.
    Phantom {
        key: Key,
        revision: Revision,
    },
    /// Two writes got one revision.
    RevisionReused {
        revision: Revision,
        writes: String,
    },
    /// A call that began after another's end was shown an older revision.
    RevisionOrder {
        earlier: Revision,
        later: Revision,
        detail: String,
    },
    /// Only a part of a transaction took effect.
    TornTransaction {
        revision: Revision,
        key: Key,
    },
    /// A read does not show the state at the revision it names.
    WrongRead {
        key: Key,
        revision: Revision,
        detail: String,
    },
    /// A watch did not deliver a change in the range it has covered.
    WatchGap {
        watcher: String,
        key: Key,
        revision: Revision,
    },
    WatchDuplicate {
        watcher: String,
        key: Key,
        revision: Revision,
    },
    WatchOrder {
        watcher: String,
        detail: String,
    },
    /// Two watches were shown different changes for one key and revision.
    WatchContent {
        watcher: String,
        key: Key,
        revision: Revision,
    },
    /// The members did not come to agree after everything had been mended.
    NotConverged {
        detail: String,
    },
    /// Members at one index hold different states.
    Diverged {
        detail: String,
    },
}

/// The kinds, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    Linearizability,
    Undecided,
    LostWrite,
    Phantom,
    Revisions,
    TornTransaction,
    WrongRead,
    Watch,
    Convergence,
    Divergence,
}

impl ViolationKind {
    /// Whether it proves that a promise about data was broken, rather than that somebody was late.
    pub fn is_proof(self) -> bool {
        !matches!(self, Self::Undecided | Self::Convergence)
    }
}

impl Violation {
    pub fn kind(&self) -> ViolationKind {
        match self {
            Self::NotLinearizable { .. } => ViolationKind::Linearizability,
            Self::Undecided { .. } | Self::NotCovered { .. } => ViolationKind::Undecided,
            Self::LostWrite { .. } => ViolationKind::LostWrite,
            Self::Phantom { .. } => ViolationKind::Phantom,
            Self::RevisionReused { .. } | Self::RevisionOrder { .. } => ViolationKind::Revisions,
            Self::TornTransaction { .. } => ViolationKind::TornTransaction,
            Self::WrongRead { .. } => ViolationKind::WrongRead,
            Self::WatchGap { .. }
            | Self::WatchDuplicate { .. }
            | Self::WatchOrder { .. }
            | Self::WatchContent { .. } => ViolationKind::Watch,
            Self::NotConverged { .. } => ViolationKind::Convergence,
            Self::Diverged { .. } => ViolationKind::Divergence,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable { key, stuck_at } => {
                write!(f, "{key:?} is not linearizable; no order gets past: {stuck_at}")
            }
            Self::Undecided { key, steps } => write!(f, "{key:?}: no verdict within {steps} steps"),
            Self::NotCovered { from, to } => write!(f, "no watch covers revisions {from} to {to}"),
            Self::LostWrite { key, revision, found } => {
                write!(
                    f,
                    "{key:?}: the write acknowledged at revision {revision} is lost; found {found}"
                )
            }
            Self::Phantom { key, revision } => write!(f, "{key:?}: nobody wrote what revision {revision} shows"),
            Self::RevisionReused { revision, writes } => write!(f, "revision {revision} was given twice: {writes}"),
            Self::RevisionOrder { earlier, later, detail } => {
                write!(f, "revision {later} was shown after {earlier} had been: {detail}")
            }
            Self::TornTransaction { revision, key } => {
                write!(
                    f,
                    "the transaction of revision {revision} did not change {key:?} as it should have"
                )
            }
            Self::WrongRead { key, revision, detail } => {
                write!(f, "a read of {key:?} at revision {revision} shows {detail}")
            }
            Self::WatchGap { watcher, key, revision } => {
                write!(f, "{watcher} was not shown revision {revision} of {key:?}")
            }
            Self::WatchDuplicate { watcher, key, revision } => {
                write!(f, "{watcher} was shown revision {revision} of {key:?} twice")
            }
            Self::WatchOrder { watcher, detail } => write!(f, "{watcher}: {detail}"),
            Self::WatchContent { watcher, key, revision } => {
                write!(
                    f,
                    "{watcher} was shown another revision {revision} of {key:?} than others were"
                )
            }
            Self::NotConverged { detail } => write!(f, "not whole again after everything was mended: {detail}"),
            Self::Diverged { detail } => write!(f, "members disagree: {detail}"),
        }
    }
}
