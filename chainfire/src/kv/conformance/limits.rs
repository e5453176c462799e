//! Every limit: what is just allowed is accepted, one more gets the limit's own error and changes nothing.

use crate::kv::{Compare, Consistency, Key, Kv, KvError, Op, RangeQuery, Relation, Txn, Value};

use super::{Subject, current, put};

/// A transaction is refused whichever branch has the fault, and nothing happens.
async fn refused(kv: &dyn Kv, op: Op, expected: KvError) {
    let before = current(kv).await;
    for txn in [Txn::default().then(op.clone()), Txn::default().otherwise(op)] {
        assert_eq!(kv.txn(txn).await, Err(expected.clone()));
    }
    assert_eq!(current(kv).await, before);
}

pub(super) async fn an_empty_key_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let key = Key::new();
    let value = Value::new();
    assert_eq!(
        kv.get(key.clone(), Consistency::Linearizable).await,
        Err(KvError::EmptyKey)
    );
    refused(kv, Op::Get { key: key.clone() }, KvError::EmptyKey).await;
    refused(kv, Op::Delete { key: key.clone() }, KvError::EmptyKey).await;
    refused(
        kv,
        Op::Put {
            key: key.clone(),
            value,
        },
        KvError::EmptyKey,
    )
    .await;
    let txn = Txn::default().when(Compare::absent(key));
    assert_eq!(kv.txn(txn).await, Err(KvError::EmptyKey));
}

pub(super) async fn a_long_key_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.key_bytes;
    put(kv, vec![b'k'; limit], "x").await;
    let key = Key::from(vec![b'k'; limit + 1]);
    let error = KvError::KeyTooLong {
        bytes: limit + 1,
        limit,
    };
    let value = Value::new();
    assert_eq!(kv.get(key.clone(), Consistency::Linearizable).await, Err(error.clone()));
    refused(kv, Op::Get { key: key.clone() }, error.clone()).await;
    refused(kv, Op::Delete { key: key.clone() }, error.clone()).await;
    refused(kv, Op::DeletePrefix { prefix: key.clone() }, error.clone()).await;
    refused(
        kv,
        Op::Put {
            key: key.clone(),
            value,
        },
        error.clone(),
    )
    .await;
    let txn = Txn::default().when(Compare::absent(key.clone()));
    assert_eq!(kv.txn(txn).await, Err(error.clone()));
    assert_eq!(kv.range(RangeQuery::prefix(key.clone())).await, Err(error.clone()));
    assert_eq!(kv.watch(key, 0).await.err(), Some(error));
}

pub(super) async fn a_large_value_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.value_bytes;
    put(kv, "a", vec![0; limit]).await;
    let key = Key::from("a");
    let value = Value::from(vec![0; limit + 1]);
    let error = KvError::ValueTooLarge {
        bytes: limit + 1,
        limit,
    };
    let compare = Compare::value(key.clone(), Relation::Equal, value.clone());
    refused(kv, Op::Put { key, value }, error.clone()).await;
    assert_eq!(kv.txn(Txn::default().when(compare)).await, Err(error));
}

pub(super) async fn too_many_operations_are_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.txn_ops;
    let gets = |count| vec![Op::Get { key: "a".into() }; count];
    // Both branches and the compares count.
    let mut txn = Txn {
        compares: vec![Compare::absent("a")],
        success: gets(limit / 2),
        failure: gets(limit - limit / 2 - 1),
    };
    let answer = kv.txn(txn.clone()).await.expect("just allowed");
    assert_eq!(answer.results.len(), limit / 2);
    txn.failure.push(Op::Get { key: "a".into() });
    let ops = limit + 1;
    assert_eq!(kv.txn(txn).await, Err(KvError::TxnTooManyOps { ops, limit }));
}

pub(super) async fn a_large_transaction_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.txn_bytes;
    let puts = limit.div_ceil(subject.limits.value_bytes);
    // Just the limit, key bytes counted, spread over as many puts as are needed.
    let put_of = |index: usize, bytes: usize| Op::Put {
        key: vec![b'0' + index as u8].into(),
        value: vec![0; bytes - 1].into(),
    };
    let each = limit / puts;
    let mut txn = Txn {
        success: (1..puts).map(|index| put_of(index, each)).collect(),
        ..Txn::default()
    };
    txn.success.push(put_of(0, limit - each * (puts - 1)));
    kv.txn(txn.clone()).await.expect("just allowed");
    let before = current(kv).await;
    txn.failure.push(Op::Get { key: "a".into() });
    let bytes = limit + 1;
    assert_eq!(kv.txn(txn).await, Err(KvError::TxnTooLarge { bytes, limit }));
    assert_eq!(current(kv).await, before);
}

pub(super) async fn a_large_page_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.page_keys;
    let ask = |limit| RangeQuery {
        limit,
        ..RangeQuery::default()
    };
    kv.range(ask(limit)).await.expect("just allowed");
    let asked = limit + 1;
    assert_eq!(kv.range(ask(asked)).await, Err(KvError::PageTooLarge { asked, limit }));
}

pub(super) async fn a_continuation_outside_its_prefix_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let ask = |prefix: &'static str, after: &'static str| RangeQuery {
        after: after.into(),
        ..RangeQuery::prefix(prefix)
    };
    for (prefix, after) in [("a/", "a"), ("a/", "b/1"), ("a/", "a0")] {
        assert_eq!(
            kv.range(ask(prefix, after)).await,
            Err(KvError::AfterOutsidePrefix),
            "{prefix} {after}"
        );
    }
    for (prefix, after) in [("a/", "a/"), ("a/", "a/1"), ("", "z")] {
        kv.range(ask(prefix, after)).await.expect("a page");
    }
}
