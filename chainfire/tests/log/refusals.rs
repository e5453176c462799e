//! What is refused, with which reason, and that nothing is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chainfire::log::{FailureKind, MAX_ENTRY_BYTES, OpenError, Rollback};
use chainfire::raft::types::Ballot;
use openraft::storage::RaftLogStorage;

use crate::damage::{copy_site, files_of};
use crate::site::{Site, all_entries, append, entry, log_id, sized_entry};

fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_of(root)
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let store = site.open().unwrap();
    let error = site.open().unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(store);
    site.open().unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused_and_nothing_is_changed() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    append(&mut site.open().unwrap(), vec![entry(1, 0)]).await.unwrap();
    fs::write(site.folder().join("FORMAT"), "chainfire-log 2\n").unwrap();
    let before = contents(root.path());
    let error = site.open().unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(contents(root.path()), before);
}

#[tokio::test]
async fn a_format_that_cannot_be_read_or_is_missing_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    append(&mut site.open().unwrap(), vec![entry(1, 0)]).await.unwrap();
    let format = site.folder().join("FORMAT");
    for content in [
        "",
        "chainfire-log 1",
        "chainfire-log \n",
        "chainfire-log 0\n",
        "chainfire-log -1\n",
    ] {
        fs::write(&format, content).unwrap();
        let error = site.open().unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{content:?}: {error}");
    }
    fs::remove_file(&format).unwrap();
    let error = site.open().unwrap_err();
    assert!(error.to_string().contains("chunks but no FORMAT"), "{error}");
}

/// The evidence with which a log is refused as older than it was.
fn rollback(site: &Site) -> Rollback {
    match site.open().unwrap_err() {
        OpenError::RolledBack { evidence, .. } => evidence,
        other => panic!("refused for another reason: {other}"),
    }
}

#[tokio::test]
async fn a_log_restored_from_an_old_copy_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(&root.path().join("member"));
    let copy = Site::new(&root.path().join("copy"));
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 0), entry(1, 1)]).await.unwrap();
    drop(store);
    copy_site(&site.root, &copy.root);

    let restore = || {
        fs::remove_dir_all(site.folder()).unwrap();
        copy_site(&copy.folder(), &site.folder());
    };
    // An entry less.
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 2)]).await.unwrap();
    drop(store);
    restore();
    let Rollback::Regressed { what, .. } = rollback(&site) else {
        panic!()
    };
    assert_eq!(what, "its last entry");

    // No entry less, but a vote.
    fs::remove_dir_all(&site.root).unwrap();
    copy_site(&copy.root, &site.root);
    let mut store = site.open().unwrap();
    store.save_vote(&Ballot::new(4, 2)).await.unwrap();
    drop(store);
    restore();
    let Rollback::Regressed { what, .. } = rollback(&site) else {
        panic!()
    };
    assert_eq!(what, "its ballot");
}

#[tokio::test]
async fn an_emptied_folder_is_not_taken_for_a_new_one() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    drop(store);
    fs::remove_dir_all(site.folder()).unwrap();
    assert!(matches!(
        rollback(&site),
        Rollback::Regressed {
            what: "its last entry",
            ..
        }
    ));
}

#[tokio::test]
async fn a_lost_watermark_is_refused_unless_the_log_is_new() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    drop(site.open().unwrap());
    fs::remove_file(site.watermark()).unwrap();
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    drop(store);
    let kept = fs::read(site.watermark()).unwrap();
    fs::remove_file(site.watermark()).unwrap();
    assert_eq!(rollback(&site), Rollback::WatermarkMissing);
    fs::write(site.watermark(), [0; 8192]).unwrap();
    assert_eq!(rollback(&site), Rollback::WatermarkUnreadable);
    fs::write(site.watermark(), kept).unwrap();
    assert_eq!(all_entries(&mut site.open().unwrap()).await, [entry(1, 0)]);
}

#[tokio::test]
async fn a_crash_between_lowering_and_truncating_is_no_rollback() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(&root.path().join("member"));
    let before = Site::new(&root.path().join("before"));
    let mut store = site.open().unwrap();
    append(&mut store, (0..10).map(|index| entry(1, index)).collect())
        .await
        .unwrap();
    copy_site(&site.root, &before.root);
    store.truncate(log_id(1, 4)).await.unwrap();
    // The watermark of after, the log of before: what a crash in between leaves.
    fs::copy(site.watermark(), before.watermark()).unwrap();
    let mut store = before.open().unwrap();
    assert_eq!(all_entries(&mut store).await.len(), 10);
}

#[tokio::test]
async fn after_a_truncation_no_slot_of_the_watermark_promises_what_is_gone() {
    const SLOT_STRIDE: usize = 4096;
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open().unwrap();
    append(&mut store, (0..10).map(|index| entry(1, index)).collect())
        .await
        .unwrap();
    store.truncate(log_id(1, 4)).await.unwrap();
    drop(store);
    let whole = fs::read(site.watermark()).unwrap();
    for slot in 0..2 {
        let mut torn = whole.clone();
        torn[slot * SLOT_STRIDE..][..SLOT_STRIDE].fill(0);
        fs::write(site.watermark(), torn).unwrap();
        assert_eq!(all_entries(&mut site.open().unwrap()).await.len(), 4);
    }
}

#[tokio::test]
async fn an_entry_above_the_limit_is_refused_before_it_is_written() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open().unwrap();
    append(&mut store, vec![sized_entry(1, 0, MAX_ENTRY_BYTES)])
        .await
        .unwrap();
    let before = store.bytes_on_disk();
    let error = append(&mut store, vec![sized_entry(1, 1, MAX_ENTRY_BYTES + 1)])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("4194305 bytes"), "{error}");
    assert_eq!(store.bytes_on_disk(), before);
    assert_eq!(store.last_failure().unwrap().kind, FailureKind::TooLarge);
    // The node stops here; nothing may be written behind its back.
    assert!(append(&mut store, vec![entry(1, 1)]).await.is_err());
    drop(store);
    let mut store = site.open().unwrap();
    assert_eq!(all_entries(&mut store).await.len(), 1);
    append(&mut store, vec![entry(1, 1)]).await.unwrap();
}

#[tokio::test]
async fn orders_that_contradict_the_log_stop_it() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    assert!(append(&mut store, vec![entry(1, 5)]).await.is_err());
    assert_eq!(store.last_failure().unwrap().kind, FailureKind::Io);
    drop(store);
    assert_eq!(all_entries(&mut site.open().unwrap()).await, [entry(1, 0)]);
}
