//! Many callers at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::kv::{Compare, Key, Kv, Op, RangeQuery, Relation, Revision, Txn};

use super::{Subject, Watching, current, get, list, put};

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("a number");
    text.parse().expect("a number")
}

/// Adds one to a counter by compare-and-set, however often it takes.
async fn increment(kv: &dyn Kv, key: &Key) {
    loop {
        let row = get(kv, key.clone()).await;
        let (seen, value) = row.map_or((0, 0), |row| (row.mod_revision, number(&row.value)));
        let txn = Txn::put(key.clone(), (value + 1).to_string()).when(Compare::mod_revision(
            key.clone(),
            Relation::Equal,
            seen,
        ));
        if kv.txn(txn).await.expect("a txn").succeeded {
            return;
        }
    }
}

pub(super) async fn counters_lose_no_update(subject: Subject) {
    let (tasks, rounds) = (8, 25);
    let counters = ["x", "y"];
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let kv = Arc::clone(&subject.kv);
        running.spawn(async move {
            for _ in 0..rounds {
                for counter in counters {
                    increment(kv.as_ref(), &counter.into()).await;
                }
            }
        });
    }
    running.join_all().await;
    for counter in counters {
        let row = get(subject.kv.as_ref(), counter).await.expect("the row");
        assert_eq!((number(&row.value), row.version), (tasks * rounds, tasks * rounds));
    }
}

pub(super) async fn one_of_many_creates_a_key(subject: Subject) {
    for round in 0..10 {
        let mut running = JoinSet::new();
        for task in 0..8 {
            let kv = Arc::clone(&subject.kv);
            running.spawn(async move {
                let key = Key::from(format!("lock/{round}"));
                let txn = Txn::put(key.clone(), format!("{task}"))
                    .when(Compare::absent(key.clone()))
                    .otherwise(Op::Get { key });
                (task, kv.txn(txn).await.expect("a txn"))
            });
        }
        let answers = running.join_all().await;
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.succeeded).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let row = get(subject.kv.as_ref(), format!("lock/{round}"))
            .await
            .expect("the row");
        assert_eq!(
            (number(&row.value), row.mod_revision),
            (winners[0].0, winners[0].1.revision)
        );
    }
}

pub(super) async fn every_write_has_its_own_revision(subject: Subject) {
    let before = current(subject.kv.as_ref()).await;
    let (tasks, writes) = (32, 10);
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let kv = Arc::clone(&subject.kv);
        running.spawn(async move {
            let mut revisions = Vec::new();
            for index in 0..writes {
                revisions.push(put(kv.as_ref(), format!("{task}/{index}"), "x").await);
            }
            assert!(revisions.is_sorted(), "a later write has a higher revision");
            revisions
        });
    }
    let all: BTreeSet<Revision> = running.join_all().await.into_iter().flatten().collect();
    let expected = before + 1..=before + tasks * writes;
    assert!(
        all.iter().copied().eq(expected),
        "revisions go up by one, one for each write"
    );
    let rows = list(subject.kv.as_ref(), RangeQuery::default()).await;
    assert_eq!(rows.iter().map(|row| row.mod_revision).collect::<BTreeSet<_>>(), all);
}

pub(super) async fn a_range_never_sees_half_a_transaction(subject: Subject) {
    let kv = subject.kv.as_ref();
    let start = Txn::put("pair/a", "0").then(Op::Put {
        key: "pair/b".into(),
        value: "0".into(),
    });
    kv.txn(start).await.expect("a txn");
    let writer = tokio::spawn({
        let kv = Arc::clone(&subject.kv);
        async move {
            for index in 1..=300 {
                let both = Txn::put("pair/a", index.to_string()).then(Op::Put {
                    key: "pair/b".into(),
                    value: index.to_string().into(),
                });
                kv.txn(both).await.expect("a txn");
            }
        }
    });
    let mut last = 0;
    loop {
        let finished = writer.is_finished();
        let page = kv.range(RangeQuery::prefix("pair/")).await.expect("a page");
        assert_eq!(
            page.kvs[0].value, page.kvs[1].value,
            "both were always written together"
        );
        assert_eq!(page.kvs[0].mod_revision, page.revision, "nothing else is written");
        assert!(page.revision >= last, "reads do not go back");
        last = page.revision;
        if finished {
            break assert_eq!(number(&page.kvs[0].value), 300, "all is seen once all is acknowledged");
        }
    }
    writer.await.expect("the writer ends well");
}

pub(super) async fn a_get_sees_every_put_before_it(subject: Subject) {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let rounds = 300;
    put(subject.kv.as_ref(), "n", "0").await;
    let mut running = JoinSet::new();
    for _ in 0..4 {
        let (kv, acknowledged) = (Arc::clone(&subject.kv), Arc::clone(&acknowledged));
        running.spawn(async move {
            let mut known = 0;
            while known < rounds {
                known = acknowledged.load(Ordering::SeqCst);
                let seen = number(&get(kv.as_ref(), "n").await.expect("the row").value);
                assert!(seen >= known, "{known} was acknowledged, {seen} was read");
                let page = kv.range(RangeQuery::prefix("n")).await.expect("a page");
                let listed = number(&page.kvs[0].value);
                assert!(listed >= seen, "{seen} was read, {listed} was listed later");
            }
        });
    }
    for index in 1..=rounds {
        put(subject.kv.as_ref(), "n", index.to_string()).await;
        acknowledged.store(index, Ordering::SeqCst);
        let seen = number(&get(subject.kv.as_ref(), "n").await.expect("the row").value);
        assert_eq!(seen, index, "nobody else writes");
    }
    running.join_all().await;
}

pub(super) async fn watches_see_five_thousand_concurrent_writes(subject: Subject) {
    let (tasks, writes) = (50, 100);
    let kv = subject.kv.as_ref();
    let begin = current(kv).await + 1;
    let last = begin + tasks * writes - 1;
    let mut live = Watching::from(kv, "w/", 0).await;
    let mut partial = Watching::from(kv, "w/07/", begin).await;
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let kv = Arc::clone(&subject.kv);
        running.spawn(async move {
            for index in 0..writes {
                put(kv.as_ref(), format!("w/{task:02}/{:02}", index % 10), index.to_string()).await;
            }
        });
    }
    // One that is cut off all the time and resumes where it was.
    let resuming = async {
        let mut from = begin;
        let mut revisions = Vec::new();
        while from <= last {
            let mut watching = Watching::from(kv, "w/", from).await;
            let some = watching.events(1).await;
            revisions.extend(some.iter().map(|event| event.kv.mod_revision));
            from = watching.next;
        }
        revisions
    };
    let whole = async {
        live.until(last)
            .await
            .iter()
            .map(|event| event.kv.mod_revision)
            .collect::<Vec<_>>()
    };
    let (whole, resumed, part) = tokio::join!(whole, resuming, partial.events(writes as usize));
    assert!(whole.into_iter().eq(begin..=last), "each revision once, in order");
    assert_eq!(
        resumed,
        (begin..=last).collect::<Vec<_>>(),
        "each revision once, in order, over many watches"
    );
    let values: Vec<u64> = part.iter().map(|event| number(&event.kv.value)).collect();
    assert!(values.into_iter().eq(0..writes), "one writer's changes, in its order");
    running.join_all().await;
}
