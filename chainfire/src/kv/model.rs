//! The plain data of the interface: keys, transactions, answers, events.

use bytes::Bytes;

/// A key: any bytes, not empty, of limited length.
pub type Key = Bytes;
/// A value: any bytes of limited length.
pub type Value = Bytes;
/// The store's clock: one more for every transaction that changed something.
pub type Revision = u64;

/// A key with its value and its history in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Key,
    pub value: Value,
    /// The revision at which this life of the key began.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// 1 at creation, one more at every change.
    pub version: u64,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Sees every write acknowledged before the read was sent.
    #[default]
    Linearizable,
    /// Whatever this member has applied; never waits for anybody.
    Stale,
}

/// The answer to a get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetAnswer {
    /// The store's revision that the answer shows.
    pub revision: Revision,
    pub kv: Option<KeyValue>,
}

/// A request for one page of the keys under a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeQuery {
    /// Empty: the whole store.
    pub prefix: Key,
    /// Start after this key; empty: at the beginning.
    pub after: Key,
    /// 0: the store's page limit.
    pub limit: usize,
    /// 0: now; later pages pass the revision of the first.
    pub revision: Revision,
    pub consistency: Consistency,
    pub keys_only: bool,
}

impl RangeQuery {
    /// Everything under a prefix, now.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// The query for the page after `page`, at the same revision; `None` when there is none.
    pub fn next_page(&self, page: &RangeAnswer) -> Option<Self> {
        if !page.more {
            return None;
        }
        let last = page.kvs.last()?;
        Some(Self {
            after: last.key.clone(),
            revision: page.revision,
            ..self.clone()
        })
    }
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The revision that this page, and every other page asked for with it, shows.
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// More keys follow.
    pub more: bool,
}

/// How a compare relates what is stored to its operand: `stored <relation> operand`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    CreateRevision(Revision),
    ModRevision(Revision),
    Version(u64),
    Value(Value),
}

/// A condition of a transaction. A key that is not there has create, mod and version 0 and no value:
/// every comparison of its value is false but `NotEqual`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: Key,
    pub relation: Relation,
    pub target: CompareTarget,
}

impl Compare {
    /// The key is not there.
    pub fn absent(key: impl Into<Key>) -> Self {
        Self::mod_revision(key, Relation::Equal, 0)
    }

    /// The key's last change relates to a revision.
    pub fn mod_revision(key: impl Into<Key>, relation: Relation, revision: Revision) -> Self {
        Self {
            key: key.into(),
            relation,
            target: CompareTarget::ModRevision(revision),
        }
    }

    /// The key's value relates to these bytes.
    pub fn value(key: impl Into<Key>, relation: Relation, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            relation,
            target: CompareTarget::Value(value.into()),
        }
    }

    /// Whether the condition holds for what is stored under its key.
    pub fn holds(&self, stored: Option<&KeyValue>) -> bool {
        let ordering = match &self.target {
            CompareTarget::CreateRevision(operand) => stored.map_or(0, |kv| kv.create_revision).cmp(operand),
            CompareTarget::ModRevision(operand) => stored.map_or(0, |kv| kv.mod_revision).cmp(operand),
            CompareTarget::Version(operand) => stored.map_or(0, |kv| kv.version).cmp(operand),
            CompareTarget::Value(operand) => match stored {
                Some(kv) => kv.value.cmp(operand),
                None => return self.relation == Relation::NotEqual,
            },
        };
        match self.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }
}

/// One operation of a transaction's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put { key: Key, value: Value },
    Delete { key: Key },
    DeletePrefix { prefix: Key },
    Get { key: Key },
}

impl Op {
    /// The key or prefix the operation is about.
    pub fn key(&self) -> &Key {
        match self {
            Op::Put { key, .. } | Op::Delete { key } | Op::Get { key } => key,
            Op::DeletePrefix { prefix } => prefix,
        }
    }
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// How many keys a put (1) or a delete touched.
    Touched(u64),
    Got(Option<KeyValue>),
}

/// If every compare holds, `success` runs, else `failure`: all of the branch, as one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl Txn {
    /// Writes one key, whatever is there.
    pub fn put(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::default().then(Op::Put {
            key: key.into(),
            value: value.into(),
        })
    }

    /// Deletes one key.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self::default().then(Op::Delete { key: key.into() })
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation to the branch that runs when all conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.success.push(op);
        self
    }

    /// Adds an operation to the branch that runs when one does not.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.failure.push(op);
        self
    }
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// All compares held and `success` ran.
    pub succeeded: bool,
    /// The revision this transaction made, or the current one if it changed nothing.
    pub revision: Revision,
    /// One result for each operation of the branch that ran.
    pub results: Vec<OpResult>,
}

impl TxnAnswer {
    /// How many keys its puts and deletes touched.
    pub fn touched(&self) -> u64 {
        self.results
            .iter()
            .map(|result| match result {
                OpResult::Touched(count) => *count,
                OpResult::Got(_) => 0,
            })
            .sum()
    }
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    /// `kv` has the key, an empty value, version 0, and the deletion's revision as `mod_revision`.
    Delete,
}

/// One change, as a watch delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub kv: KeyValue,
}

/// Some changes of a watch, whole revisions in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchBatch {
    pub events: Vec<Event>,
    /// Everything below this revision has been delivered: resume here.
    pub next_revision: Revision,
}

/// The smallest key above every key with this prefix; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &'static str) -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: value.into(),
            create_revision: 3,
            mod_revision: 5,
            version: 2,
        }
    }

    #[test]
    fn compares_relate_what_is_stored_to_the_operand() {
        let kv = stored("b");
        for (relation, operand, expected) in [
            (Relation::Equal, 5, true),
            (Relation::NotEqual, 5, false),
            (Relation::Greater, 4, true),
            (Relation::Greater, 5, false),
            (Relation::Less, 6, true),
        ] {
            let compare = Compare::mod_revision("k", relation, operand);
            assert_eq!(compare.holds(Some(&kv)), expected, "{compare:?}");
        }
        assert!(Compare::value("k", Relation::Greater, "a").holds(Some(&kv)));
        assert!(!Compare::value("k", Relation::Less, "a").holds(Some(&kv)));
    }

    #[test]
    fn a_missing_key_has_revision_zero_and_no_value() {
        assert!(Compare::absent("k").holds(None));
        assert!(!Compare::absent("k").holds(Some(&stored(""))));
        for relation in [Relation::Equal, Relation::Greater, Relation::Less] {
            assert!(!Compare::value("k", relation, "").holds(None), "{relation:?}");
        }
        assert!(Compare::value("k", Relation::NotEqual, "").holds(None));
    }

    #[test]
    fn the_end_of_a_prefix_skips_bytes_that_cannot_grow() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
