//! Short words for histories made by hand.

use chainfire::kv::{Event, EventKind, Key, KeyValue, Revision, Value};

use super::op::{Action, Answer, End, Guard, Nanos, Op};

/// A call from `from` to `to`; several samples make one history with `txn` numbers by position in time.
pub fn op(from: Nanos, to: Nanos, action: Action, revision: Revision, answer: Answer) -> Op {
    Op {
        txn: from * 1000 + to,
        client: 0,
        key: "k".into(),
        action,
        invoked: from,
        end: End::Known {
            at: to,
            revision,
            answer,
        },
    }
}

pub fn unknown(from: Nanos, action: Action) -> Op {
    Op {
        end: End::Unknown,
        ..op(from, from, action, 0, Answer::Written)
    }
}

pub fn value(text: &str) -> Value {
    Value::copy_from_slice(text.as_bytes())
}

pub fn put_action(text: &str) -> Action {
    Action::Put { value: value(text) }
}

pub fn put(from: Nanos, to: Nanos, text: &str, revision: Revision) -> Op {
    op(from, to, put_action(text), revision, Answer::Written)
}

pub fn get(from: Nanos, to: Nanos, seen: Option<(&str, Revision)>, revision: Revision) -> Op {
    let row = seen.map(|(text, at)| row("k", text, at, at, 1));
    op(from, to, Action::Get, revision, Answer::Row(row))
}

pub fn delete(from: Nanos, to: Nanos, existed: bool, revision: Revision) -> Op {
    op(from, to, Action::Delete, revision, Answer::Deleted { existed })
}

pub fn cas(from: Nanos, to: Nanos, guard: Guard, text: &str, swapped: bool, revision: Revision) -> Op {
    let action = Action::Cas {
        guard,
        value: value(text),
    };
    op(from, to, action, revision, Answer::Swapped(swapped))
}

pub fn row(key: &str, text: &str, create: Revision, at: Revision, version: u64) -> KeyValue {
    KeyValue {
        key: Key::copy_from_slice(key.as_bytes()),
        value: value(text),
        create_revision: create,
        mod_revision: at,
        version,
    }
}

/// A put of a key that was not there before.
pub fn put_event(key: &str, text: &str, at: Revision) -> Event {
    Event {
        kind: EventKind::Put,
        kv: row(key, text, at, at, 1),
    }
}

pub fn delete_event(key: &str, at: Revision) -> Event {
    Event {
        kind: EventKind::Delete,
        kv: row(key, "", 0, at, 0),
    }
}
