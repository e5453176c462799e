//! What a watch delivers.

use futures::StreamExt;

use crate::kv::{Event, EventKind, KeyValue, Kv, KvError, Op, Revision, Txn, Value};

use super::{Subject, Watching, current, get, put};

fn shown(events: &[Event]) -> Vec<(EventKind, &[u8], &[u8], Revision)> {
    let parts = |event: &Event| (event.kind, event.kv.mod_revision);
    events
        .iter()
        .map(|event| {
            let (kind, revision) = parts(event);
            (kind, event.kv.key.as_ref(), event.kv.value.as_ref(), revision)
        })
        .collect()
}

/// Some history of several keys: creations, changes, deletions, several keys at once. Answers its first
/// and last revision.
async fn make_history(kv: &dyn Kv) -> (Revision, Revision) {
    let first = put(kv, "h/a", "1").await;
    put(kv, "other", "1").await;
    for round in 0..4 {
        let txn = Txn::put("h/b", format!("{round}"))
            .then(Op::Put {
                key: "h/a".into(),
                value: format!("{round}").into(),
            })
            .then(Op::Delete { key: "h/c".into() });
        kv.txn(txn).await.expect("a txn");
        put(kv, "h/c", format!("{round}")).await;
        kv.delete("h/b".into()).await.expect("a delete");
    }
    let wipe = Txn::default().then(Op::DeletePrefix { prefix: "h/".into() });
    (first, kv.txn(wipe).await.expect("a txn").revision)
}

pub(super) async fn a_watch_begins_with_a_bookmark(subject: Subject) {
    let kv = subject.kv.as_ref();
    // `Watching` checks that the first item has no events and begins where it should.
    let now = put(kv, "a", "1").await;
    assert_eq!(Watching::from(kv, "a", 0).await.next, now + 1);
    assert_eq!(Watching::from(kv, "a", now).await.next, now);
    assert_eq!(Watching::from(kv, "a", now + 1).await.next, now + 1);
}

pub(super) async fn a_watch_from_zero_sees_what_follows(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "before").await;
    let mut watching = Watching::from(kv, "", 0).await;
    let first = put(kv, "a", "1").await;
    let second = put(kv, "b", "2").await;
    let events = watching.until(second).await;
    assert_eq!(
        shown(&events),
        [
            (EventKind::Put, b"a".as_slice(), b"1".as_slice(), first),
            (EventKind::Put, b"b", b"2", second)
        ]
    );
}

pub(super) async fn a_watch_from_the_past_delivers_all_since(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "0").await;
    let first = put(kv, "a", "1").await;
    put(kv, "a", "2").await;
    kv.delete("a".into()).await.expect("a delete");
    let mut watching = Watching::from(kv, "a", first).await;
    // Past and present follow each other without a seam.
    let last = put(kv, "a", "3").await;
    let events = watching.until(last).await;
    assert_eq!(
        shown(&events),
        [
            (EventKind::Put, b"a".as_slice(), b"1".as_slice(), first),
            (EventKind::Put, b"a", b"2", first + 1),
            (EventKind::Delete, b"a", b"", first + 2),
            (EventKind::Put, b"a", b"3", first + 3),
        ]
    );
}

pub(super) async fn a_watch_resumes_anywhere_without_gap_or_duplicate(subject: Subject) {
    let kv = subject.kv.as_ref();
    let (first, last) = make_history(kv).await;
    let all = Watching::from(kv, "h/", first).await.until(last).await;
    assert_eq!(all.first().expect("an event").kv.mod_revision, first);
    assert_eq!(all.last().expect("an event").kv.mod_revision, last);
    for from in first..=last {
        let events = Watching::from(kv, "h/", from).await.until(last).await;
        let expected: Vec<_> = all
            .iter()
            .filter(|event| event.kv.mod_revision >= from)
            .cloned()
            .collect();
        assert_eq!(events, expected, "from {from}");
    }
}

pub(super) async fn an_event_shows_the_row_as_it_was(subject: Subject) {
    let kv = subject.kv.as_ref();
    let mut watching = Watching::from(kv, "a", 0).await;
    let mut expected = Vec::new();
    for value in ["1", "2"] {
        put(kv, "a", value).await;
        let row = get(kv, "a").await.expect("the row");
        expected.push(Event {
            kind: EventKind::Put,
            kv: row,
        });
    }
    let (deleted, _) = kv.delete("a".into()).await.expect("a delete");
    expected.push(Event {
        kind: EventKind::Delete,
        kv: KeyValue {
            key: "a".into(),
            value: Value::new(),
            create_revision: 0,
            mod_revision: deleted,
            version: 0,
        },
    });
    assert_eq!(watching.until(deleted).await, expected);
}

pub(super) async fn a_key_changes_once_per_revision(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "old", "0").await;
    let mut watching = Watching::from(kv, "", 0).await;
    let op = |key: &'static str, value: &'static str| Op::Put {
        key: key.into(),
        value: value.into(),
    };
    let txn = Txn::default()
        .then(op("twice", "1"))
        .then(op("twice", "2"))
        .then(op("brief", "1"))
        .then(Op::Delete { key: "brief".into() })
        .then(op("old", "1"))
        .then(Op::Delete { key: "old".into() });
    let revision = kv.txn(txn).await.expect("a txn").revision;
    let events = watching.until(revision).await;
    assert_eq!(
        shown(&events),
        [
            (EventKind::Delete, b"old".as_slice(), b"".as_slice(), revision),
            (EventKind::Put, b"twice", b"2", revision)
        ]
    );
    // A new life within one revision is a put, with the numbers of a new life.
    put(kv, "old", "2").await;
    let reborn = Txn::delete("old").then(op("old", "3"));
    let revision = kv.txn(reborn).await.expect("a txn").revision;
    let events = watching.until(revision).await;
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[1].kind, events[1].kv.create_revision, events[1].kv.version),
        (EventKind::Put, revision, 1)
    );
    // What changed nothing is no event: the next change is the next thing seen.
    kv.delete("missing".into()).await.expect("a delete");
    let revision = put(kv, "next", "1").await;
    assert_eq!(
        shown(&watching.until(revision).await),
        [(EventKind::Put, b"next".as_slice(), b"1".as_slice(), revision)]
    );
}

pub(super) async fn revisions_are_delivered_whole_and_sorted(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys = 200;
    let first = current(kv).await + 1;
    let mut live = Watching::from(kv, "w/", 0).await;
    let mut last = 0;
    for round in 0..20 {
        // Written in reverse, so that sorting is the store's work.
        let txn = (0..keys).rev().fold(Txn::default(), |txn, index| {
            txn.then(Op::Put {
                key: format!("w/{index:03}").into(),
                value: format!("{round}").into(),
            })
        });
        last = kv.txn(txn).await.expect("a txn").revision;
    }
    let mut past = Watching::from(kv, "w/", first).await;
    for watching in [&mut live, &mut past] {
        while watching.next <= last {
            let batch = watching.batch().await.expect("a batch");
            assert_eq!(batch.events.len() % keys, 0, "a batch holds whole revisions");
            for revision in batch.events.chunks(keys) {
                assert!(
                    revision
                        .iter()
                        .all(|event| event.kv.mod_revision == revision[0].kv.mod_revision)
                );
                assert!(revision.is_sorted_by_key(|event| event.kv.key.clone()), "sorted by key");
            }
        }
    }
}

pub(super) async fn only_the_prefix_is_watched(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys: [&[u8]; 10] = [
        b"a",
        b"p",
        b"p/",
        b"p/1",
        b"p0",
        b"\xfe",
        b"\xfe\xff",
        b"\xff",
        b"\xff\0",
        b"\xff\xff",
    ];
    let prefixes: [&[u8]; 6] = [b"", b"p/", b"p", b"\xff", b"\xff\xff", b"\xfe\xff"];
    let first = current(kv).await + 1;
    let mut live = Vec::new();
    for prefix in prefixes {
        live.push((prefix, Watching::from(kv, prefix, 0).await));
    }
    let mut last = 0;
    for key in keys {
        last = put(kv, key, "x").await;
    }
    for (prefix, mut live) in live {
        let expected: Vec<&[u8]> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        let seen = live.events(expected.len()).await;
        let past = Watching::from(kv, prefix, first).await.events(expected.len()).await;
        for events in [seen, past] {
            let keys: Vec<&[u8]> = events.iter().map(|event| event.kv.key.as_ref()).collect();
            assert_eq!(keys, expected, "under {prefix:?} up to {last}");
        }
    }
}

pub(super) async fn a_future_revision_is_not_watched(subject: Subject) {
    let kv = subject.kv.as_ref();
    let current = put(kv, "a", "1").await;
    for asked in [current + 2, u64::MAX] {
        let error = kv.watch("a".into(), asked).await.err();
        assert_eq!(error, Some(KvError::FutureRevision { asked, current }));
    }
}

pub(super) async fn an_idle_watch_advances(subject: Subject) {
    let kv = subject.kv.as_ref();
    // Else it would need history that is long gone when it resumes.
    let mut watching = Watching::from(kv, "idle/", 0).await;
    let begin = watching.next;
    for index in 0..1000 {
        put(kv, "busy", format!("{index}")).await;
    }
    assert_eq!(watching.until(begin + 500).await, []);
}

pub(super) async fn a_dropped_watch_frees_its_place(subject: Subject) {
    let kv = subject.kv.as_ref();
    let limit = subject.limits.watches;
    let mut open = Vec::new();
    for _ in 0..limit {
        open.push(Watching::from(kv, "a", 0).await);
    }
    let error = kv.watch("a".into(), 0).await.err();
    let what = "watches";
    assert_eq!(error, Some(KvError::TooMany { what, limit }));
    open.pop();
    while let Err(error) = kv.watch("a".into(), 0).await {
        // A remote store learns of the drop a little later.
        assert_eq!(error, KvError::TooMany { what, limit });
        tokio::task::yield_now().await;
    }
    put(kv, "a", "1").await;
    for mut watching in open {
        assert_eq!(watching.events(1).await.len(), 1, "the others were not disturbed");
    }
}

pub(super) async fn a_watch_that_is_not_read_skips_nothing(subject: Subject) {
    let kv = subject.kv.as_ref();
    let mut watching = Watching::from(kv, "s", 0).await;
    let begin = watching.next;
    let count = 2000;
    let mut value = vec![b'x'; 4096];
    for index in 0..count {
        let mark = format!("{index:08}");
        value[..8].copy_from_slice(mark.as_bytes());
        put(kv, "s", value.clone()).await;
    }
    let mut expected = begin;
    while expected < begin + count {
        match watching.batch().await {
            Ok(batch) => {
                for event in batch.events {
                    assert_eq!(event.kv.mod_revision, expected, "the next revision and no other");
                    assert_eq!(event.kv.value[..8], *format!("{:08}", expected - begin).as_bytes());
                    expected += 1;
                }
            }
            Err(error) => {
                assert!(matches!(error, KvError::SlowWatcher { .. }), "{error}");
                assert!(watching.stream.next().await.is_none(), "nothing follows an error");
                return;
            }
        }
    }
}
