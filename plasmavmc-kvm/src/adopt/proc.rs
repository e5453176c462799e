//! Processes with a VM's id in their command line, that work in a runtime folder of this host.
//!
//! Several hosts may share a machine, each with a folder of its own; what runs in another's is none of ours.

use std::collections::BTreeMap;
use std::path::Path;

use plasmavmc_types::VmId;

use crate::argv::vm_id_of;

/// Longer command lines are none of QEMU's.
const MAX_COMMAND_LINE_BYTES: u64 = 1 << 20;

/// The processes of each VM below `vms`, whoever started them.
pub fn qemus(proc: &Path, vms: &Path) -> BTreeMap<VmId, Vec<i32>> {
    let mut found = BTreeMap::<VmId, Vec<i32>>::new();
    let Ok(entries) = std::fs::read_dir(proc) else {
        return found;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // One whose folder cannot be told is counted: better one too many.
        let elsewhere = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| !folder.starts_with(vms));
        if elsewhere {
            continue;
        }
        if let Some(vm) = read_command_line(&entry.path().join("cmdline")).and_then(|line| vm_id_of(&line)) {
            found.entry(vm).or_default().push(pid);
        }
    }
    found
}

/// None if the process has gone meanwhile, or is not a QEMU by its name.
fn read_command_line(path: &Path) -> Option<Vec<String>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_COMMAND_LINE_BYTES).read_to_end(&mut bytes).ok()?;
    let mut words = bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned());
    let program = words.next()?;
    let name = Path::new(&program).file_name()?.to_str()?;
    name.starts_with("qemu-system-").then(|| words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_qemu_with_our_mark_and_of_this_host_counts() {
        let proc = tempfile::tempdir().unwrap();
        let id = "0b4a2a0c-9a3e-4e2b-9d52-5d6c3e0b7a11";
        let name = format!("guest=plasmavmc/{id}/web");
        let process = |pid: &str, cwd: &str, words: &[&str]| {
            let folder = proc.path().join(pid);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cmdline"), words.join("\0")).unwrap();
            std::os::unix::fs::symlink(cwd, folder.join("cwd")).unwrap();
        };
        let ours = ["/usr/bin/qemu-system-x86_64", "-name", &name, "-uuid", id];
        process("100", "/run/vms/a", &ours);
        process("101", "/run/vms/b", &["/usr/bin/qemu-system-x86_64", "-m", "64"]);
        process("102", "/run/vms/a", &["grep", "-name", &name, "-uuid", id]);
        process("104", "/other/vms/a", &ours);
        process("self", "/run/vms/a", &ours);
        std::fs::create_dir(proc.path().join("103")).unwrap();
        let found = qemus(proc.path(), Path::new("/run/vms"));
        assert_eq!(found, BTreeMap::from([(id.parse().unwrap(), vec![100])]));
    }
}
