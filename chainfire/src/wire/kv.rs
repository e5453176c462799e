//! The messages of `kv.proto`.

use crate::kv::{
    Compare, CompareTarget, Consistency, Event, EventKind, GetAnswer, Key, KeyValue, KvError, Op, OpResult,
    RangeAnswer, RangeQuery, Relation, Txn, TxnAnswer, WatchBatch,
};
use crate::proto;

/// The error for a part that the sender left out or made up.
pub(super) fn malformed(field: &str, problem: &str) -> KvError {
    KvError::Malformed {
        reason: format!("{field} {problem}"),
    }
}

/// Translates each item of a repeated field; an error tells which one is wrong.
pub(super) fn translate_all<M, T>(
    field: &str,
    messages: Vec<M>,
    translate: impl Fn(M) -> Result<T, KvError>,
) -> Result<Vec<T>, KvError> {
    let mut all = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        all.push(translate(message).map_err(|error| match error {
            KvError::Malformed { reason } => KvError::Malformed {
                reason: format!("{field}[{index}].{reason}"),
            },
            other => other,
        })?);
    }
    Ok(all)
}

pub(super) fn relation_to_number(relation: Relation) -> i32 {
    match relation {
        Relation::Equal => proto::compare::Relation::Equal as i32,
        Relation::NotEqual => proto::compare::Relation::NotEqual as i32,
        Relation::Greater => proto::compare::Relation::Greater as i32,
        Relation::Less => proto::compare::Relation::Less as i32,
    }
}

pub(super) fn relation_from_number(number: i32) -> Result<Relation, KvError> {
    match proto::compare::Relation::try_from(number) {
        Ok(proto::compare::Relation::Equal) => Ok(Relation::Equal),
        Ok(proto::compare::Relation::NotEqual) => Ok(Relation::NotEqual),
        Ok(proto::compare::Relation::Greater) => Ok(Relation::Greater),
        Ok(proto::compare::Relation::Less) => Ok(Relation::Less),
        Err(_) => Err(malformed("relation", &format!("{number} is unknown"))),
    }
}

fn consistency(stale: bool) -> Consistency {
    if stale {
        Consistency::Stale
    } else {
        Consistency::Linearizable
    }
}

impl From<KeyValue> for proto::KeyValue {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
        }
    }
}

impl From<proto::KeyValue> for KeyValue {
    fn from(kv: proto::KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
        }
    }
}

/// Asks for one key.
pub fn get_request(key: Key, consistency: Consistency) -> proto::GetRequest {
    proto::GetRequest {
        key,
        stale: consistency == Consistency::Stale,
    }
}

impl From<proto::GetRequest> for (Key, Consistency) {
    fn from(request: proto::GetRequest) -> Self {
        (request.key, consistency(request.stale))
    }
}

impl From<GetAnswer> for proto::GetResponse {
    fn from(answer: GetAnswer) -> Self {
        Self {
            revision: answer.revision,
            kv: answer.kv.map(Into::into),
        }
    }
}

impl From<proto::GetResponse> for GetAnswer {
    fn from(response: proto::GetResponse) -> Self {
        Self {
            revision: response.revision,
            kv: response.kv.map(Into::into),
        }
    }
}

impl From<RangeQuery> for proto::RangeRequest {
    fn from(query: RangeQuery) -> Self {
        Self {
            prefix: query.prefix,
            after: query.after,
            // A limit that does not fit is above every page limit either way.
            limit: u32::try_from(query.limit).unwrap_or(u32::MAX),
            revision: query.revision,
            stale: query.consistency == Consistency::Stale,
            keys_only: query.keys_only,
        }
    }
}

impl From<proto::RangeRequest> for RangeQuery {
    fn from(request: proto::RangeRequest) -> Self {
        Self {
            prefix: request.prefix,
            after: request.after,
            limit: request.limit as usize,
            revision: request.revision,
            consistency: consistency(request.stale),
            keys_only: request.keys_only,
        }
    }
}

impl From<RangeAnswer> for proto::RangeResponse {
    fn from(answer: RangeAnswer) -> Self {
        Self {
            revision: answer.revision,
            kvs: answer.kvs.into_iter().map(Into::into).collect(),
            more: answer.more,
        }
    }
}

impl From<proto::RangeResponse> for RangeAnswer {
    fn from(response: proto::RangeResponse) -> Self {
        Self {
            revision: response.revision,
            kvs: response.kvs.into_iter().map(Into::into).collect(),
            more: response.more,
        }
    }
}

impl From<proto::PutRequest> for Txn {
    fn from(request: proto::PutRequest) -> Self {
        Txn::put(request.key, request.value)
    }
}

impl From<proto::DeleteRequest> for Op {
    fn from(request: proto::DeleteRequest) -> Self {
        if request.prefix {
            Op::DeletePrefix { prefix: request.key }
        } else {
            Op::Delete { key: request.key }
        }
    }
}

/// Asks for the deletion of one key, or of every key under it.
pub fn delete_request(key: Key, prefix: bool) -> proto::DeleteRequest {
    proto::DeleteRequest { key, prefix }
}

impl From<Compare> for proto::Compare {
    fn from(compare: Compare) -> Self {
        use proto::compare::Target;
        Self {
            key: compare.key,
            relation: relation_to_number(compare.relation),
            target: Some(match compare.target {
                CompareTarget::CreateRevision(operand) => Target::CreateRevision(operand),
                CompareTarget::ModRevision(operand) => Target::ModRevision(operand),
                CompareTarget::Version(operand) => Target::Version(operand),
                CompareTarget::Value(operand) => Target::Value(operand),
            }),
        }
    }
}

impl TryFrom<proto::Compare> for Compare {
    type Error = KvError;

    fn try_from(message: proto::Compare) -> Result<Self, KvError> {
        use proto::compare::Target;
        Ok(Self {
            relation: relation_from_number(message.relation)?,
            target: match message.target {
                Some(Target::CreateRevision(operand)) => CompareTarget::CreateRevision(operand),
                Some(Target::ModRevision(operand)) => CompareTarget::ModRevision(operand),
                Some(Target::Version(operand)) => CompareTarget::Version(operand),
                Some(Target::Value(operand)) => CompareTarget::Value(operand),
                None => return Err(malformed("target", "is missing")),
            },
            key: message.key,
        })
    }
}

impl From<Op> for proto::Op {
    fn from(op: Op) -> Self {
        use proto::op::Op as Message;
        Self {
            op: Some(match op {
                Op::Put { key, value } => Message::Put(proto::PutRequest { key, value }),
                Op::Delete { key } => Message::Delete(delete_request(key, false)),
                Op::DeletePrefix { prefix } => Message::Delete(delete_request(prefix, true)),
                Op::Get { key } => Message::Get(proto::GetOp { key }),
            }),
        }
    }
}

impl TryFrom<proto::Op> for Op {
    type Error = KvError;

    fn try_from(message: proto::Op) -> Result<Self, KvError> {
        use proto::op::Op as Message;
        match message.op {
            Some(Message::Put(put)) => Ok(Op::Put {
                key: put.key,
                value: put.value,
            }),
            Some(Message::Delete(delete)) => Ok(delete.into()),
            Some(Message::Get(get)) => Ok(Op::Get { key: get.key }),
            None => Err(malformed("op", "is missing")),
        }
    }
}

impl From<OpResult> for proto::OpResult {
    fn from(result: OpResult) -> Self {
        use proto::op_result::Result as Message;
        Self {
            result: Some(match result {
                OpResult::Touched(count) => Message::Touched(count),
                OpResult::Got(kv) => Message::Get(proto::GetOpResult { kv: kv.map(Into::into) }),
            }),
        }
    }
}

impl TryFrom<proto::OpResult> for OpResult {
    type Error = KvError;

    fn try_from(message: proto::OpResult) -> Result<Self, KvError> {
        use proto::op_result::Result as Message;
        match message.result {
            Some(Message::Touched(count)) => Ok(OpResult::Touched(count)),
            Some(Message::Get(got)) => Ok(OpResult::Got(got.kv.map(Into::into))),
            None => Err(malformed("result", "is missing")),
        }
    }
}

impl From<Txn> for proto::TxnRequest {
    fn from(txn: Txn) -> Self {
        Self {
            compares: txn.compares.into_iter().map(Into::into).collect(),
            success: txn.success.into_iter().map(Into::into).collect(),
            failure: txn.failure.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::TxnRequest> for Txn {
    type Error = KvError;

    fn try_from(request: proto::TxnRequest) -> Result<Self, KvError> {
        Ok(Self {
            compares: translate_all("compares", request.compares, Compare::try_from)?,
            success: translate_all("success", request.success, Op::try_from)?,
            failure: translate_all("failure", request.failure, Op::try_from)?,
        })
    }
}

impl From<TxnAnswer> for proto::TxnResponse {
    fn from(answer: TxnAnswer) -> Self {
        Self {
            succeeded: answer.succeeded,
            revision: answer.revision,
            results: answer.results.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::TxnResponse> for TxnAnswer {
    type Error = KvError;

    fn try_from(response: proto::TxnResponse) -> Result<Self, KvError> {
        Ok(Self {
            succeeded: response.succeeded,
            revision: response.revision,
            results: translate_all("results", response.results, OpResult::try_from)?,
        })
    }
}

impl From<Event> for proto::Event {
    fn from(event: Event) -> Self {
        let kind = match event.kind {
            EventKind::Put => proto::event::Kind::Put,
            EventKind::Delete => proto::event::Kind::Delete,
        };
        Self {
            kind: kind as i32,
            kv: Some(event.kv.into()),
        }
    }
}

impl TryFrom<proto::Event> for Event {
    type Error = KvError;

    fn try_from(message: proto::Event) -> Result<Self, KvError> {
        Ok(Self {
            kind: match proto::event::Kind::try_from(message.kind) {
                Ok(proto::event::Kind::Put) => EventKind::Put,
                Ok(proto::event::Kind::Delete) => EventKind::Delete,
                Err(_) => return Err(malformed("kind", &format!("{} is unknown", message.kind))),
            },
            kv: message.kv.ok_or_else(|| malformed("kv", "is missing"))?.into(),
        })
    }
}

impl From<WatchBatch> for proto::WatchResponse {
    fn from(batch: WatchBatch) -> Self {
        Self {
            events: batch.events.into_iter().map(Into::into).collect(),
            next_revision: batch.next_revision,
        }
    }
}

impl TryFrom<proto::WatchResponse> for WatchBatch {
    type Error = KvError;

    fn try_from(response: proto::WatchResponse) -> Result<Self, KvError> {
        Ok(Self {
            events: translate_all("events", response.events, Event::try_from)?,
            next_revision: response.next_revision,
        })
    }
}

#[cfg(test)]
mod tests;
