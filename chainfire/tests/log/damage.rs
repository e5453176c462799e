//! Flipped bits and cut files: refused with a reason, or exactly what was written. Nothing in between.

use std::fs;
use std::path::{Path, PathBuf};

use chainfire::log::OpenError;
use chainfire::raft::types::{Ballot, Entry};
use openraft::LogState;
use openraft::storage::RaftLogStorage;

use crate::site::{Dice, Site, all_entries, append, entry, log_id};

const FLIPS: usize = 500;
const CUTS: usize = 400;

/// What a log was when it was closed.
#[derive(Debug, PartialEq)]
struct Content {
    state: LogState<chainfire::raft::types::TypeConfig>,
    ballot: Option<Ballot>,
    entries: Vec<Entry>,
}

async fn content(store: &mut chainfire::log::LogStore) -> Content {
    Content {
        state: store.get_log_state().await.unwrap(),
        ballot: store.read_vote().await.unwrap(),
        entries: all_entries(store).await,
    }
}

/// How the life of a log ended: what its last record is.
#[derive(Debug, Clone, Copy)]
enum LastRecord {
    Entry,
    Ballot,
    Purge,
    Truncation,
    Committed,
}

/// Writes a log and answers with what may be found in it.
async fn build(site: &Site, last: LastRecord) -> Vec<Content> {
    let mut store = site.open_with_small_chunks().unwrap();
    store.save_vote(&Ballot::new_committed(1, 7)).await.unwrap();
    for index in 0..60 {
        append(&mut store, vec![entry(1, index)]).await.unwrap();
    }
    store.save_committed(Some(log_id(1, 30))).await.unwrap();
    store.truncate(log_id(1, 50)).await.unwrap();
    store.purge(log_id(1, 10)).await.unwrap();
    store.save_vote(&Ballot::new_committed(2, 7)).await.unwrap();
    for index in 50..90 {
        append(&mut store, vec![entry(2, index)]).await.unwrap();
    }
    match last {
        LastRecord::Entry => {}
        LastRecord::Ballot => store.save_vote(&Ballot::new(3, 2)).await.unwrap(),
        LastRecord::Purge => store.purge(log_id(1, 45)).await.unwrap(),
        LastRecord::Truncation => {}
        LastRecord::Committed => store.save_committed(Some(log_id(2, 88))).await.unwrap(),
    }
    let mut right = vec![content(&mut store).await];
    // A truncation is followed by other entries before anyone hears of it. As the last record it may be
    // undone: the entries that come back were never taken back towards anyone.
    if matches!(last, LastRecord::Truncation) {
        for from in [89, 88] {
            store.truncate(log_id(2, from)).await.unwrap();
            right.push(content(&mut store).await);
        }
    }
    store.close();
    right
}

pub fn files_of(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_of(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

pub fn copy_site(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    for file in files_of(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

#[derive(Debug, Default)]
struct Tally {
    unharmed: usize,
    damaged: usize,
    rolled_back: usize,
}

/// Damages a copy and opens it.
struct Bench {
    original: Site,
    copy: Site,
    right: Vec<Content>,
    tally: Tally,
    _root: tempfile::TempDir,
}

impl Bench {
    async fn new(last: LastRecord) -> Self {
        // In memory where there is such a folder: nothing here is about syncs, and there are thousands.
        let root = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let original = Site::new(&root.path().join("original"));
        let right = build(&original, last).await;
        Self {
            copy: Site::new(&root.path().join("copy")),
            original,
            right,
            tally: Tally::default(),
            _root: root,
        }
    }

    /// A file that has bytes: half of the time any, half of the time where most bytes are.
    fn any_file(&self, dice: &mut Dice) -> (PathBuf, u64) {
        let files: Vec<(PathBuf, u64)> = files_of(&self.original.root)
            .into_iter()
            .map(|path| (path.clone(), fs::metadata(path).unwrap().len()))
            .filter(|(_, length)| *length > 0)
            .collect();
        if dice.below(2) == 0 {
            return files[dice.below(files.len() as u64) as usize].clone();
        }
        let mut at = dice.below(files.iter().map(|(_, length)| length).sum());
        for (path, length) in files {
            if at < length {
                return (path, length);
            }
            at -= length;
        }
        unreachable!("the sum of all lengths is above every draw")
    }

    async fn judge(&mut self, file: &Path, damage: impl FnOnce(&mut Vec<u8>), case: &str) {
        copy_site(&self.original.root, &self.copy.root);
        let target = self.copy.root.join(file.strip_prefix(&self.original.root).unwrap());
        let mut bytes = fs::read(&target).unwrap();
        damage(&mut bytes);
        fs::write(&target, bytes).unwrap();
        match self.copy.open_with_small_chunks() {
            Ok(mut store) => {
                let found = content(&mut store).await;
                assert!(
                    self.right.contains(&found),
                    "{case} in {}: a wrong answer",
                    file.display()
                );
                self.tally.unharmed += 1;
            }
            Err(OpenError::RolledBack { .. }) => self.tally.rolled_back += 1,
            Err(OpenError::Corrupt { detail, .. }) if !detail.is_empty() => self.tally.damaged += 1,
            Err(OpenError::NewerFormat { .. }) if file.ends_with("FORMAT") => self.tally.damaged += 1,
            Err(other) => panic!("{case} in {}: an unfit reason: {other}", file.display()),
        }
    }
}

#[tokio::test]
async fn flipped_bits_never_give_a_wrong_answer() {
    let mut bench = Bench::new(LastRecord::Entry).await;
    let mut dice = Dice::new(20);
    for case in 0..FLIPS {
        let (file, length) = bench.any_file(&mut dice);
        let (at, bit) = (dice.below(length) as usize, dice.below(8));
        let name = format!("flip {case}, bit {bit} of byte {at}");
        bench.judge(&file, |bytes| bytes[at] ^= 1 << bit, &name).await;
    }
    println!("flips: {:?}", bench.tally);
    assert!(bench.tally.unharmed > 0 && bench.tally.damaged > FLIPS / 2);
    // A flipped bit is seen where it is; only what was cut off needs the watermark.
    assert_eq!(bench.tally.rolled_back, 0);
}

#[tokio::test]
async fn cut_files_never_give_a_wrong_answer() {
    let mut bench = Bench::new(LastRecord::Ballot).await;
    let mut dice = Dice::new(21);
    for case in 0..CUTS {
        let (file, length) = bench.any_file(&mut dice);
        let kept = dice.below(length) as usize;
        bench
            .judge(&file, |bytes| bytes.truncate(kept), &format!("cut {case} to {kept}"))
            .await;
    }
    println!("cuts: {:?}", bench.tally);
    assert!(bench.tally.damaged > 0 && bench.tally.rolled_back > 0);
}

/// The end is where the log beneath forgives: every bit and every cut of it, for every kind of last record.
#[tokio::test]
async fn no_bit_of_the_last_records_can_be_flipped_or_cut_unnoticed() {
    const END_BYTES: usize = 44;
    for last in [
        LastRecord::Entry,
        LastRecord::Ballot,
        LastRecord::Purge,
        LastRecord::Truncation,
        LastRecord::Committed,
    ] {
        let mut bench = Bench::new(last).await;
        let chunks = files_of(&bench.original.folder().join("chunks"));
        let newest = chunks
            .iter()
            .rfind(|path| path.extension().is_some_and(|kind| kind == "wal"));
        let newest = newest.unwrap().clone();
        let length = fs::metadata(&newest).unwrap().len() as usize;
        for at in length.saturating_sub(END_BYTES)..length {
            for bit in 0..8 {
                let name = format!("{last:?}: bit {bit} of byte {at} of {length}");
                bench.judge(&newest, |bytes| bytes[at] ^= 1 << bit, &name).await;
            }
            // The note of what is committed is only a hint: cut off, it is gone.
            bench
                .judge(
                    &newest,
                    |bytes| bytes.truncate(at),
                    &format!("{last:?}: cut to {at} of {length}"),
                )
                .await;
        }
        println!("last record {last:?}: {:?}", bench.tally);
        assert!(bench.tally.damaged >= END_BYTES * 8 && bench.tally.rolled_back <= END_BYTES);
    }
}
