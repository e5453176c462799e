use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Rows = BTreeMap<Key, Row>;

/// A window, and what it should show at each revision.
struct Site {
    window: Window,
    history: Vec<Rows>,
    begun: Option<Flush>,
    stored: bool,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = Arc::new(Base::create(folder.path()).unwrap());
        Self {
            window: Window::new(base, Boundary::default()),
            history: vec![Rows::new()],
            begun: None,
            stored: false,
            _folder: folder,
        }
    }

    fn change(&mut self, changes: &BTreeMap<u8, bool>) {
        let revision = self.window.revision() + 1;
        let mut rows = self.history.last().unwrap().clone();
        let mut changed = Vec::new();
        for (number, put) in changes {
            let key = key(*number);
            let before = self.window.head(&key);
            if !put && before.is_none() {
                continue;
            }
            let row = put.then(|| Row {
                create_revision: before.map_or(revision, |before| before.create_revision),
                mod_revision: revision,
                version: before.map_or(0, |before| before.version) + 1,
                value: vec![*number; 10].into(),
            });
            match &row {
                Some(row) => rows.insert(key.clone(), row.clone()),
                None => rows.remove(&key),
            };
            changed.push((key, row));
        }
        if changed.is_empty() {
            return;
        }
        self.window.push(revision, changed);
        self.window.close_entry(Boundary {
            revision,
            ..Boundary::default()
        });
        self.history.push(rows);
    }

    /// The three parts of a flush, with whatever comes between them.
    fn flush_on(&mut self, max_rows: usize) {
        match &self.begun {
            None => self.begun = self.window.begin_flush(max_rows),
            Some(flush) if !self.stored => {
                flush.base.write(&flush.rows, &flush.target.to_meta()).unwrap();
                self.stored = true;
            }
            Some(flush) => {
                self.window.finish_flush(flush);
                (self.begun, self.stored) = (None, false);
            }
        }
    }

    fn check(&self) {
        for revision in self.window.floor()..=self.window.revision() {
            let expected = &self.history[usize::try_from(revision).unwrap()];
            for limit in [3, 100] {
                assert_eq!(&self.all(revision, limit), expected, "at revision {revision}");
            }
        }
        let now = self.history.last().unwrap();
        for number in 0..20 {
            let key = key(number);
            let row = now.get(&key);
            assert_eq!(self.window.get(&key).unwrap().as_ref(), row);
            assert_eq!(self.window.head(&key), row.map(|row| Head::of(&key, row)));
        }
    }

    /// Everything at a revision, read so many keys at a time.
    fn all(&self, revision: Revision, limit: usize) -> Rows {
        let mut all = Rows::new();
        let mut after = Key::new();
        loop {
            let (rows, more) = self.window.scan(b"", &after, None, revision, limit).unwrap();
            for (key, row) in rows {
                assert!(all.last_key_value().is_none_or(|(last, _)| *last < key), "out of order");
                all.insert(key, row);
            }
            match more {
                Some(last) => after = last,
                None => return all,
            }
        }
    }
}

fn key(number: u8) -> Key {
    format!("k{number:02}").into()
}

#[derive(Debug, Clone)]
enum Act {
    Change(BTreeMap<u8, bool>),
    Flush(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        prop::collection::btree_map(0..20_u8, prop::bool::weighted(0.6), 1..5).prop_map(Act::Change),
        (1..6_usize).prop_map(Act::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn every_revision_from_the_floor_on_is_whole_at_every_point_of_a_flush(
        acts in prop::collection::vec(act(), 1..80)
    ) {
        let mut site = Site::new();
        for act in acts {
            match act {
                Act::Change(changes) => site.change(&changes),
                Act::Flush(max_rows) => site.flush_on(max_rows),
            }
            site.check();
        }
    }
}

#[test]
fn a_key_that_is_deleted_and_made_again_is_found_while_the_base_loses_it() {
    let mut site = Site::new();
    let put = BTreeMap::from([(1, true)]);
    site.change(&put);
    for _ in 0..3 {
        site.flush_on(9);
    }
    site.change(&BTreeMap::from([(1, false)]));
    site.flush_on(9);
    site.change(&put);
    for _ in 0..5 {
        site.check();
        site.flush_on(9);
    }
    site.check();
    assert!(site.window.beside_base.is_empty(), "the base has it");
}
