//! One call on one key, as its client saw it.

use chainfire::kv::{Key, KeyValue, Revision, Value};

/// Monotonic time of the recording process.
pub type Nanos = u64;

/// What must be true of a key for a compare-and-swap to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The last change was at this revision; 0: the key is not there.
    Revision(Revision),
    Value(Value),
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A linearizable read.
    Get,
    Put {
        value: Value,
    },
    Delete,
    Cas {
        guard: Guard,
        value: Value,
    },
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Row(Option<KeyValue>),
    Written,
    Deleted { existed: bool },
    Swapped(bool),
}

/// How a call ended. Calls that were refused (nothing was changed) are not recorded at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Known {
        at: Nanos,
        /// For a write: the revision it made. For the rest: the one the answer shows.
        revision: Revision,
        answer: Answer,
    },
    /// It may take effect at any time from its invocation on, or never.
    Unknown,
}

/// One call on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The same for all parts of one transaction, and for nothing else.
    pub txn: u64,
    pub client: u32,
    pub key: Key,
    pub action: Action,
    pub invoked: Nanos,
    pub end: End,
}

impl Op {
    /// The revision this call is known to have made, if it is known to have changed something.
    pub fn made_revision(&self) -> Option<Revision> {
        let End::Known { revision, answer, .. } = &self.end else {
            return None;
        };
        let changed = match answer {
            Answer::Row(_) => false,
            Answer::Written => true,
            Answer::Deleted { existed } => *existed,
            Answer::Swapped(swapped) => *swapped,
        };
        changed.then_some(*revision)
    }

    /// The value it writes, where it writes one.
    pub fn value(&self) -> Option<&Value> {
        match &self.action {
            Action::Put { value } | Action::Cas { value, .. } => Some(value),
            Action::Get | Action::Delete => None,
        }
    }

    pub fn is_unknown(&self) -> bool {
        self.end == End::Unknown
    }

    pub fn is_write(&self) -> bool {
        self.action != Action::Get
    }
}
