//! Compares, branches, and what a revision is.

use crate::kv::{Compare, CompareTarget, KvError, Op, OpResult, RangeQuery, Relation, Txn};

use super::{Subject, current, get, list, names, put};

fn put_op(key: &'static str, value: &'static str) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn get_op(key: &'static str) -> Op {
    Op::Get { key: key.into() }
}

fn delete_op(key: &'static str) -> Op {
    Op::Delete { key: key.into() }
}

fn delete_prefix_op(prefix: &'static str) -> Op {
    Op::DeletePrefix { prefix: prefix.into() }
}

const RELATIONS: [Relation; 4] = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];

/// Which relations hold for a stored number below, equal to and above the operand.
fn expected(relation: Relation) -> [bool; 3] {
    match relation {
        Relation::Equal => [false, true, false],
        Relation::NotEqual => [true, false, true],
        Relation::Greater => [false, false, true],
        Relation::Less => [true, false, false],
    }
}

pub(super) async fn compares_decide_the_branch(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "m").await;
    put(kv, "filler", "").await;
    put(kv, "a", "m").await;
    let row = get(kv, "a").await.expect("the row");
    let around = |number: u64| [number + 1, number, number - 1];
    let targets = [
        around(row.create_revision).map(CompareTarget::CreateRevision),
        around(row.mod_revision).map(CompareTarget::ModRevision),
        around(row.version).map(CompareTarget::Version),
        ["mm", "m", "l"].map(|value| CompareTarget::Value(value.into())),
    ];
    for relation in RELATIONS {
        for operands in &targets {
            for (target, expected) in operands.iter().zip(expected(relation)) {
                let compare = Compare {
                    key: "a".into(),
                    relation,
                    target: target.clone(),
                };
                let txn = Txn::default()
                    .when(compare.clone())
                    .then(get_op("a"))
                    .otherwise(get_op("a"))
                    .otherwise(get_op("missing"));
                let answer = kv.txn(txn).await.expect("a txn");
                assert_eq!(answer.succeeded, expected, "{compare:?}");
                let gets = if expected { 1 } else { 2 };
                assert_eq!(
                    answer.results.len(),
                    gets,
                    "the results are those of the branch that ran"
                );
            }
        }
    }
}

pub(super) async fn a_missing_key_compares_as_zero(subject: Subject) {
    let kv = subject.kv.as_ref();
    for relation in RELATIONS {
        let targets = [
            (CompareTarget::CreateRevision(0), expected(relation)[1]),
            (CompareTarget::ModRevision(0), expected(relation)[1]),
            (CompareTarget::Version(0), expected(relation)[1]),
            (CompareTarget::Version(1), expected(relation)[0]),
            (CompareTarget::Value("".into()), relation == Relation::NotEqual),
        ];
        for (target, expected) in targets {
            let key = "missing".into();
            let compare = Compare { key, relation, target };
            let answer = kv.txn(Txn::default().when(compare.clone())).await.expect("a txn");
            assert_eq!(answer.succeeded, expected, "{compare:?}");
        }
    }
}

pub(super) async fn every_compare_must_hold(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "1").await;
    let holds = || Compare::value("a", Relation::Equal, "1");
    let fails = || Compare::absent("a");
    for (compares, expected) in [
        (vec![], true),
        (vec![holds(), holds()], true),
        (vec![holds(), fails()], false),
        (vec![fails(), holds()], false),
        (vec![fails(), fails()], false),
    ] {
        let txn = Txn {
            compares,
            success: vec![put_op("branch", "success")],
            failure: vec![put_op("branch", "failure")],
        };
        let answer = kv.txn(txn.clone()).await.expect("a txn");
        assert_eq!(answer.succeeded, expected, "{txn:?}");
        let branch = if expected { "success" } else { "failure" };
        assert_eq!(get(kv, "branch").await.expect("the row").value, branch);
    }
}

pub(super) async fn later_operations_see_earlier_ones(subject: Subject) {
    let kv = subject.kv.as_ref();
    let before = put(kv, "a", "0").await;
    let txn = Txn::default()
        .when(Compare::value("a", Relation::Equal, "0"))
        .then(put_op("a", "1"))
        .then(get_op("a"))
        .then(put_op("ab", "1"))
        .then(delete_prefix_op("a"))
        .then(get_op("a"))
        .then(delete_op("a"))
        .then(put_op("ab", "2"))
        .then(get_op("ab"));
    let answer = kv.txn(txn).await.expect("a txn");
    assert_eq!(answer.revision, before + 1);
    let values: Vec<_> = answer
        .results
        .iter()
        .map(|result| match result {
            OpResult::Touched(count) => count.to_string(),
            OpResult::Got(row) => format!("{:?}", row.as_ref().map(|row| (row.value.clone(), row.version))),
        })
        .collect();
    let seen = |value: &'static str, version: u64| format!("{:?}", Some((bytes::Bytes::from(value), version)));
    assert_eq!(
        values,
        ["1", &seen("1", 2), "1", "2", "None", "0", "1", &seen("2", 1)],
        "compares are evaluated before, operations in turn"
    );
}

pub(super) async fn a_transaction_is_one_revision(subject: Subject) {
    let kv = subject.kv.as_ref();
    let before = put(kv, "gone", "x").await;
    let txn = Txn::default()
        .then(put_op("a", "1"))
        .then(put_op("b", "1"))
        .then(delete_op("gone"))
        .then(get_op("b"));
    let answer = kv.txn(txn).await.expect("a txn");
    assert_eq!((answer.revision, answer.touched()), (before + 1, 3));
    let row = get(kv, "b").await.expect("the row");
    assert_eq!(
        answer.results[3],
        OpResult::Got(Some(row.clone())),
        "a get shows the row as it will be"
    );
    assert_eq!(row.mod_revision, answer.revision);
    assert_eq!(get(kv, "a").await.expect("the row").mod_revision, answer.revision);
    assert_eq!(current(kv).await, answer.revision);
}

pub(super) async fn what_changes_nothing_makes_no_revision(subject: Subject) {
    let kv = subject.kv.as_ref();
    let revision = put(kv, "a", "1").await;
    for txn in [
        Txn::default(),
        Txn::default().then(get_op("a")),
        Txn::delete("missing"),
        Txn::default().then(delete_prefix_op("missing")),
        Txn::default().when(Compare::absent("a")).then(put_op("a", "2")),
        Txn::default()
            .when(Compare::absent("a"))
            .then(put_op("a", "2"))
            .otherwise(get_op("a")),
    ] {
        let answer = kv.txn(txn.clone()).await.expect("a txn");
        assert_eq!((answer.revision, answer.touched()), (revision, 0), "{txn:?}");
    }
    assert_eq!(current(kv).await, revision);
    assert_eq!(put(kv, "b", "1").await, revision + 1);
}

pub(super) async fn a_key_put_twice_changed_once(subject: Subject) {
    let kv = subject.kv.as_ref();
    let twice = || Txn::default().then(put_op("a", "1")).then(put_op("a", "2"));
    let created = kv.txn(twice()).await.expect("a txn").revision;
    let row = get(kv, "a").await.expect("the row");
    assert_eq!(
        (row.value.as_ref(), row.create_revision, row.version),
        (b"2".as_slice(), created, 1)
    );
    let changed = kv.txn(twice()).await.expect("a txn").revision;
    let row = get(kv, "a").await.expect("the row");
    assert_eq!(
        (row.create_revision, row.mod_revision, row.version),
        (created, changed, 2)
    );
}

pub(super) async fn deleted_and_put_is_a_new_life(subject: Subject) {
    let kv = subject.kv.as_ref();
    put(kv, "a", "1").await;
    put(kv, "a", "2").await;
    let txn = Txn::default().then(delete_op("a")).then(put_op("a", "3"));
    let answer = kv.txn(txn).await.expect("a txn");
    let row = get(kv, "a").await.expect("the row");
    assert_eq!(
        (row.value.as_ref(), row.create_revision, row.mod_revision, row.version),
        (b"3".as_slice(), answer.revision, answer.revision, 1)
    );
}

pub(super) async fn created_and_deleted_was_never_there(subject: Subject) {
    let kv = subject.kv.as_ref();
    let before = put(kv, "other", "x").await;
    let txn = || Txn::default().then(put_op("a", "1")).then(delete_op("a"));
    let answer = kv.txn(txn()).await.expect("a txn");
    assert_eq!(answer.results, [OpResult::Touched(1), OpResult::Touched(1)]);
    assert_eq!(answer.revision, before, "nothing came of it");
    let answer = kv.txn(txn().then(put_op("b", "1"))).await.expect("a txn");
    assert_eq!(answer.revision, before + 1);
    assert_eq!(
        names(&list(kv, RangeQuery::default()).await),
        [b"b".as_slice(), b"other"]
    );
    // Unlike a key that was there before.
    put(kv, "a", "0").await;
    let answer = kv.txn(txn()).await.expect("a txn");
    assert_eq!((answer.revision, get(kv, "a").await), (before + 3, None));
}

pub(super) async fn a_prefix_is_deleted_and_counted(subject: Subject) {
    let kv = subject.kv.as_ref();
    for key in ["d", "d/", "d/1", "d/2", "d0", "e"] {
        put(kv, key, "x").await;
    }
    put(kv, b"\xff".as_slice(), "x").await;
    put(kv, b"\xff\xff".as_slice(), "x").await;
    let txn = Txn::default().then(delete_prefix_op("d/")).then(Op::DeletePrefix {
        prefix: b"\xff\xff".as_slice().into(),
    });
    let answer = kv.txn(txn).await.expect("a txn");
    assert_eq!(answer.results, [OpResult::Touched(3), OpResult::Touched(1)]);
    let left = list(kv, RangeQuery::default()).await;
    assert_eq!(names(&left), [b"d".as_slice(), b"d0", b"e", b"\xff"]);
}

pub(super) async fn the_empty_prefix_deletes_everything(subject: Subject) {
    let kv = subject.kv.as_ref();
    let keys: [&[u8]; 3] = [b"\0", b"m", b"\xff"];
    let mut last = 0;
    for key in keys {
        last = put(kv, key, "x").await;
    }
    let answer = kv.txn(Txn::default().then(delete_prefix_op(""))).await.expect("a txn");
    assert_eq!((answer.revision, answer.touched()), (last + 1, 3));
    assert_eq!(list(kv, RangeQuery::default()).await, []);
}

pub(super) async fn a_refused_transaction_changes_nothing(subject: Subject) {
    let kv = subject.kv.as_ref();
    let before = put(kv, "a", "1").await;
    // The fault is last, and in the branch that would not run.
    let txn = Txn::default()
        .then(put_op("a", "2"))
        .then(put_op("b", "2"))
        .otherwise(put_op("", "2"));
    assert_eq!(kv.txn(txn).await, Err(KvError::EmptyKey));
    assert_eq!(get(kv, "a").await.expect("the row").value, "1");
    assert_eq!((get(kv, "b").await, current(kv).await), (None, before));
}
