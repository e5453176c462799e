use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::row::{Digest, Head, Row};
use super::block::Packer;
use super::tree::{Change, Tree, open_database};
use super::{Base, BaseError, RowChange};
use crate::proto;

/// A base, and what should be in it.
struct Site {
    folder: tempfile::TempDir,
    base: Option<Base>,
    rows: BTreeMap<Bytes, Row>,
    revision: u64,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::create(folder.path()).unwrap();
        let mut site = Self {
            folder,
            base: Some(base),
            rows: BTreeMap::new(),
            revision: 0,
        };
        // The record is there from now on.
        site.step([]);
        site
    }

    fn base(&self) -> &Base {
        self.base.as_ref().unwrap()
    }

    /// Stores one step: each key with a value of this length, or without.
    fn step(&mut self, changes: impl IntoIterator<Item = (Bytes, Option<usize>)>) {
        self.revision += 1;
        let mut step = BTreeMap::new();
        for (key, length) in changes {
            let row = length.map(|length| Row {
                create_revision: self.rows.get(&key).map_or(self.revision, |row| row.create_revision),
                mod_revision: self.revision,
                version: self.rows.get(&key).map_or(0, |row| row.version) + 1,
                value: vec![self.revision.to_le_bytes()[0]; length].into(),
            });
            step.insert(key, row);
        }
        for (key, row) in &step {
            match row {
                Some(row) => self.rows.insert(key.clone(), row.clone()),
                None => self.rows.remove(key),
            };
        }
        let step: Vec<RowChange> = step.into_iter().collect();
        self.base().write(&step, &self.meta()).unwrap();
    }

    fn meta(&self) -> proto::StateMeta {
        let mut digest = Digest::default();
        for (key, row) in &self.rows {
            digest.add(&Head::of(key, row));
        }
        proto::StateMeta {
            revision: self.revision,
            keys: self.rows.len() as u64,
            digest: digest.to_bytes(),
            ..proto::StateMeta::default()
        }
    }

    fn reopen(&mut self) {
        drop(self.base.take());
        let (base, meta) = Base::open_verified(self.folder.path()).unwrap();
        assert_eq!(meta, self.meta());
        let (known, again) = (base.index.read().usage().needed, self.needed());
        assert_eq!(known, again, "what counts, by the index and by the rows");
        self.base = Some(base);
    }

    fn needed(&self) -> u64 {
        let length = |(key, row): (&Bytes, &Row)| {
            let mut packer = Packer::new(0);
            u64::from(packer.add(key, Some(row)).unwrap().bytes)
        };
        self.rows.iter().map(length).sum()
    }

    fn check(&self) {
        let base = self.base();
        let stored = base.scan(b"", b"", None, usize::MAX).unwrap();
        assert_eq!(stored, self.rows.clone().into_iter().collect::<Vec<_>>());
        for (key, row) in &self.rows {
            assert_eq!(base.get(key).unwrap().as_ref(), Some(row));
            assert_eq!(base.head(key), Some(Head::of(key, row)));
        }
        let usage = base.index.read().usage();
        assert_eq!(usage.needed, self.needed());
    }

    /// The blocks that sled has.
    fn stored_blocks(&self) -> u64 {
        let extent = self.base().tree.extent().unwrap();
        extent.map_or(0, |(oldest, newest)| newest - oldest + 1)
    }
}

fn key(number: usize) -> Bytes {
    format!("key-{number:06}").into()
}

#[test]
fn what_was_overwritten_is_given_up_and_what_was_not_stays() {
    let mut site = Site::new();
    // Rows that nobody writes again lie between those that are written all the time.
    site.step((0..1_000).map(|number| (key(number), Some(300))));
    for _ in 0..200 {
        site.step((0..1_000).step_by(4).map(|number| (key(number), Some(600))));
    }
    site.check();
    // A step makes room for itself before it makes what it writes over useless.
    site.step([]);
    let usage = site.base().index.read().usage();
    let given_up = site.base().index.read().first();
    assert!(given_up > 1_000, "only {given_up} blocks were given up");
    assert!(!usage.is_wasteful(), "{usage:?}");
    let (known, stored) = (site.base().index.read().next() - given_up, site.stored_blocks());
    assert!(stored - known < 200, "{known} blocks are known, {stored} are there");
    site.reopen();
    site.check();
    // Going on gives up what was left.
    site.step([(key(0), Some(1))]);
    site.step([(key(0), Some(1))]);
    site.reopen();
    site.check();
}

#[test]
fn the_files_do_not_grow_with_what_was_written_over() {
    let mut site = Site::new();
    let bytes = |site: &Site| {
        site.base().flush().unwrap();
        let db = std::fs::metadata(site.folder.path().join("db")).unwrap();
        // sled leaves holes where it has freed something.
        std::os::unix::fs::MetadataExt::blocks(&db) * 512
    };
    for _ in 0..100 {
        site.step((0..500).map(|number| (key(number), Some(1_000))));
    }
    let early = bytes(&site);
    for _ in 0..400 {
        site.step((0..500).map(|number| (key(number), Some(1_000))));
    }
    let late = bytes(&site);
    assert!(late < 2 * early, "{early} bytes after 50 MB, {late} after 250 MB");
    site.reopen();
    site.check();
}

#[test]
fn a_deleted_key_stays_away_when_the_row_that_hides_it_is_given_up() {
    let mut site = Site::new();
    site.step((0..500).map(|number| (key(number), Some(300))));
    site.step((0..250).map(|number| (key(number), None)));
    let deleted_in = site.base().index.read().next();
    let mut reopened = 0;
    while site.base().index.read().first() <= deleted_in {
        site.step((400..500).map(|number| (key(number), Some(3_000))));
        if site.revision.is_multiple_of(7) {
            site.reopen();
            reopened += 1;
        }
        assert_eq!(site.base().get(&key(1)).unwrap(), None);
        assert!(site.revision < 1_000, "the old blocks are never given up");
    }
    assert!(reopened > 1);
    site.reopen();
    site.check();
}

#[test]
fn of_two_rows_of_a_key_in_one_block_the_later_counts() {
    let mut site = Site::new();
    site.step([(key(1), Some(10))]);
    let earlier = site.rows.clone();
    site.step([(key(1), Some(20))]);
    drop(site.base.take());
    // As it lies when a row is stored again in the step that writes over it.
    let mut packer = Packer::new(2);
    for row in [&earlier[&key(1)], &site.rows[&key(1)]] {
        packer.add(&key(1), Some(row)).unwrap();
    }
    let tree = Tree::open(site.folder.path(), 8 << 20).unwrap();
    let mut change = Change::default();
    for (number, block) in (2..).zip(packer.finish()) {
        change.insert(number, block);
    }
    tree.apply(change).unwrap();
    assert_eq!(tree.extent().unwrap(), Some((0, 2)));
    drop(tree);
    let (base, meta) = Base::open_verified(site.folder.path()).unwrap();
    assert_eq!(meta, site.meta());
    site.base = Some(base);
    site.check();
}

#[test]
fn an_emptied_base_needs_nothing_and_goes_on() {
    let mut site = Site::new();
    for _ in 0..8 {
        site.step((0..100).map(|number| (key(number), Some(10_000))));
    }
    site.step((0..100).map(|number| (key(number), None)));
    site.step([]);
    site.step([]);
    site.check();
    assert_eq!(site.base().index.read().usage().needed, 0);
    site.reopen();
    site.step([(key(7), Some(10))]);
    site.check();
    site.reopen();
    site.check();
}

#[test]
fn deleting_what_was_never_stored_stores_nothing() {
    let mut site = Site::new();
    site.step([(key(1), Some(10))]);
    let before = site.base().index.read().usage();
    site.step((2..100).map(|number| (key(number), None)));
    assert_eq!(site.base().index.read().usage(), before);
    site.reopen();
    site.check();
}

#[test]
fn a_row_may_be_larger_than_a_block_and_a_block_holds_64_rows() {
    let mut site = Site::new();
    site.step((0..1_000).map(|number| (key(number), Some(0))));
    site.step([(key(3), Some(2 << 20)), (key(4), Some(4_095)), (key(5), Some(4_096))]);
    site.check();
    site.reopen();
    site.check();
    assert_eq!(site.stored_blocks(), 1_000_u64.div_ceil(64) + 3);
}

#[test]
fn a_scan_begins_and_ends_where_it_should() {
    let mut site = Site::new();
    site.step((0..10).map(|number| (key(number), Some(10))));
    let keys = |start: &[u8], after: &[u8], end: Option<&[u8]>, limit| {
        let rows = site.base().scan(start, after, end, limit).unwrap();
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"key", b"", None, 2), [key(0), key(1)]);
    assert_eq!(keys(b"key", &key(1), None, 2), [key(2), key(3)]);
    assert_eq!(keys(&key(8), b"", Some(b"l"), 9), [key(8), key(9)]);
    assert_eq!(keys(&key(8), b"", Some(&key(9)), 9), [key(8)]);
    // Nothing lies between, and asking is no mistake.
    assert!(keys(b"x", b"", Some(b"b"), 9).is_empty());
    assert!(keys(b"", &key(5), Some(&key(5)), 9).is_empty());
}

#[test]
fn whoever_reads_never_meets_a_block_that_is_gone() {
    let mut site = Site::new();
    site.step((0..200).map(|number| (key(number), Some(2_000))));
    let stop = AtomicBool::new(false);
    let base = site.base.take().unwrap();
    let (reads, given_up) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let number = reads * 7 % 200;
                assert!(base.get(&key(number)).unwrap().is_some());
                let rows = base.scan(&key(number), b"", None, 20).unwrap();
                assert_eq!(rows.len(), 20.min(200 - number));
                reads += 1;
            }
            reads
        });
        for revision in 2..150 {
            let row = Row {
                create_revision: 1,
                mod_revision: revision,
                version: revision,
                value: vec![0; 3_000].into(),
            };
            let step: Vec<RowChange> = (0..150).map(|number| (key(number), Some(row.clone()))).collect();
            base.write(&step, &proto::StateMeta::default()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        (reader.join().unwrap(), base.index.read().first())
    });
    assert!(
        reads > 0 && given_up > 1_000,
        "{reads} reads, {given_up} blocks given up"
    );
}

#[test]
fn a_base_of_the_earlier_format_is_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let db = sled::open(folder.path()).unwrap();
    db.open_tree("rows").unwrap().insert("rkey", "row").unwrap();
    drop(db);
    let refused = Base::open_verified(folder.path()).unwrap_err();
    assert!(matches!(refused, BaseError::EarlierFormat), "{refused}");
}

/// Opens a base after something was done to its blocks behind its back.
fn refused_after(harm: impl FnOnce(&sled::Tree)) -> BaseError {
    let mut site = Site::new();
    site.step((0..100).map(|number| (key(number), Some(300))));
    site.step((0..50).map(|number| (key(number), Some(300))));
    drop(site.base.take());
    let db = open_database(site.folder.path(), 8 << 20).unwrap();
    let tree = db.open_tree("blocks").unwrap();
    harm(&tree);
    drop((tree, db));
    Base::open_verified(site.folder.path()).unwrap_err()
}

fn block_key(number: u64) -> Vec<u8> {
    [b"b", number.to_be_bytes().as_slice()].concat()
}

#[test]
fn whatever_is_lost_altered_or_added_is_found_at_the_start() {
    let missing = refused_after(|tree| drop(tree.remove(block_key(3)).unwrap().unwrap()));
    assert!(matches!(missing, BaseError::MissingBlock { number: 3 }), "{missing}");

    let newest_gone = refused_after(|tree| {
        let (newest, _) = tree.range(..b"c".to_vec()).next_back().unwrap().unwrap();
        tree.remove(newest).unwrap();
    });
    assert!(matches!(newest_gone, BaseError::Digest { .. }), "{newest_gone}");

    let twice = refused_after(|tree| {
        let first = tree.get(block_key(0)).unwrap().unwrap();
        let (newest, _) = tree.range(..b"c".to_vec()).next_back().unwrap().unwrap();
        let next = u64::from_be_bytes(newest[1..].try_into().unwrap()) + 1;
        tree.insert(block_key(next), first).unwrap();
    });
    assert!(matches!(twice, BaseError::Digest { .. }), "{twice}");

    let cut = refused_after(|tree| {
        let mut block = tree.get(block_key(2)).unwrap().unwrap().to_vec();
        block.truncate(block.len() - 1);
        tree.insert(block_key(2), block).unwrap();
    });
    assert!(matches!(cut, BaseError::DamagedBlock { number: 2 }), "{cut}");

    for byte in [0, 1, 7, 100, 310] {
        let flipped = refused_after(|tree| {
            let mut block = tree.get(block_key(9)).unwrap().unwrap().to_vec();
            block[byte] ^= 0x10;
            tree.insert(block_key(9), block).unwrap();
        });
        assert!(!matches!(flipped, BaseError::Sled(_)), "{flipped}");
    }

    let strange = refused_after(|tree| drop(tree.insert(b"b1", b"").unwrap()));
    assert!(matches!(strange, BaseError::StrangeKey), "{strange}");
}

#[derive(Debug, Clone)]
enum Act {
    Step(Vec<(usize, Option<usize>)>),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let change = (0..60_usize, prop::option::weighted(0.8, 0..50_000_usize));
    prop_oneof![
        9 => prop::collection::vec(change, 0..40).prop_map(Act::Step),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn it_is_a_map_whatever_is_done_to_it(acts in prop::collection::vec(act(), 1..60)) {
        let mut site = Site::new();
        for act in acts {
            match act {
                Act::Step(changes) => site.step(changes.into_iter().map(|(number, length)| (key(number), length))),
                Act::Reopen => site.reopen(),
            }
            site.check();
        }
        site.reopen();
        site.check();
    }
}
