//! Prefixes and pages.

use crate::kv::{Consistency, Key, Kv, KvError, Op, RangeQuery, Revision, Txn};

use super::{Subject, current, get, list, names, put};

/// Writes many keys, a few transactions' worth.
async fn put_all(kv: &dyn Kv, keys: impl IntoIterator<Item = String>) -> Revision {
    let mut txn = Txn::default();
    let mut revision = 0;
    for key in keys {
        let value = format!("value of {key}").into();
        txn = txn.then(Op::Put { key: key.into(), value });
        if txn.success.len() == 100 {
            revision = kv.txn(std::mem::take(&mut txn)).await.expect("a txn").revision;
        }
    }
    match txn.success.is_empty() {
        true => revision,
        false => kv.txn(txn).await.expect("a txn").revision,
    }
}

pub(super) async fn a_range_is_ordered_and_stays_under_its_prefix(subject: Subject) {
    let kv = subject.kv.as_ref();
    for key in ["b/2", "a/z", "b", "b/10", "b/1", "b0", "c"] {
        put(kv, key, key).await;
    }
    let page = kv.range(RangeQuery::prefix("b/")).await.expect("a page");
    assert_eq!(names(&page.kvs), [b"b/1".as_slice(), b"b/10", b"b/2"]);
    assert!(!page.more);
    assert_eq!(page.revision, current(kv).await);
    for row in &page.kvs {
        assert_eq!(
            Some(row.clone()),
            get(kv, row.key.clone()).await,
            "a range shows what a get shows"
        );
    }
    let whole = kv.range(RangeQuery::prefix("b")).await.expect("a page");
    assert_eq!(names(&whole.kvs), [b"b".as_slice(), b"b/1", b"b/10", b"b/2", b"b0"]);
    let nothing = kv.range(RangeQuery::prefix("nothing")).await.expect("a page");
    assert_eq!((nothing.kvs, nothing.more), (vec![], false));
}

pub(super) async fn a_prefix_that_cannot_grow_is_ranged(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys: [&[u8]; 7] = [
        b"\xfe",
        b"\xfe\xff",
        b"\xfe\xff\xff",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
        b"\xff\xff\xff",
    ];
    for key in keys {
        put(kv, key, "x").await;
    }
    for prefix in keys {
        let found = list(kv, RangeQuery::prefix(prefix)).await;
        let expected: Vec<&[u8]> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(names(&found), expected, "under {prefix:?}");
    }
}

pub(super) async fn the_empty_prefix_is_the_whole_store(subject: Subject) {
    let kv = subject.kv.as_ref();
    assert_eq!(list(kv, RangeQuery::default()).await, []);
    let keys: [&[u8]; 3] = [b"\0", b"m", b"\xff\xff"];
    for key in keys {
        put(kv, key, "x").await;
    }
    assert_eq!(names(&list(kv, RangeQuery::default()).await), keys);
}

pub(super) async fn pages_add_up_to_a_thousand_keys(subject: Subject) {
    let kv = subject.kv.as_ref();
    let expected: Vec<String> = (0..1000).map(|index| format!("many/{index:04}")).collect();
    put_all(kv, expected.iter().rev().cloned()).await;
    put(kv, "many0", "outside").await;
    for limit in [0, 1, 7, 250, subject.limits.page_keys] {
        let query = RangeQuery {
            limit,
            ..RangeQuery::prefix("many/")
        };
        if limit != 1 {
            let all = list(kv, query.clone()).await;
            assert!(
                names(&all).into_iter().eq(expected.iter().map(String::as_bytes)),
                "pages of {limit} keys: {} keys in all",
                all.len()
            );
        }
        let first = kv.range(query).await.expect("a page");
        let full = if limit == 0 { subject.limits.page_keys } else { limit };
        assert_eq!((first.kvs.len(), first.more), (full, true));
    }
    let exact = RangeQuery {
        limit: 10,
        ..RangeQuery::prefix("many/099")
    };
    let page = kv.range(exact).await.expect("a page");
    assert_eq!(
        (page.kvs.len(), page.more),
        (10, false),
        "a page that is just full is the last"
    );
}

pub(super) async fn pages_show_one_revision_while_writes_go_on(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys: Vec<Key> = (0..60).map(|index| Key::from(format!("p/{index:02}"))).collect();
    for key in &keys {
        put(kv, key.clone(), "old").await;
    }
    let mut query = RangeQuery {
        limit: 7,
        ..RangeQuery::prefix("p/")
    };
    let mut seen = Vec::new();
    let mut revision = None;
    for round in 0.. {
        let page = kv.range(query.clone()).await.expect("a page");
        let shown = *revision.get_or_insert(page.revision);
        assert_eq!(page.revision, shown, "every page shows the first one's revision");
        seen.extend(page.kvs.clone());
        // Between pages everything changes: ahead, behind, new, gone.
        put(kv, keys[59 - round].clone(), "new").await;
        put(kv, format!("p/{:02}x", 50 - round), "new").await;
        kv.delete(keys[40 - round].clone()).await.expect("a delete");
        match query.next_page(&page) {
            Some(next) => query = next,
            None => break,
        }
    }
    assert_eq!(seen.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), keys);
    assert!(seen.iter().all(|row| row.value == "old"), "a page showed a later value");
}

pub(super) async fn a_page_starts_after_a_key_that_is_gone(subject: Subject) {
    let kv = subject.kv.as_ref();
    for key in ["a", "b", "c"] {
        put(kv, key, key).await;
    }
    kv.delete("b".into()).await.expect("a delete");
    for (after, expected) in [("b", vec!["c"]), ("a", vec!["c"]), ("bb", vec!["c"]), ("c", vec![])] {
        let query = RangeQuery {
            after: after.into(),
            ..RangeQuery::default()
        };
        let page = kv.range(query).await.expect("a page");
        assert_eq!(
            names(&page.kvs),
            expected.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(),
            "{after}"
        );
    }
}

pub(super) async fn a_page_ends_early_at_its_bytes(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limits = subject.limits;
    let value = vec![b'x'; limits.page_bytes / 3];
    for index in 0..7 {
        put(kv, format!("big/{index}"), value.clone()).await;
    }
    let page = kv.range(RangeQuery::prefix("big/")).await.expect("a page");
    assert_eq!(
        (page.kvs.len(), page.more),
        (2, true),
        "three and their keys would be too much"
    );
    assert_eq!(list(kv, RangeQuery::prefix("big/")).await.len(), 7);
    // What is larger than a page still comes, alone.
    assert!(
        limits.value_bytes > limits.page_bytes,
        "the suite's limits allow such a value"
    );
    put(kv, "big/0", vec![b'y'; limits.value_bytes]).await;
    let page = kv.range(RangeQuery::prefix("big/")).await.expect("a page");
    assert_eq!((page.kvs.len(), page.more), (1, true));
    assert_eq!(list(kv, RangeQuery::prefix("big/")).await.len(), 7);
}

pub(super) async fn keys_only_leaves_out_the_values(subject: Subject) {
    let kv = subject.kv.as_ref();
    let value = vec![b'x'; subject.limits.page_bytes / 2];
    for index in 0..5 {
        put(kv, format!("k/{index}"), value.clone()).await;
    }
    let query = RangeQuery {
        keys_only: true,
        ..RangeQuery::prefix("k/")
    };
    let page = kv.range(query).await.expect("a page");
    assert_eq!((page.kvs.len(), page.more), (5, false), "values left out take no room");
    for row in page.kvs {
        let stored = get(kv, row.key.clone()).await.expect("the row");
        assert_eq!(row.value, "");
        assert_eq!((row.mod_revision, row.version), (stored.mod_revision, stored.version));
    }
}

pub(super) async fn a_past_revision_shows_the_past(subject: Subject) {
    let kv = subject.kv.as_ref();
    let first = put(kv, "a", "1").await;
    let second = put(kv, "b", "1").await;
    let third = put(kv, "a", "2").await;
    let (fourth, _) = kv.delete("b".into()).await.expect("a delete");
    let at = |revision| RangeQuery {
        revision,
        ..RangeQuery::default()
    };
    for (revision, expected) in [
        (first, vec![("a", "1")]),
        (second, vec![("a", "1"), ("b", "1")]),
        (third, vec![("a", "2"), ("b", "1")]),
        (fourth, vec![("a", "2")]),
    ] {
        for consistency in [Consistency::Linearizable, Consistency::Stale] {
            // A stale reader may not have got there yet.
            let page = loop {
                match kv
                    .range(RangeQuery {
                        consistency,
                        ..at(revision)
                    })
                    .await
                {
                    Err(KvError::FutureRevision { .. }) if consistency == Consistency::Stale => continue,
                    answer => break answer.expect("a page"),
                }
            };
            assert_eq!(page.revision, revision);
            let rows = page.kvs.iter().map(|row| (row.key.clone(), row.value.clone()));
            let expected = expected.iter().map(|(key, value)| (Key::from(*key), Key::from(*value)));
            assert!(rows.eq(expected), "at {revision}: {:?}", page.kvs);
        }
    }
    let page = kv.range(at(third)).await.expect("a page");
    assert_eq!((page.kvs[0].create_revision, page.kvs[0].version), (first, 2));
}

pub(super) async fn a_future_revision_is_refused(subject: Subject) {
    let kv = subject.kv.as_ref();
    let current = put(kv, "a", "1").await;
    let asked = current + 1;
    let query = RangeQuery {
        revision: asked,
        ..RangeQuery::default()
    };
    assert_eq!(kv.range(query).await, Err(KvError::FutureRevision { asked, current }));
}
