//! `--set FIELD=VALUE`: a change of one place in a specification.
//!
//! A path names groups with dots and entries of lists by their number: `disks[0].size_mb`. The server is told the
//! outermost field of it, whole: what lies around the change is what was read, and the generation guards it.

use plasmavmc_proto::api::VmSpec;

use crate::fields::{FieldError, Node, merge, node_of};

/// A specification with changes, and the outermost fields they are in.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub spec: VmSpec,
    pub fields: Vec<String>,
}

/// Makes every change, one after the other.
pub fn set_all(spec: &VmSpec, changes: &[String]) -> Result<Changed, FieldError> {
    let mut tree = node_of(spec);
    let mut fields: Vec<String> = Vec::new();
    for change in changes {
        let (path, value) = change
            .split_once('=')
            .ok_or_else(|| FieldError::new(change, "has no value; write --set FIELD=VALUE"))?;
        let steps = steps(path)?;
        let value = read_value(value, path)?;
        put(&mut tree, &steps, value, path)?;
        // A place in a list is looked up in what the changes before it made.
        tree = node_of(&merge(&VmSpec::default(), &tree)?);
        if let Some(Step::Field(outermost)) = steps.first()
            && !fields.contains(outermost)
        {
            fields.push(outermost.clone());
        }
    }
    Ok(Changed {
        spec: merge(&VmSpec::default(), &tree)?,
        fields,
    })
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Entry(usize),
}

/// `disks[0].size_mb` in steps.
fn steps(path: &str) -> Result<Vec<Step>, FieldError> {
    let wrong = || FieldError::new(path, "is no field; write vcpus, affinity.hosts or disks[0].size_mb");
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, entries) = part.split_at(part.find('[').unwrap_or(part.len()));
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(wrong());
        }
        steps.push(Step::Field(name.replace('-', "_")));
        for entry in entries.split_terminator(']') {
            let number = entry.strip_prefix('[').and_then(|number| number.parse().ok());
            steps.push(Step::Entry(number.ok_or_else(wrong)?));
        }
        if !entries.is_empty() && !entries.ends_with(']') {
            return Err(wrong());
        }
    }
    Ok(steps)
}

fn read_value(text: &str, path: &str) -> Result<Node, FieldError> {
    if text.is_empty() {
        return Ok(Node::Null);
    }
    serde_yaml_ng::from_str(text).map_err(|error| FieldError::new(path, format!("is {text:?}: {error}")))
}

/// Puts a value where the steps lead. Groups on the way are made; entries of a list have to be there.
fn put(tree: &mut Node, steps: &[Step], value: Node, path: &str) -> Result<(), FieldError> {
    let Some((step, rest)) = steps.split_first() else {
        *tree = value;
        return Ok(());
    };
    match (step, tree) {
        (Step::Field(name), tree @ (Node::Map(_) | Node::Null)) => {
            if *tree == Node::Null {
                *tree = Node::Map(Vec::new());
            }
            let Node::Map(fields) = tree else {
                return Ok(());
            };
            let index = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                fields.push((name.clone(), Node::Null));
                fields.len() - 1
            });
            put(&mut fields[index].1, rest, value, path)
        }
        (Step::Entry(index), Node::List(items)) => {
            let count = items.len();
            let item = items.get_mut(*index);
            let item =
                item.ok_or_else(|| FieldError::new(path, format!("is not there; the list has {count} entries")))?;
            put(item, rest, value, path)
        }
        (Step::Field(name), _) => Err(FieldError::new(
            path,
            format!("is not there; nothing lies under {name}"),
        )),
        (Step::Entry(_), _) => Err(FieldError::new(path, "is not there; it is no list")),
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_proto::api::{Affinity, AgentPolicy, Disk, DiskLocation, RestartPolicy, disk_location};

    use super::*;

    fn before() -> VmSpec {
        let location = disk_location::Location::Path("/x".to_owned());
        let disk = Disk {
            name: "root".to_owned(),
            size_mb: 1024,
            location: Some(DiskLocation {
                location: Some(location),
            }),
            ..Disk::default()
        };
        let affinity = Affinity {
            apart_from: vec!["db".to_owned()],
            ..Affinity::default()
        };
        VmSpec {
            name: "web".to_owned(),
            vcpus: 2,
            disks: vec![disk],
            affinity: Some(affinity),
            priority: Some(7),
            ..VmSpec::default()
        }
    }

    fn change(changes: &[&str]) -> Result<Changed, String> {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        set_all(&before(), &changes).map_err(|error| error.to_string())
    }

    #[test]
    fn changes_are_made_and_their_fields_named() {
        let changed = change(&["vcpus=4", "disks[0].size_mb=2G", "agent=none", "vcpus=8"]).unwrap();
        let mut expected = before();
        expected.vcpus = 8;
        expected.disks[0].size_mb = 2048;
        expected.set_agent(AgentPolicy::None);
        assert_eq!(
            changed,
            Changed {
                spec: expected,
                fields: ["vcpus", "disks", "agent"].map(str::to_owned).to_vec()
            }
        );
    }

    #[test]
    fn groups_are_made_and_keep_what_is_in_them() {
        let changed = change(&["affinity.hosts=[h1, h2]", "restart.tries=5", "priority="]).unwrap();
        let affinity = changed.spec.affinity.unwrap();
        assert_eq!((affinity.hosts.len(), affinity.apart_from.len()), (2, 1));
        assert_eq!(
            changed.spec.restart,
            Some(RestartPolicy {
                tries: 5,
                ..RestartPolicy::default()
            })
        );
        assert_eq!(changed.spec.priority, None);
    }

    #[test]
    fn what_cannot_be_changed_is_told_why() {
        let table = [
            ("vcpus", "vcpus has no value; write --set FIELD=VALUE"),
            ("=4", "is no field; write vcpus"),
            ("a b=4", "a b is no field"),
            ("disks[x].name=a", "disks[x].name is no field"),
            ("disks[0=a", "disks[0 is no field"),
            ("disks[1].name=a", "disks[1].name is not there; the list has 1 entries"),
            ("vcpus.count=4", "vcpus.count is not there; nothing lies under count"),
            ("vcpus[0]=4", "vcpus[0] is not there; it is no list"),
            ("vcpu=4", "vcpu is unknown; did you mean vcpus?"),
            ("vcpus=many", "vcpus is \"many\"; a number"),
            ("disks[0].size_mb=2", ""),
            ("nics=[{nam: a}]", "nics[0].nam is unknown; did you mean name?"),
        ];
        for (text, says) in table {
            match change(&[text]) {
                Err(error) => assert!(!says.is_empty() && error.contains(says), "{text}: {error}"),
                Ok(_) => assert!(says.is_empty(), "{text} was taken"),
            }
        }
    }
}
