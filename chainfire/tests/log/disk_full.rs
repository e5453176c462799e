//! No more room in the middle of a write: it says so, and after a reopen goes on from what was durable.
//!
//! A limit on the size of files stands in for a full disk: a write is cut short by it just the same, and
//! it needs no privileges. The limit raises a signal that only a shell can have ignored for us.

use std::process::Command;

use chainfire::log::{FailureKind, LogOptions, LogStore};
use openraft::storage::RaftLogStorage;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::site::{Site, all_entries, append, sized_entry};

const SITE_VARIABLE: &str = "CHAINFIRE_TEST_FULL_SITE";
const CHUNK_VARIABLE: &str = "CHAINFIRE_TEST_CHUNK_BYTES";
const ROOM_BYTES: u64 = 1_000_000;
const TIMES: usize = 5;

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limits = Rlimit {
        current: bytes,
        maximum,
    };
    setrlimit(Resource::Fsize, limits).unwrap();
}

/// Not a test: the process whose files may not grow.
#[tokio::test]
async fn writer() {
    let Some(root) = std::env::var_os(SITE_VARIABLE) else {
        return;
    };
    let site = Site::new(root.as_ref());
    let options = LogOptions {
        chunk_bytes: std::env::var(CHUNK_VARIABLE).unwrap().parse().unwrap(),
        ..site.options()
    };
    let mut written = Vec::new();
    for _ in 0..TIMES {
        let mut store = LogStore::open(options.clone()).unwrap();
        assert_eq!(all_entries(&mut store).await, written);
        limit_files(Some(ROOM_BYTES));
        loop {
            let entry = sized_entry(1, written.len() as u64, 10_007);
            match append(&mut store, vec![entry.clone()]).await {
                Ok(()) => written.push(entry),
                Err(_) => break,
            }
        }
        let failure = store.last_failure().unwrap();
        assert_eq!(failure.kind, FailureKind::DiskFull, "{failure}");
        assert!(store.save_committed(None).await.is_ok());
        // Still read, while nothing can be written.
        assert_eq!(all_entries(&mut store).await[..written.len()], written);
        limit_files(None);
        assert!(
            append(&mut store, vec![sized_entry(1, written.len() as u64, 1)])
                .await
                .is_err()
        );
        store.close();
    }
    assert_eq!(all_entries(&mut site.open().unwrap()).await, written);
    println!("{} entries survived {TIMES} full disks", written.len());
}

fn fill_disk(chunk_bytes: u64) {
    let root = tempfile::tempdir().unwrap();
    let status = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["disk_full::writer", "--exact", "--nocapture"])
        .env(SITE_VARIABLE, root.path())
        .env(CHUNK_VARIABLE, chunk_bytes.to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    fill_disk(8 * ROOM_BYTES);
}

/// The write that fails is then one that nobody waits for.
#[test]
fn a_disk_that_is_full_when_a_chunk_ends_is_told_from_other_failures() {
    fill_disk(ROOM_BYTES - 100);
}
