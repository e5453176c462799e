//! What was found out since this host booted.
//!
//! A trial costs up to two seconds and its outcome changes only with the host, the boot, QEMU, the board or
//! the CPU model: all of that is the key. Whoever repairs KVM without a reboot removes the file. A file that
//! cannot be read or written costs a trial and must never cost more.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decision::Outcome;

/// Boards and CPU models of one host are few; beyond this the oldest entry goes.
const MAX_ENTRIES: usize = 64;
/// A file of ours is never larger; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What an outcome depends on, besides the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    program: PathBuf,
    /// Device, inode, size and time of change in nanoseconds: another QEMU at the same path differs.
    identity: (u64, u64, u64, i128),
    machine: String,
    cpu: String,
}

impl Key {
    /// `None` if the program cannot be found, which the trial then says properly.
    pub fn of(program: &Path, machine: &str, cpu: &str) -> Option<Self> {
        let program = on_search_path(program)?;
        let file = std::fs::metadata(&program).ok()?;
        let changed_ns = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
        Some(Self {
            identity: (file.dev(), file.ino(), file.size(), changed_ns),
            program,
            machine: machine.to_owned(),
            cpu: cpu.to_owned(),
        })
    }
}

/// A bare name is looked up as the system does when it starts the program.
fn on_search_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Identifies this boot of this host.
pub fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    boot_id: String,
    entries: Vec<(Key, Outcome)>,
}

/// The outcome in `file` for this key, if it is of this boot.
pub fn recall(file: &Path, boot_id: &str, key: &Key) -> Option<Outcome> {
    let content = load(file, boot_id)?;
    let (_, outcome) = content.entries.into_iter().rfind(|(known, _)| known == key)?;
    Some(outcome)
}

/// Adds an outcome to `file`, and drops those of an earlier boot.
pub fn remember(file: &Path, boot_id: &str, key: Key, outcome: Outcome) -> std::io::Result<()> {
    let mut content = load(file, boot_id).unwrap_or(Content {
        boot_id: boot_id.to_owned(),
        entries: Vec::new(),
    });
    content.entries.retain(|(known, _)| *known != key);
    content.entries.push((key, outcome));
    let surplus = content.entries.len().saturating_sub(MAX_ENTRIES);
    content.entries.drain(..surplus);
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Whole or not at all, whoever reads it meanwhile.
    let mut whole = tempfile::NamedTempFile::new_in(folder)?;
    whole.write_all(&serde_json::to_vec(&content)?)?;
    whole.persist(file)?;
    Ok(())
}

fn load(file: &Path, boot_id: &str) -> Option<Content> {
    if std::fs::metadata(file).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let content: Content = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (content.boot_id == boot_id).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(folder: &Path, cpu: &str) -> Key {
        Key::of(&folder.join("qemu"), "q35", cpu).unwrap()
    }

    fn folder_with_a_program() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("qemu"), "one").unwrap();
        folder
    }

    #[test]
    fn an_outcome_is_recalled_for_its_key_and_boot_only() {
        let folder = folder_with_a_program();
        let file = folder.path().join("deep/accel.json");
        remember(&file, "boot-1", key(folder.path(), "max"), Outcome::Reset).unwrap();
        remember(&file, "boot-1", key(folder.path(), "host"), Outcome::Ran).unwrap();
        assert_eq!(
            recall(&file, "boot-1", &key(folder.path(), "max")),
            Some(Outcome::Reset)
        );
        assert_eq!(recall(&file, "boot-1", &key(folder.path(), "host")), Some(Outcome::Ran));
        assert_eq!(recall(&file, "boot-1", &key(folder.path(), "qemu64")), None);
        assert_eq!(recall(&file, "boot-2", &key(folder.path(), "host")), None);
        std::fs::write(folder.path().join("qemu"), "another").unwrap();
        assert_eq!(recall(&file, "boot-1", &key(folder.path(), "host")), None);
    }

    #[test]
    fn a_spoilt_file_is_no_answer_and_is_replaced() {
        let folder = folder_with_a_program();
        let file = folder.path().join("accel.json");
        for spoilt in [&b"{\"boot_id\":"[..], b"", b"\xff\xff", b"[]"] {
            std::fs::write(&file, spoilt).unwrap();
            assert_eq!(recall(&file, "boot", &key(folder.path(), "max")), None);
            remember(&file, "boot", key(folder.path(), "max"), Outcome::Ran).unwrap();
            assert_eq!(recall(&file, "boot", &key(folder.path(), "max")), Some(Outcome::Ran));
        }
    }

    #[test]
    fn the_file_is_bounded_and_forgets_the_oldest() {
        let folder = folder_with_a_program();
        let file = folder.path().join("accel.json");
        for number in 0..=MAX_ENTRIES {
            remember(&file, "boot", key(folder.path(), &number.to_string()), Outcome::Ran).unwrap();
        }
        assert_eq!(recall(&file, "boot", &key(folder.path(), "0")), None);
        assert!(recall(&file, "boot", &key(folder.path(), "1")).is_some());
    }
}
