//! The objects that programs read. Their names are an interface: see the module above.

use chainfire::kv::{Event, EventKind, KeyValue, OpResult, TxnAnswer};
use chainfire::proto::{Member, StatusResponse};
use serde_json::{Value, json};

use crate::bytes_text::{hex, json_bytes};

pub(super) fn key_value_json(row: &KeyValue) -> Value {
    json!({
        "key": json_bytes(&row.key),
        "value": json_bytes(&row.value),
        "create_revision": row.create_revision,
        "mod_revision": row.mod_revision,
        "version": row.version,
    })
}

/// Without the value that was not asked for: an empty one would be a lie.
pub(super) fn listed_json(row: &KeyValue, keys_only: bool) -> Value {
    let mut object = key_value_json(row);
    if let (true, Some(fields)) = (keys_only, object.as_object_mut()) {
        fields.remove("value");
    }
    object
}

pub(super) fn event_json(event: &Event) -> Value {
    let mut object = key_value_json(&event.kv);
    object["kind"] = match event.kind {
        EventKind::Put => json!("put"),
        EventKind::Delete => json!("delete"),
    };
    object
}

pub(super) fn txn_json(answer: &TxnAnswer) -> Value {
    let results: Vec<Value> = answer
        .results
        .iter()
        .map(|result| match result {
            OpResult::Touched(count) => json!({ "touched": count }),
            OpResult::Got(row) => json!({ "get": row.as_ref().map(key_value_json) }),
        })
        .collect();
    json!({ "succeeded": answer.succeeded, "revision": answer.revision, "results": results })
}

pub(super) fn member_json(member: &Member) -> Value {
    let Member {
        id,
        name,
        address,
        voter,
    } = member;
    json!({ "id": id, "name": name, "address": address, "voter": voter })
}

/// Taken apart field by field, so that none can be forgotten.
pub(super) fn status_json(status: &StatusResponse) -> Value {
    let StatusResponse {
        cluster_id,
        member,
        leader_id,
        leader_address,
        term,
        last_log_index,
        committed_index,
        applied_index,
        snapshot_index,
        purged_index,
        revision,
        compacted_revision,
        feature_level,
        state,
        members,
        version,
        problem,
        matched_index,
        keys,
        state_digest,
        known_feature_level,
        repaired,
    } = status;
    json!({
        "cluster_id": cluster_id,
        "member": member.as_ref().map(member_json),
        "leader_id": leader_id,
        "leader_address": leader_address,
        "term": term,
        "last_log_index": last_log_index,
        "committed_index": committed_index,
        "applied_index": applied_index,
        "snapshot_index": snapshot_index,
        "purged_index": purged_index,
        "revision": revision,
        "compacted_revision": compacted_revision,
        "feature_level": feature_level,
        "state": state,
        "members": members.iter().map(member_json).collect::<Vec<_>>(),
        "version": version,
        "problem": problem,
        "matched_index": matched_index,
        "keys": keys,
        "state_digest": hex(state_digest),
        "known_feature_level": known_feature_level,
        "repaired": repaired,
    })
}
