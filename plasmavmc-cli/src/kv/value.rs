//! What a value of the store means, by its key.

use crate::fields::{Node, node_of_bytes};

/// The sequence number that a beat begins with, so that the store can compare it.
const BEAT_HEAD: usize = 8;

/// A value as a tree where its form is known, else as text or hexadecimal.
pub fn decoded(key: &[u8], value: &[u8]) -> Node {
    let key = String::from_utf8_lossy(key);
    let parts: Vec<&str> = key.split('/').collect();
    let (message, body) = match parts.as_slice() {
        // Even its hash is nobody's business.
        ["", "tokens", _] => return Node::text("(not shown)"),
        ["", "cluster", "config"] => ("ClusterConfig", value),
        ["", "hosts", _, "record"] => ("HostRecord", value),
        ["", "hosts", _, "session"] => ("Session", value),
        ["", "hosts", _, "beat"] => return beat(value),
        ["", "vms", _, "record"] => ("VmRecord", value),
        ["", "vms", _, "placement"] => ("Placement", value),
        ["", "vms", _, "status"] => ("VmStatus", value),
        ["", "names" | "vmids", _] => ("VmPointer", value),
        ["", "requests", _] => ("Request", value),
        ["", "ops", _] => ("Operation", value),
        ["", "decisions", _] => ("Decision", value),
        _ => return raw(value),
    };
    node_of_bytes(&format!("plasmavmc.store.{message}"), body).unwrap_or_else(|| raw(value))
}

fn beat(value: &[u8]) -> Node {
    let Some((head, body)) = value.split_first_chunk::<BEAT_HEAD>() else {
        return raw(value);
    };
    match node_of_bytes("plasmavmc.store.Beat", body) {
        Some(Node::Map(mut fields)) => {
            fields.insert(
                0,
                ("sequence_head".to_owned(), Node::Unsigned(u64::from_be_bytes(*head))),
            );
            Node::Map(fields)
        }
        _ => raw(value),
    }
}

fn raw(value: &[u8]) -> Node {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\n') => Node::text(text),
        _ => Node::text(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_proto::store;
    use prost::Message;

    use super::*;

    #[test]
    fn every_kind_of_value_is_read_by_its_key() {
        let placement = store::Placement {
            host: vec![0xab; 16],
            incarnation: 3,
        }
        .encode_to_vec();
        let node = decoded(b"/vms/1/placement", &placement);
        assert_eq!(node.get("incarnation"), Some(&Node::Unsigned(3)));
        assert_eq!(node.get("host"), Some(&Node::text("ab".repeat(16))));

        let mut beat = 9u64.to_be_bytes().to_vec();
        beat.extend(store::Beat::default().encode_to_vec());
        assert_eq!(
            decoded(b"/hosts/1/beat", &beat).get("sequence_head"),
            Some(&Node::Unsigned(9))
        );

        let known = [
            "/cluster/config",
            "/hosts/1/record",
            "/hosts/1/session",
            "/vms/1/record",
            "/vms/1/status",
        ];
        let more = [
            "/names/web",
            "/vmids/0000000101",
            "/requests/1",
            "/ops/1",
            "/decisions/1-ab",
        ];
        for key in known.into_iter().chain(more) {
            assert!(matches!(decoded(key.as_bytes(), &[]), Node::Map(_)), "{key}");
        }
    }

    #[test]
    fn what_is_unknown_is_shown_as_it_is() {
        assert_eq!(decoded(b"/other", b"text"), Node::text("text"));
        assert_eq!(decoded(b"/other", &[0, 255]), Node::text("00ff"));
        assert_eq!(decoded(b"/hosts/1/beat", b"\x01"), Node::text("01"));
        assert_eq!(decoded(b"/vms/1/record", &[0xff]), Node::text("ff"));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(decoded(b"/tokens/1", b"hash"), Node::text("(not shown)"));
    }
}
