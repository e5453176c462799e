//! What a child's cgroup tells about its end, and the second hand that holds a frozen child. These files are
//! the kernel's: no disk is waited for.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};

use crate::records::CgroupMark;

/// Remembers how many kills a folder has counted so far: it may have been used before.
pub fn mark(folder: &str) -> CgroupMark {
    CgroupMark {
        folder: folder.to_owned(),
        oom_kills_before: oom_kills(folder),
    }
}

/// Whether the kernel killed something in it for lack of memory since the mark was made.
pub fn ran_out_of_memory(mark: &CgroupMark) -> bool {
    oom_kills(&mark.folder) > mark.oom_kills_before
}

/// Freezes all that is in it, or lets it go. `false` where the host does not offer or permit that, which is no
/// error: SIGSTOP is what counts.
pub fn set_frozen(mark: &CgroupMark, frozen: bool) -> io::Result<bool> {
    // Not created: in a folder that is gone nothing must appear.
    let file = OpenOptions::new()
        .write(true)
        .open(format!("{}/cgroup.freeze", mark.folder));
    match file.and_then(|mut file| file.write_all(if frozen { b"1" } else { b"0" })) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(false),
        // What is read-only was never frozen by us either.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes it if nothing is left in it; another use of the folder is none of our business.
pub fn remove_if_empty(mark: &CgroupMark) {
    let _ = fs::remove_dir(&mark.folder);
}

fn oom_kills(folder: &str) -> u64 {
    fs::read_to_string(format!("{folder}/memory.events")).map_or(0, |events| parse_oom_kills(&events))
}

fn parse_oom_kills(events: &str) -> u64 {
    let value = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_and_nothing_else_is() {
        for (events, kills) in [
            ("low 0\nhigh 3\nmax 41\noom 2\noom_kill 1\noom_group_kill 7\n", 1),
            ("oom_kill 12", 12),
            ("oom_group_kill 7\n", 0),
            ("oom_kill x\n", 0),
            ("", 0),
        ] {
            assert_eq!(parse_oom_kills(events), kills, "{events:?}");
        }
    }

    #[test]
    fn where_nothing_can_be_frozen_nothing_appears() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = mark(folder.path().to_str().expect("a plain path"));
        assert!(!set_frozen(&mark, true).expect("no error"));
        assert_eq!(fs::read_dir(folder.path()).expect("a look").count(), 0);
        let file = folder.path().join("cgroup.freeze");
        fs::write(&file, "").expect("written");
        assert!(set_frozen(&mark, true).expect("written"));
        assert_eq!(fs::read(&file).expect("a look"), b"1");
    }

    #[test]
    fn only_kills_after_the_mark_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a plain path");
        let events = folder.path().join("memory.events");
        fs::write(&events, "oom_kill 1\n").expect("written");
        let mark = mark(path);
        assert!(!ran_out_of_memory(&mark));
        fs::write(&events, "oom_kill 2\n").expect("written");
        assert!(ran_out_of_memory(&mark));
    }
}
