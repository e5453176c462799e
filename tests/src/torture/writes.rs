//! The truth about a store with one writer: every write that was acknowledged.

use std::collections::BTreeMap;

use chainfire::kv::{Key, KeyValue, Revision, Value};

/// Every acknowledged write, by revision. There is one writer, so this is the whole truth.
#[derive(Debug, Default)]
pub struct Writes {
    pub made: BTreeMap<Revision, (Key, Value)>,
}

impl Writes {
    pub fn last_revision(&self) -> Revision {
        self.made.keys().next_back().copied().unwrap_or(0)
    }

    pub fn last_change(&self, key: &Key) -> Revision {
        let mut changes = self.made.iter().rev();
        changes
            .find(|(_, (changed, _))| changed == key)
            .map_or(0, |(at, _)| *at)
    }

    /// What a listing at a revision must show, as key, value and revision.
    fn at(&self, revision: Revision) -> BTreeMap<&Key, (&Value, Revision)> {
        let made = self.made.range(..=revision);
        made.map(|(at, (key, value))| (key, (value, *at))).collect()
    }

    /// What is wrong with a listing, if something is.
    pub fn fault(&self, revision: Revision, rows: &[KeyValue]) -> Option<String> {
        let right = self.at(revision);
        let shown: BTreeMap<&Key, (&Value, Revision)> = rows
            .iter()
            .map(|row| (&row.key, (&row.value, row.mod_revision)))
            .collect();
        let wrong = right.iter().find(|(key, row)| shown.get(*key) != Some(*row));
        match wrong {
            Some((key, (_, at))) => {
                let shown = shown.get(key).map(|(_, at)| *at);
                Some(format!(
                    "at revision {revision}, {key:?} was last changed at {at}, not at {shown:?}"
                ))
            }
            None if shown.len() > right.len() => Some(format!("at revision {revision} it shows keys nobody wrote")),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_must_show_a_state_that_once_was() {
        let mut writes = Writes::default();
        writes.made.insert(1, ("a".into(), "1".into()));
        writes.made.insert(2, ("b".into(), "2".into()));
        writes.made.insert(4, ("a".into(), "3".into()));
        let row = |key: &'static str, value: &'static str, at| KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: 1,
            mod_revision: at,
            version: 1,
        };
        let (first, second, third) = (row("a", "1", 1), row("b", "2", 2), row("a", "3", 4));
        assert_eq!(writes.fault(0, &[]), None);
        assert_eq!(writes.fault(3, &[first.clone(), second.clone()]), None);
        assert_eq!(writes.fault(4, &[third.clone(), second.clone()]), None);
        assert!(writes.fault(4, &[first.clone(), second.clone()]).is_some());
        assert!(writes.fault(2, std::slice::from_ref(&first)).is_some());
        assert!(writes.fault(1, &[first, second]).is_some());
        assert!(writes.fault(4, &[row("a", "2", 4), row("b", "2", 2)]).is_some());
        assert!(writes.fault(2, &[third]).is_some());
    }
}
