use std::sync::Arc;

use async_trait::async_trait;
use chainfire::kv::memory::MemoryKv;
use chainfire::kv::{Consistency, GetAnswer, RangeAnswer, RangeQuery, TxnAnswer, WatchStream};
use plasmavmc_core::change::{self, Part, Put};
use plasmavmc_types::{Incarnation, OperationState, VmSpec};

use super::*;
use crate::store::codec::{decode_beat, decode_record};
use crate::store::samples::*;

async fn get(kv: &MemoryKv, key: impl Into<Key>) -> Option<chainfire::kv::KeyValue> {
    kv.get(key.into(), Consistency::Linearizable).await.unwrap().kv
}

async fn revision_of(kv: &MemoryKv, key: impl Into<Key>) -> Revision {
    get(kv, key).await.map_or(0, |kv| kv.mod_revision)
}

fn placement() -> Placement {
    Placement {
        host: host_id(2),
        incarnation: Incarnation::FIRST,
    }
}

#[tokio::test]
async fn a_vm_is_created_once_with_a_name_and_a_number_of_its_own() {
    let kv = MemoryKv::default();
    let create = |record: &VmRecord| Write::new().create_vm(record);
    let first = create(&record(1)).commit(&kv).await.unwrap();
    assert_eq!(first.revision, 1);
    let stored = get(&kv, keys::vm_record(vm_id(1))).await.unwrap();
    assert_eq!(decode_record(&stored.value).unwrap(), record(1));
    assert_eq!(create(&record(1)).commit(&kv).await, Err(WriteError::Raced));

    let named_alike = |n: u128, other: u128| {
        let spec: VmSpec = record(n)
            .spec()
            .edit(|f| f.name = record(other).spec().name.clone())
            .unwrap();
        VmRecord::create(vm_id(n), record(n).number(), spec).unwrap()
    };
    assert_eq!(create(&named_alike(2, 1)).commit(&kv).await, Err(WriteError::Raced));
    let numbered_alike = VmRecord::create(vm_id(3), record(1).number(), record(3).spec().clone()).unwrap();
    assert_eq!(create(&numbered_alike).commit(&kv).await, Err(WriteError::Raced));
    assert_eq!(create(&record(2)).commit(&kv).await.unwrap().revision, 2);
}

#[tokio::test]
async fn what_is_not_compared_is_not_written() {
    let kv = MemoryKv::default();
    let unguarded = Write::new().put_placement(vm_id(1), &placement()).commit(&kv).await;
    let key = keys::placement(vm_id(1));
    let key = String::from_utf8(key.to_vec()).unwrap();
    assert_eq!(unguarded, Err(WriteError::Unguarded { key }));
    let elsewhere = Write::new()
        .expect_absent(keys::status(vm_id(1)))
        .put_placement(vm_id(1), &placement());
    assert!(matches!(elsewhere.into_txn(), Err(WriteError::Unguarded { .. })));
    assert_eq!(kv.range(RangeQuery::prefix("")).await.unwrap().kvs, []);
}

#[tokio::test]
async fn a_status_counts_only_in_its_session_and_placement() {
    let (kv, vm, host) = (MemoryKv::default(), vm_id(1), host_id(2));
    let open = Write::new()
        .expect_absent(keys::session(host))
        .put_session(host, &session(1))
        .expect_absent(keys::placement(vm))
        .put_placement(vm, &placement());
    let opened = open.commit(&kv).await.unwrap().revision;
    let report = |session: Revision, placement: Revision, seen: Revision| {
        Write::new()
            .expect(keys::session(host), session)
            .expect(keys::placement(vm), placement)
            .expect(keys::status(vm), seen)
            .put_status(vm, &status())
    };
    let first = report(opened, opened, 0).commit(&kv).await.unwrap().revision;
    assert_eq!(report(opened, opened, 0).commit(&kv).await, Err(WriteError::Raced));
    let fence = Write::new()
        .expect(keys::session(host), opened)
        .put_session(host, &session(1).fenced());
    fence.commit(&kv).await.unwrap();
    assert_eq!(report(opened, opened, first).commit(&kv).await, Err(WriteError::Raced));
}

#[tokio::test]
async fn beats_go_forward_within_an_open_session() {
    let (kv, host) = (MemoryKv::default(), host_id(2));
    let beat_in = |session: Revision, sequence: u64| {
        Write::new()
            .expect(keys::session(host), session)
            .put_beat(host, &beat(sequence))
    };
    assert_eq!(
        beat_in(0, 1).commit(&kv).await,
        Err(WriteError::Raced),
        "no first beat, no session"
    );
    let open = Write::new()
        .expect_absent(keys::session(host))
        .put_session(host, &session(1))
        .put_first_beat(host, &beat(255), 0);
    let opened = open.commit(&kv).await.unwrap().revision;
    assert_eq!(
        beat_in(opened, 255).commit(&kv).await,
        Err(WriteError::Raced),
        "the same beat again"
    );
    beat_in(opened, 256).commit(&kv).await.unwrap();
    assert_eq!(
        beat_in(opened, 255).commit(&kv).await,
        Err(WriteError::Raced),
        "a late one"
    );
    let stored = get(&kv, keys::beat(host)).await.unwrap();
    assert_eq!(decode_beat(&stored.value).unwrap(), beat(256));

    // The next session may count from anywhere: what it saw is compared.
    let reopen = |seen: Revision| {
        Write::new()
            .expect(keys::session(host), opened)
            .put_session(host, &session(2))
            .put_first_beat(host, &beat(1), seen)
    };
    assert_eq!(reopen(opened).commit(&kv).await, Err(WriteError::Raced));
    let reopened = reopen(stored.mod_revision).commit(&kv).await.unwrap().revision;
    assert_eq!(
        beat_in(opened, 300).commit(&kv).await,
        Err(WriteError::Raced),
        "of the earlier session"
    );
    beat_in(reopened, 2).commit(&kv).await.unwrap();
}

#[tokio::test]
async fn requests_operations_and_decisions_are_new_when_they_are_made() {
    let kv = MemoryKv::default();
    let id = RequestId::new("r-1").unwrap();
    let ask = || {
        Write::new()
            .put_request(&id, &request())
            .create_operation(&operation(5))
            .put_decision(&keys::decision_id(17, 1), &decision(17))
    };
    let asked = ask().commit(&kv).await.unwrap().revision;
    assert_eq!(ask().commit(&kv).await, Err(WriteError::Raced));
    let moved = operation(5).moved(OperationState::Done, "", 2);
    let blind = Write::new().put_operation(&moved).commit(&kv).await;
    assert!(matches!(blind, Err(WriteError::Unguarded { .. })));
    let end = Write::new()
        .expect(keys::operation(moved.id), asked)
        .put_operation(&moved);
    let ended = end.commit(&kv).await.unwrap().revision;
    assert_eq!(
        Write::new().delete_operation(moved.id, asked).commit(&kv).await,
        Err(WriteError::Raced)
    );
    Write::new()
        .delete_operation(moved.id, ended)
        .delete_decisions([keys::decision_id(17, 1), keys::decision_id(3, 3)])
        .commit(&kv)
        .await
        .unwrap();
    let left = kv.range(RangeQuery::prefix("")).await.unwrap().kvs;
    assert_eq!(
        left.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(),
        [keys::request(&id)]
    );
}

#[tokio::test]
async fn a_forgotten_vm_leaves_nothing_and_only_as_it_was_seen() {
    let (kv, vm) = (MemoryKv::default(), vm_id(1));
    let created = Write::new().create_vm(&record(1)).commit(&kv).await.unwrap().revision;
    let place = Write::new()
        .expect_absent(keys::placement(vm))
        .put_placement(vm, &placement());
    let placed = place.commit(&kv).await.unwrap().revision;
    let seen = Stored::new(record(1), created);
    let unplaced = Write::new().forget_vm(&seen, None, None).commit(&kv).await;
    assert_eq!(unplaced, Err(WriteError::Raced), "it was placed meanwhile");
    let placement = Stored::new(placement(), placed);
    Write::new()
        .forget_vm(&seen, Some(&placement), None)
        .commit(&kv)
        .await
        .unwrap();
    assert_eq!(kv.range(RangeQuery::prefix("")).await.unwrap().kvs, []);
}

#[tokio::test]
async fn a_vm_gets_a_name_that_nobody_has() {
    let kv = MemoryKv::default();
    for n in [1, 2] {
        Write::new().create_vm(&record(n)).commit(&kv).await.unwrap();
    }
    let renamed = |to: &str| {
        let to = VmName::new(to).unwrap();
        let next = record(1)
            .with_spec(record(1).spec().edit(|f| f.name = to.clone()).unwrap())
            .unwrap();
        Write::new()
            .expect(keys::vm_record(vm_id(1)), 1)
            .put_record(&next)
            .rename_vm(vm_id(1), &record(1).spec().name, &to)
    };
    assert_eq!(renamed("vm-2").commit(&kv).await, Err(WriteError::Raced));
    renamed("web").commit(&kv).await.unwrap();
    assert_eq!(revision_of(&kv, keys::name(&VmName::new("vm-1").unwrap())).await, 0);
    assert_eq!(revision_of(&kv, keys::name(&VmName::new("web").unwrap())).await, 3);
}

#[tokio::test]
async fn what_was_decided_becomes_one_transaction() {
    let (kv, vm) = (MemoryKv::default(), vm_id(1));
    let created = Write::new().create_vm(&record(1)).commit(&kv).await.unwrap().revision;
    let decided = change::Change::new()
        .expect(Part::VmRecord(vm), created)
        .expect(Part::Placement(vm), 0)
        .put(Put::Placement(vm, placement()))
        .because(decision(17));
    let written = Write::of(&decided, 0xab).commit(&kv).await.unwrap().revision;
    assert_eq!(revision_of(&kv, keys::placement(vm)).await, written);
    assert_eq!(
        revision_of(&kv, keys::decision(&keys::decision_id(17, 0xab))).await,
        written
    );
    assert_eq!(Write::of(&decided, 0xac).commit(&kv).await, Err(WriteError::Raced));

    let name = record(1).spec().name.clone();
    let cleared = change::Change::new()
        .expect(Part::VmRecord(vm), created)
        .remove(Part::VmRecord(vm))
        .remove(Part::Name(name.clone()));
    Write::of(&cleared, 0).commit(&kv).await.unwrap();
    assert_eq!(revision_of(&kv, keys::name(&name)).await, 0);
    assert_eq!(revision_of(&kv, keys::vm_record(vm)).await, 0);
}

/// A store that takes everything and answers nothing.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Kv for Silent {
    async fn get(&self, _: Key, _: Consistency) -> Result<GetAnswer, KvError> {
        std::future::pending().await
    }

    async fn range(&self, _: RangeQuery) -> Result<RangeAnswer, KvError> {
        std::future::pending().await
    }

    async fn txn(&self, _: Txn) -> Result<TxnAnswer, KvError> {
        std::future::pending().await
    }

    async fn watch(&self, _: Key, _: Revision) -> Result<WatchStream, KvError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_may_have_written() {
    let kv: Arc<dyn Kv> = Arc::new(Silent);
    let outcome = Write::new().create_vm(&record(1)).commit(&*kv).await;
    assert!(
        matches!(outcome, Err(WriteError::Kv(KvError::OutcomeUnknown { .. }))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_stores_own_refusals_are_passed_on() {
    let limits = chainfire::kv::Limits {
        txn_ops: 2,
        ..chainfire::kv::Limits::default()
    };
    let outcome = Write::new().create_vm(&record(1)).commit(&MemoryKv::new(limits)).await;
    assert!(
        matches!(outcome, Err(WriteError::Kv(KvError::TxnTooManyOps { .. }))),
        "{outcome:?}"
    );
}
