//! Taking out what should not leave the house: values in kernel command lines that are called like secrets.

use crate::fields::Node;

const HIDDEN: &str = "(removed)";
const SECRET_WORDS: [&str; 5] = ["pass", "secret", "token", "key", "credential"];

/// A tree without secrets.
pub fn redacted(node: &Node) -> Node {
    match node {
        Node::Map(fields) => {
            let field = |(name, value): &(String, Node)| match value {
                Node::Text(text) if name == "cmdline" => (name.clone(), Node::text(without_secrets(text))),
                Node::Text(text) if is_secret(name) && !text.is_empty() => (name.clone(), Node::text(HIDDEN)),
                value => (name.clone(), redacted(value)),
            };
            Node::Map(fields.iter().map(field).collect())
        }
        Node::List(items) => Node::List(items.iter().map(redacted).collect()),
        other => other.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn without_secrets(cmdline: &str) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        // An URL carries its user's password in front of the host.
        Some((name, value)) if value.contains("://") && value.contains('@') => format!("{name}={HIDDEN}"),
        _ => word.to_owned(),
    };
    cmdline.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use plasmavmc_proto::api::{DirectBoot, Vm, VmSpec};

    use super::*;
    use crate::fields::node_of;

    #[test]
    fn secrets_are_removed_and_the_rest_stays() {
        let cmdline = "console=ttyS0 rootPassword=hunter2 url=http://u:p@h/x api_token=abc quiet".to_owned();
        let direct_boot = DirectBoot {
            kernel: "/k".to_owned(),
            cmdline,
            ..DirectBoot::default()
        };
        let spec = VmSpec {
            direct_boot: Some(direct_boot),
            name: "web".to_owned(),
            ..VmSpec::default()
        };
        let vm = Vm {
            spec: Some(spec),
            ..Vm::default()
        };
        let text = serde_json::to_string(&redacted(&node_of(&vm))).unwrap();
        for secret in ["hunter2", "u:p@h", "abc"] {
            assert!(!text.contains(secret), "{text}");
        }
        for kept in ["console=ttyS0", "quiet", "\"name\":\"web\"", "\"/k\""] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }
}
