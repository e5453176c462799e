//! Two stores, the same random calls, the same answers.

use std::future::Future;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::kv::{
    Compare, CompareTarget, Consistency, Event, Key, Kv, KvError, Limits, Op, RangeQuery, Relation, Revision, Txn,
};

use super::{PATIENCE, Subject, Watching, suite_limits};

/// One call of a random history.
#[derive(Debug, Clone)]
enum Call {
    Txn(Txn),
    Get(Key),
    /// At this many revisions before the current one.
    Range {
        query: RangeQuery,
        ago: Revision,
    },
}

/// Few keys, sharing prefixes, so that calls meet.
fn key() -> impl Strategy<Value = Key> {
    const KEYS: &[&[u8]] = &[b"a", b"ab", b"ab/", b"b", b"b/1", b"\xff", b"\xff\0", b"\xff\xff"];
    prop::sample::select(KEYS).prop_map(Key::from_static)
}

fn prefix() -> impl Strategy<Value = Key> {
    const PREFIXES: &[&[u8]] = &[b"", b"a", b"ab", b"b/", b"c", b"\xff", b"\xff\xff"];
    prop::sample::select(PREFIXES).prop_map(Key::from_static)
}

fn value() -> impl Strategy<Value = Key> {
    prop::sample::select(["", "1", "2", "33"].as_slice()).prop_map(Key::from)
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation =
        prop::sample::select([Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less].as_slice());
    let target = prop_oneof![
        (0u64..20).prop_map(CompareTarget::CreateRevision),
        (0u64..20).prop_map(CompareTarget::ModRevision),
        (0u64..4).prop_map(CompareTarget::Version),
        value().prop_map(CompareTarget::Value),
    ];
    (key(), relation, target).prop_map(|(key, relation, target)| Compare { key, relation, target })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        3 => key().prop_map(|key| Op::Delete { key }),
        1 => prefix().prop_map(|prefix| Op::DeletePrefix { prefix }),
        2 => key().prop_map(|key| Op::Get { key }),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let txn = (vec(compare(), 0..3), vec(op(), 0..6), vec(op(), 0..4)).prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    });
    let range = (prefix(), prop::option::of(key()), 0usize..4, 0u64..12, any::<bool>()).prop_map(
        |(prefix, after, limit, ago, keys_only)| Call::Range {
            query: RangeQuery {
                prefix,
                after: after.unwrap_or_default(),
                limit,
                keys_only,
                ..RangeQuery::default()
            },
            ago,
        },
    );
    prop_oneof![4 => txn.prop_map(Call::Txn), 1 => key().prop_map(Call::Get), 2 => range]
}

/// Runs `histories` random histories against new stores of both kinds and compares every answer and every
/// event. Panics with the smallest history that it finds them to differ on. Call it outside of a runtime.
pub fn differential<A, B, FutA, FutB>(histories: u32, make_a: A, make_b: B)
where
    A: Fn(Limits) -> FutA,
    B: Fn(Limits) -> FutB,
    FutA: Future<Output = Subject>,
    FutB: Future<Output = Subject>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let config = Config {
        cases: histories,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&vec(call(), 1..40), |calls| {
        runtime.block_on(async {
            let a = make_a(suite_limits()).await;
            let b = make_b(suite_limits()).await;
            tokio::time::timeout(PATIENCE, compare_stores(&a.kv, &b.kv, calls))
                .await
                .map_err(|_| TestCaseError::fail("the stores did not answer in time"))?
        })
    });
    if let Err(difference) = outcome {
        panic!("{difference}");
    }
}

async fn compare_stores(a: &Arc<dyn Kv>, b: &Arc<dyn Kv>, calls: Vec<Call>) -> Result<(), TestCaseError> {
    let mut revision = 0;
    for call in calls {
        match call {
            Call::Txn(txn) => {
                let (from_a, from_b) = (a.txn(txn.clone()).await, b.txn(txn.clone()).await);
                prop_assert_eq!(&from_a, &from_b, "{:?}", txn);
                revision = from_a.map_or(revision, |answer| answer.revision);
            }
            Call::Get(key) => {
                let get = |kv: Arc<dyn Kv>| {
                    let key = key.clone();
                    async move { kv.get(key, Consistency::Linearizable).await }
                };
                prop_assert_eq!(get(Arc::clone(a)).await, get(Arc::clone(b)).await, "{:?}", key);
            }
            Call::Range { mut query, ago } => {
                query.revision = revision.saturating_sub(ago);
                let answers = (a.range(query.clone()).await, b.range(query.clone()).await);
                prop_assert_eq!(answers.0, answers.1, "{:?}", query);
            }
        }
    }
    for prefix in [b"".as_slice(), b"a", b"\xff"] {
        let (from_a, from_b) = (
            all_events(a, prefix, revision).await,
            all_events(b, prefix, revision).await,
        );
        prop_assert_eq!(from_a, from_b, "events under {:?}", prefix);
    }
    Ok(())
}

/// All that ever happened under a prefix. A mark written last tells when that is.
async fn all_events(kv: &Arc<dyn Kv>, prefix: &'static [u8], revision: Revision) -> Result<Vec<Event>, KvError> {
    if revision == 0 {
        return Ok(Vec::new());
    }
    let mark = kv.put([prefix, b"~"].concat().into(), "mark".into()).await?;
    let mut watching = Watching::from(kv.as_ref(), prefix, 1).await;
    Ok(watching.until(mark).await)
}
