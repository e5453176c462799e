//! Lists such as `path=/x,size=10G`: every key known, none twice, none without a value.

use std::collections::BTreeMap;

/// What stands in a list, taken out key by key.
#[derive(Debug)]
pub struct Pairs<'a> {
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Pairs<'a> {
    /// `flags` are keys that may stand without a value; they read as `true`.
    pub fn parse(text: &'a str, keys: &[&str], flags: &[&str]) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for part in text.split(',') {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, value),
                None if flags.contains(&part) => (part, "true"),
                None => return Err(without_value(part, keys, flags)),
            };
            if !keys.contains(&key) && !flags.contains(&key) {
                return Err(format!("{key:?} is unknown; {} are allowed", listed(keys, flags)));
            }
            if value.is_empty() {
                return Err(format!("{key} has no value"));
            }
            if values.insert(key, value).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        Ok(Self { values })
    }

    pub fn take(&mut self, key: &str) -> Option<&'a str> {
        self.values.remove(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// One of a few words.
    pub fn take_word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        let known = words.iter().find(|(word, _)| *word == text);
        known.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("{key} is {text:?}; {} are allowed", allowed.join(", "))
        })
    }

    /// A flag that is there, or says `true` or `false`.
    pub fn take_flag(&mut self, key: &str) -> Result<bool, String> {
        Ok(self
            .take_word(key, &[("true", true), ("false", false)])?
            .unwrap_or(false))
    }
}

fn without_value(part: &str, keys: &[&str], flags: &[&str]) -> String {
    if part.is_empty() {
        format!(
            "there is nothing between two commas or at an end; {} are allowed",
            listed(keys, flags)
        )
    } else if keys.contains(&part) {
        format!("{part} has no value; write {part}=...")
    } else {
        format!("{part:?} is unknown; {} are allowed", listed(keys, flags))
    }
}

fn listed(keys: &[&str], flags: &[&str]) -> String {
    let keys = keys.iter().map(|key| format!("{key}="));
    keys.chain(flags.iter().map(|flag| (*flag).to_owned()))
        .collect::<Vec<_>>()
        .join(", ")
}
