use super::*;

fn everything() -> Txn {
    let compare = |relation, target| Compare {
        key: "k".into(),
        relation,
        target,
    };
    Txn::default()
        .when(compare(Relation::Equal, CompareTarget::CreateRevision(1)))
        .when(compare(Relation::NotEqual, CompareTarget::ModRevision(2)))
        .when(compare(Relation::Greater, CompareTarget::Version(3)))
        .when(compare(Relation::Less, CompareTarget::Value("\u{0}x".into())))
        .then(Op::Put {
            key: "a".into(),
            value: "".into(),
        })
        .then(Op::Delete { key: "b".into() })
        .otherwise(Op::DeletePrefix { prefix: "".into() })
        .otherwise(Op::Get { key: "c".into() })
}

#[test]
fn a_transaction_survives_the_way_there_and_back() {
    assert_eq!(Txn::try_from(proto::TxnRequest::from(everything())), Ok(everything()));
}

#[test]
fn an_answer_survives_the_way_there_and_back() {
    let kv = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
    };
    let answer = TxnAnswer {
        succeeded: true,
        revision: 9,
        results: vec![
            OpResult::Touched(7),
            OpResult::Got(None),
            OpResult::Got(Some(kv.clone())),
        ],
    };
    assert_eq!(
        TxnAnswer::try_from(proto::TxnResponse::from(answer.clone())),
        Ok(answer)
    );
    let batch = WatchBatch {
        events: vec![
            Event {
                kind: EventKind::Put,
                kv: kv.clone(),
            },
            Event {
                kind: EventKind::Delete,
                kv,
            },
        ],
        next_revision: 10,
    };
    assert_eq!(
        WatchBatch::try_from(proto::WatchResponse::from(batch.clone())),
        Ok(batch)
    );
}

#[test]
fn a_range_limit_that_does_not_fit_stays_above_every_limit() {
    let request = proto::RangeRequest::from(RangeQuery {
        limit: usize::MAX,
        ..RangeQuery::default()
    });
    assert_eq!(request.limit, u32::MAX);
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let good = || proto::TxnRequest::from(everything());
    let check = |spoil: fn(&mut proto::TxnRequest), expected: &str| {
        let mut request = good();
        spoil(&mut request);
        let reason = expected.to_string();
        assert_eq!(Txn::try_from(request), Err(KvError::Malformed { reason }));
    };
    check(|txn| txn.compares[2].target = None, "compares[2].target is missing");
    check(|txn| txn.compares[0].relation = 9, "compares[0].relation 9 is unknown");
    check(|txn| txn.success[1].op = None, "success[1].op is missing");
    check(|txn| txn.failure[0].op = None, "failure[0].op is missing");
}
