//! Bridges that VMs could be plugged into.

use std::path::Path;

use super::{Finding, Verdict};

pub fn findings() -> Vec<Finding> {
    vec![bridges(Path::new("/sys/class/net"))]
}

fn bridges(devices: &Path) -> Finding {
    let names = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let names = names.filter(|entry| entry.path().join("bridge").is_dir());
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    if names.is_empty() {
        return Finding::new(
            "bridges",
            Verdict::Note,
            "none: VMs reach the outside with `--nic user` only, and nobody \
                            reaches them",
        )
        .with("ip link add br0 type bridge, and plug the host's card into it");
    }
    Finding::good("bridges", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_found_among_the_devices() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(bridges(dir.path()).verdict, Verdict::Note);
        for folder in ["lo", "br1/bridge", "br0/bridge"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        assert_eq!(bridges(dir.path()).says, "br0, br1");
    }
}
