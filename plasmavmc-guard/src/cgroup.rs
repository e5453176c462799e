//! What a child's cgroup tells about its end. These files are made by the kernel on reading: nothing waits.

use std::fs;

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
