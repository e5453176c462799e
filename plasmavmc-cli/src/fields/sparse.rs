//! A tree without what says nothing: for people, who want to see what was chosen, not every default.

use super::Node;

/// Without fields that are empty, zero, false, or hold nothing but such. Words stay: one cannot tell a default by it.
pub fn without_defaults(node: &Node) -> Node {
    match node {
        Node::Map(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), without_defaults(value)));
            Node::Map(fields.filter(|(_, value)| !is_nothing(value)).collect())
        }
        Node::List(items) => Node::List(items.iter().map(without_defaults).collect()),
        other => other.clone(),
    }
}

fn is_nothing(node: &Node) -> bool {
    match node {
        Node::Null | Node::Bool(false) | Node::Unsigned(0) | Node::Signed(0) => true,
        Node::Text(text) => text.is_empty(),
        Node::List(items) => items.is_empty(),
        Node::Map(fields) => fields.is_empty(),
        _ => false,
    }
}
