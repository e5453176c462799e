//! What openraft asks of a log, and what it finds after a reopen.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use chainfire::log::{LogOptions, LogStore};
use chainfire::raft::types::{Ballot, Entry, Membership, Peer};
use futures::future::{join, join_all};
use openraft::storage::RaftLogStorage;
use openraft::{EntryPayload, LogState, RaftLogReader};

use crate::site::{Site, all_entries, append, entry, log_id, sized_entry};

#[tokio::test]
async fn what_was_written_is_there_after_a_reopen() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let membership = Membership::new(
        vec![[1, 2].into(), [2, 3].into()],
        (1..5)
            .map(|id| {
                let peer = Peer {
                    name: format!("n{id}"),
                    address: format!("host{id}:50052"),
                };
                (id, peer)
            })
            .collect::<std::collections::BTreeMap<_, _>>(),
    );
    let special = [EntryPayload::Blank, EntryPayload::Membership(membership)];
    let mut entries: Vec<Entry> = (0..)
        .zip(special)
        .map(|(index, payload)| Entry {
            log_id: log_id(1, index),
            payload,
        })
        .collect();
    entries.extend((2..300).map(|index| entry(1, index)));

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(store.boot_epoch(), 1);
    store.save_vote(&Ballot::new(1, 7)).await.unwrap();
    store.save_vote(&Ballot::new_committed(1, 7)).await.unwrap();
    for few in entries.chunks(7) {
        append(&mut store, few.to_vec()).await.unwrap();
    }
    store.save_committed(Some(log_id(1, 250))).await.unwrap();
    // What the log does not have cannot be noted, and is no error.
    store.save_committed(Some(log_id(1, 999))).await.unwrap();
    assert_eq!(all_entries(&mut store).await, entries);
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(store.boot_epoch(), 2);
    assert_eq!(all_entries(&mut store).await, entries);
    assert_eq!(store.read_vote().await.unwrap(), Some(Ballot::new_committed(1, 7)));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 250)));
    assert_eq!(store.try_get_log_entries(5..=6).await.unwrap(), entries[5..=6]);
    assert_eq!(store.try_get_log_entries(298..400).await.unwrap(), entries[298..]);
    assert_eq!(store.limited_get_log_entries(9, 9).await.unwrap(), []);
}

#[tokio::test]
async fn truncated_entries_stay_away() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open_with_small_chunks().unwrap();
    let first: Vec<Entry> = (0..100).map(|index| entry(1, index)).collect();
    append(&mut store, first.clone()).await.unwrap();
    store.truncate(log_id(1, 40)).await.unwrap();
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(all_entries(&mut store).await, first[..40]);
    let second: Vec<Entry> = (40..60).map(|index| entry(2, index)).collect();
    append(&mut store, second.clone()).await.unwrap();
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(all_entries(&mut store).await, [&first[..40], &second[..]].concat());
    store.truncate(log_id(1, 0)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, None);
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(all_entries(&mut store).await, []);
}

#[tokio::test]
async fn purging_frees_the_disk_and_is_remembered() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open_with_small_chunks().unwrap();
    let entries: Vec<Entry> = (0..200).map(|index| sized_entry(1, index, 500)).collect();
    append(&mut store, entries.clone()).await.unwrap();
    let before = store.bytes_on_disk();
    store.purge(log_id(1, 149)).await.unwrap();
    assert!(store.bytes_on_disk() < before / 2);
    assert_eq!(all_entries(&mut store).await, entries[150..]);
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    let state = LogState {
        last_purged_log_id: Some(log_id(1, 149)),
        last_log_id: Some(log_id(1, 199)),
    };
    assert_eq!(store.get_log_state().await.unwrap(), state);
    assert_eq!(all_entries(&mut store).await, entries[150..]);
    // Truncating down to what was purged keeps the purged position as the last.
    store.truncate(log_id(1, 150)).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 149)));
    // A snapshot from a leader may be ahead of all that is here.
    store.purge(log_id(3, 5000)).await.unwrap();
    append(&mut store, vec![entry(3, 5001)]).await.unwrap();
    drop(store);

    let mut store = site.open_with_small_chunks().unwrap();
    assert_eq!(
        store.get_log_state().await.unwrap().last_purged_log_id,
        Some(log_id(3, 5000))
    );
    assert_eq!(all_entries(&mut store).await, [entry(3, 5001)]);
}

#[tokio::test]
async fn replication_reads_stay_small_but_never_empty() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Site::new(root.path()).open().unwrap();
    let entries: Vec<Entry> = (0..8).map(|index| sized_entry(1, index, 300_000)).collect();
    append(&mut store, entries.clone()).await.unwrap();
    append(&mut store, vec![sized_entry(1, 8, 2_000_000)]).await.unwrap();
    let limited = store.limited_get_log_entries(0, 9).await.unwrap();
    assert_eq!(limited, entries[..3]);
    assert_eq!(store.limited_get_log_entries(8, 9).await.unwrap().len(), 1);
    assert_eq!(all_entries(&mut store).await.len(), 9);
}

#[tokio::test]
async fn appends_that_wait_share_one_sync() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let syncs = Arc::new(AtomicUsize::new(0));
    let (release, released) = mpsc::sync_channel::<()>(1);
    let released = Mutex::new(released);
    let counted = Arc::clone(&syncs);
    let store = LogStore::open(LogOptions {
        // The first sync does not end before all appends were made.
        observe_sync: Arc::new(move |_| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                released.lock().unwrap().recv().unwrap();
            }
        }),
        ..site.options()
    })
    .unwrap();
    let appends = (0..50).map(|index| {
        let mut store = store.clone();
        async move { append(&mut store, vec![entry(1, index)]).await }
    });
    let (results, ()) = join(join_all(appends), async { release.send(()).unwrap() }).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_closed_log_answers_with_errors_and_can_be_opened_beside_its_handles() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut store = site.open().unwrap();
    append(&mut store, vec![entry(1, 0)]).await.unwrap();
    let mut reader = store.get_log_reader().await;
    store.close();
    let mut again = site.open().unwrap();
    assert!(reader.try_get_log_entries(..).await.is_err());
    assert!(append(&mut store, vec![entry(1, 1)]).await.is_err());
    assert!(store.save_vote(&Ballot::new(2, 7)).await.is_err());
    append(&mut again, vec![entry(1, 1)]).await.unwrap();
    drop((store, reader));
    assert_eq!(all_entries(&mut again).await, [entry(1, 0), entry(1, 1)]);
}
