//! One key at a time.

use crate::kv::{Consistency, Key, KeyValue, Value};

use super::{Subject, current, get, put};

pub(super) async fn a_missing_key_is_answered_with_none(subject: Subject) {
    let kv = subject.kv.as_ref();
    let revision = put(kv, "there", "x").await;
    let answer = kv
        .get("missing".into(), Consistency::Linearizable)
        .await
        .expect("a get");
    assert_eq!(answer.kv, None);
    assert_eq!(
        answer.revision, revision,
        "a missing key is missing at some revision too"
    );
}

pub(super) async fn a_put_is_read_back_with_its_numbers(subject: Subject) {
    let kv = subject.kv.as_ref();
    let before = current(kv).await;
    let revision = put(kv, "a", "1").await;
    assert_eq!(revision, before + 1);
    let answer = kv.get("a".into(), Consistency::Linearizable).await.expect("a get");
    assert_eq!(answer.revision, revision);
    assert_eq!(
        answer.kv,
        Some(KeyValue {
            key: "a".into(),
            value: "1".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
        })
    );
}

pub(super) async fn every_put_raises_version_and_mod_revision(subject: Subject) {
    let kv = subject.kv.as_ref();
    let created = put(kv, "a", "same").await;
    put(kv, "other", "x").await;
    for version in 2..5 {
        // The same value again is a change like any other.
        let changed = put(kv, "a", "same").await;
        let row = get(kv, "a").await.expect("the row");
        assert_eq!(
            (row.create_revision, row.mod_revision, row.version),
            (created, changed, version)
        );
    }
}

pub(super) async fn a_deleted_key_begins_a_new_life(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "1").await;
    let second = put(kv, "a", "2").await;
    assert_eq!(kv.delete("a".into()).await, Ok((second + 1, true)));
    assert_eq!(get(kv, "a").await, None);
    assert_eq!(
        kv.delete("a".into()).await,
        Ok((second + 1, false)),
        "gone already: no revision"
    );
    let reborn = put(kv, "a", "3").await;
    assert_eq!(reborn, second + 2);
    let row = get(kv, "a").await.expect("the row");
    assert_eq!(
        (row.create_revision, row.mod_revision, row.version),
        (reborn, reborn, 1)
    );
}

pub(super) async fn keys_and_values_are_any_bytes(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys: [&[u8]; 6] = [b"\0", b"\0\0", b"\xff", b"\xff\xff", b"\xc3\x28", b"a b\n/\"'%"];
    for key in keys {
        put(kv, key, key).await;
        put(kv, [key, b"-empty"].concat(), "").await;
    }
    for key in keys {
        assert_eq!(get(kv, key).await.expect("the row").value, key);
        assert_eq!(get(kv, [key, b"-empty"].concat()).await.expect("the row").value, "");
    }
    let longest = vec![b'k'; subject.limits.key_bytes];
    put(kv, longest.clone(), "long").await;
    assert_eq!(get(kv, longest).await.expect("the row").value, "long");
}

pub(super) async fn a_big_value_comes_back_whole(subject: Subject) {
    let kv = subject.kv.as_ref();
    let size = subject.limits.value_bytes;
    let big: Value = (0..size)
        .map(|index| (index * 31 % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    put(kv, "big", big.clone()).await;
    assert!(
        get(kv, "big").await.expect("the row").value == big,
        "it came back different"
    );
}

pub(super) async fn a_stale_read_catches_up(subject: Subject) {
    let kv = subject.kv.as_ref();
    let key = Key::from("a");
    let revision = put(kv, key.clone(), "1").await;
    loop {
        let answer = kv.get(key.clone(), Consistency::Stale).await.expect("a stale get");
        assert!(answer.revision <= revision, "nothing else was written");
        match answer.kv {
            Some(row) => break assert_eq!((row.value, answer.revision), ("1".into(), revision)),
            None => tokio::task::yield_now().await,
        }
    }
}
