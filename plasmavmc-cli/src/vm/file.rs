//! Specifications in files: JSON or YAML, which is read alike.

use std::io::Read;
use std::path::Path;

use crate::failure::Failure;
use crate::fields::{Described, Node, merge};

/// No specification comes near it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a file says, over what is there.
pub fn read_over<M: Described>(message: &M, path: &Path) -> Result<M, Failure> {
    let text = read(path)?;
    let wrong = |problem: String| Failure::Usage(format!("{}: {problem}", path.display()));
    let node = parse(&text).map_err(wrong)?;
    merge(message, &unwrap_vm(node)).map_err(|error| wrong(error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    let doing = || format!("read {}", path.display());
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(|error| Failure::io(doing(), error))?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
    };
    read.map_err(|error| Failure::io(doing(), error))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::Usage(format!(
            "{} has more than 1 MiB: that is no specification",
            path.display()
        )));
    }
    Ok(text)
}

/// JSON is read as such where it looks like it, since its messages are better; YAML has braces too, but no need of
/// quotes. Both name the line.
fn parse(text: &str) -> Result<Node, String> {
    let start = text.trim_start();
    if start.is_empty() {
        return Err("is empty".to_owned());
    }
    if start
        .strip_prefix('{')
        .is_some_and(|inner| inner.trim_start().starts_with('"'))
    {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

/// `plasmavmc vm get VM -o yaml` prints a VM, whose specification is what is meant.
fn unwrap_vm(node: Node) -> Node {
    let is_vm = node.get("state").is_some() && node.get("incarnation").is_some();
    match node.get("spec") {
        Some(spec) if is_vm => spec.clone(),
        _ => node,
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_proto::api::{CreateVmRequest, Vm, VmSpec};

    use super::*;
    use crate::fields::node_of;

    fn check(text: &str) -> Result<CreateVmRequest, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.yaml");
        std::fs::write(&path, text).unwrap();
        read_over(&CreateVmRequest::default(), &path).map_err(|failure| failure.to_string())
    }

    #[test]
    fn json_and_yaml_are_read_alike() {
        let expected = CreateVmRequest {
            name: "web".to_owned(),
            vcpus: 2,
            vmid: 101,
            ..CreateVmRequest::default()
        };
        for text in [
            "name: web\nvcpus: 2\nvmid: 101\n",
            "{\"name\": \"web\", \"vcpus\": 2, \"vmid\": 101}",
            "{name: web, vcpus: 2, vmid: 101}",
        ] {
            assert_eq!(check(text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn what_get_prints_makes_the_same_vm_again() {
        let spec = VmSpec {
            name: "web".to_owned(),
            vcpus: 2,
            memory_mb: 512,
            ..VmSpec::default()
        };
        let vm = Vm {
            spec: Some(spec),
            state: 3,
            pid: 7,
            ..Vm::default()
        };
        let made = check(&serde_yaml_ng::to_string(&node_of(&vm)).unwrap()).unwrap();
        assert_eq!((made.name.as_str(), made.vcpus, made.memory_mb), ("web", 2, 512));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file_and_the_place() {
        let table = [
            ("", "is empty"),
            ("vcpus: 2\nvcpus: 3\n", "vcpus is given twice"),
            ("vcpus: [\n", "line"),
            ("{\"vcpus\": }", "line 1 column"),
            ("web", "is \"web\"; a group of fields is needed"),
            ("vcpu: 2", "vcpu is unknown; did you mean vcpus?"),
        ];
        for (text, says) in table {
            let error = check(text).unwrap_err();
            assert!(error.contains("web.yaml: ") && error.contains(says), "{text}: {error}");
        }
        let missing = read_over(&VmSpec::default(), Path::new("/nowhere/web.yaml"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("cannot read /nowhere/web.yaml"), "{missing}");
    }
}
