//! What a store accepts. Every limit has its error, and is checked before anything is proposed.

use super::{KvError, Op, RangeQuery, Txn};

/// The limits of a store. All members of a cluster should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Compares and operations of both branches together.
    pub txn_ops: usize,
    /// Keys and values of a transaction together.
    pub txn_bytes: usize,
    /// Keys of one page.
    pub page_keys: usize,
    /// Keys and values of one page; a page ends early rather than exceed it.
    pub page_bytes: usize,
    /// Watches of one member.
    pub watches: usize,
    /// Transactions that wait on one member.
    pub queued_txns: usize,
    /// Connections of clients to one member.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 1024,
            value_bytes: 512 * 1024,
            txn_ops: 512,
            txn_bytes: 1024 * 1024,
            page_keys: 10_000,
            page_bytes: 2 * 1024 * 1024,
            watches: 10_000,
            queued_txns: 16_384,
            clients: 16_384,
        }
    }
}

impl Limits {
    pub fn check_key(&self, key: &[u8]) -> Result<(), KvError> {
        if key.is_empty() {
            return Err(KvError::EmptyKey);
        }
        self.check_prefix(key)
    }

    pub fn check_prefix(&self, prefix: &[u8]) -> Result<(), KvError> {
        if prefix.len() > self.key_bytes {
            return Err(KvError::KeyTooLong {
                bytes: prefix.len(),
                limit: self.key_bytes,
            });
        }
        Ok(())
    }

    pub fn check_txn(&self, txn: &Txn) -> Result<(), KvError> {
        let ops = txn.compares.len() + txn.success.len() + txn.failure.len();
        if ops > self.txn_ops {
            return Err(KvError::TxnTooManyOps {
                ops,
                limit: self.txn_ops,
            });
        }
        let mut bytes = 0;
        for compare in &txn.compares {
            self.check_key(&compare.key)?;
            bytes += compare.key.len();
            if let super::CompareTarget::Value(value) = &compare.target {
                bytes += self.check_value(value)?;
            }
        }
        for op in txn.success.iter().chain(&txn.failure) {
            bytes += op.key().len();
            match op {
                Op::Put { key, value } => {
                    self.check_key(key)?;
                    bytes += self.check_value(value)?;
                }
                Op::Delete { key } | Op::Get { key } => self.check_key(key)?,
                Op::DeletePrefix { prefix } => self.check_prefix(prefix)?,
            }
        }
        if bytes > self.txn_bytes {
            return Err(KvError::TxnTooLarge {
                bytes,
                limit: self.txn_bytes,
            });
        }
        Ok(())
    }

    /// Checks a range and answers how many keys its page may have.
    pub fn check_range(&self, query: &RangeQuery) -> Result<usize, KvError> {
        self.check_prefix(&query.prefix)?;
        self.check_prefix(&query.after)?;
        if !query.after.is_empty() && !query.after.starts_with(&query.prefix) {
            return Err(KvError::AfterOutsidePrefix);
        }
        if query.limit > self.page_keys {
            return Err(KvError::PageTooLarge {
                asked: query.limit,
                limit: self.page_keys,
            });
        }
        Ok(if query.limit == 0 { self.page_keys } else { query.limit })
    }

    fn check_value(&self, value: &[u8]) -> Result<usize, KvError> {
        if value.len() > self.value_bytes {
            return Err(KvError::ValueTooLarge {
                bytes: value.len(),
                limit: self.value_bytes,
            });
        }
        Ok(value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Compare, Relation};

    const LIMITS: Limits = Limits {
        key_bytes: 4,
        value_bytes: 10,
        txn_ops: 3,
        txn_bytes: 20,
        page_keys: 5,
        page_bytes: 100,
        watches: 1,
        queued_txns: 1,
        clients: 1,
    };

    fn put(key: &'static str, bytes: usize) -> Op {
        Op::Put {
            key: key.into(),
            value: vec![0; bytes].into(),
        }
    }

    #[test]
    fn a_key_has_one_byte_at_least_and_a_prefix_none() {
        assert_eq!(LIMITS.check_key(b""), Err(KvError::EmptyKey));
        assert_eq!(LIMITS.check_prefix(b""), Ok(()));
        assert_eq!(LIMITS.check_key(b"abcd"), Ok(()));
        let too_long = Err(KvError::KeyTooLong { bytes: 5, limit: 4 });
        assert_eq!(LIMITS.check_key(b"abcde"), too_long);
        assert_eq!(LIMITS.check_prefix(b"abcde"), too_long);
    }

    #[test]
    fn a_transaction_is_checked_in_all_its_parts() {
        let table = [
            (Txn::default().then(put("a", 10)), Ok(())),
            (Txn::default().then(put("", 1)), Err(KvError::EmptyKey)),
            (
                Txn::default().otherwise(Op::Get { key: "".into() }),
                Err(KvError::EmptyKey),
            ),
            (Txn::default().when(Compare::absent("")), Err(KvError::EmptyKey)),
            (Txn::default().then(Op::DeletePrefix { prefix: "".into() }), Ok(())),
            (
                Txn::default().otherwise(put("a", 11)),
                Err(KvError::ValueTooLarge { bytes: 11, limit: 10 }),
            ),
            (
                Txn::default().when(Compare::value("a", Relation::Equal, vec![0; 11])),
                Err(KvError::ValueTooLarge { bytes: 11, limit: 10 }),
            ),
        ];
        for (txn, expected) in table {
            assert_eq!(LIMITS.check_txn(&txn), expected, "{txn:?}");
        }
    }

    #[test]
    fn compares_and_both_branches_count() {
        let full = Txn::default()
            .when(Compare::absent("a"))
            .then(put("a", 1))
            .otherwise(put("a", 1));
        assert_eq!(LIMITS.check_txn(&full), Ok(()));
        let over = full.otherwise(put("a", 1));
        assert_eq!(
            LIMITS.check_txn(&over),
            Err(KvError::TxnTooManyOps { ops: 4, limit: 3 })
        );
        // Keys and values of all of it, those compared with too: 1 + 8, 1 + 9, 1.
        let full = Txn::default()
            .when(Compare::value("a", Relation::Equal, vec![0; 8]))
            .then(put("b", 9))
            .otherwise(Op::Get { key: "c".into() });
        assert_eq!(LIMITS.check_txn(&full), Ok(()));
        let over = Txn {
            failure: vec![Op::Get { key: "cc".into() }],
            ..full
        };
        assert_eq!(
            LIMITS.check_txn(&over),
            Err(KvError::TxnTooLarge { bytes: 21, limit: 20 })
        );
    }

    #[test]
    fn a_page_has_the_stores_size_unless_a_smaller_one_is_asked_for() {
        let ask = |limit| RangeQuery {
            limit,
            ..RangeQuery::default()
        };
        assert_eq!(LIMITS.check_range(&ask(0)), Ok(5));
        assert_eq!(LIMITS.check_range(&ask(2)), Ok(2));
        assert_eq!(LIMITS.check_range(&ask(5)), Ok(5));
        assert_eq!(
            LIMITS.check_range(&ask(6)),
            Err(KvError::PageTooLarge { asked: 6, limit: 5 })
        );
    }

    #[test]
    fn a_page_goes_on_under_its_prefix() {
        let ask = |prefix: &'static str, after: &'static str| RangeQuery {
            after: after.into(),
            ..RangeQuery::prefix(prefix)
        };
        assert_eq!(LIMITS.check_range(&ask("a", "ab")), Ok(5));
        assert_eq!(LIMITS.check_range(&ask("a", "a")), Ok(5));
        assert_eq!(LIMITS.check_range(&ask("a", "b")), Err(KvError::AfterOutsidePrefix));
        let too_long = Err(KvError::KeyTooLong { bytes: 5, limit: 4 });
        assert_eq!(LIMITS.check_range(&ask("abcde", "")), too_long);
        assert_eq!(LIMITS.check_range(&ask("a", "abcde")), too_long);
    }
}
