//! Damage to files: flipped bits, zeroed stretches, cut ends.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// What was done to which file, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Relative to the member's folder.
    pub file: PathBuf,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// Damages one file under a folder that nobody uses. `None` if there is none with content.
pub fn inflict(folder: &Path, random: &mut StdRng) -> anyhow::Result<Option<Damage>> {
    // First a kind of file, then one of the kind: else the many small ones would get it all.
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files(folder)? {
        kinds
            .entry(kind(file.strip_prefix(folder).unwrap_or(&file)))
            .or_default()
            .push(file);
    }
    let kinds: Vec<(String, Vec<PathBuf>)> = kinds.into_iter().collect();
    let chosen = kinds.choose_weighted(random, |(kind, _)| weight(kind)).ok();
    let chosen = chosen.and_then(|(_, files)| files.choose_weighted(random, |file| extent(file)).ok());
    let Some(path) = chosen else {
        return Ok(None);
    };
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let what = match random.random_range(0..10) {
        0..6 => flip_bits(&file, length, random),
        6..9 => cut(&file, length, random),
        _ => zero(&file, length, random),
    };
    let what = what.with_context(|| format!("damaging {}", path.display()))?;
    Ok(Some(Damage {
        file: path.strip_prefix(folder).unwrap_or(path).to_owned(),
        what,
    }))
}

/// The part of a store that a file belongs to: the first name of its path.
pub fn kind(relative: &Path) -> String {
    let first = relative.components().next();
    first
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Folders hold what the store is about; single files are many and small.
fn weight(kind: &str) -> u32 {
    match kind {
        "log" => 5,
        "state" | "snapshots" => 3,
        "watermark" => 2,
        _ => 1,
    }
}

/// Bigger files are hit more often, but not so much that small ones are never.
fn extent(file: &Path) -> u32 {
    std::fs::metadata(file)
        .map_or(0, |file| file.len())
        .checked_ilog2()
        .unwrap_or(0)
        + 1
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("quarantine") || name.starts_with("damaged") {
            // What was put aside after an earlier case is nobody's any more.
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.metadata()?.len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn flip_bits(file: &File, length: u64, random: &mut StdRng) -> std::io::Result<String> {
    let count = if random.random_bool(0.5) {
        1
    } else {
        random.random_range(2..9)
    };
    let mut places = Vec::new();
    for _ in 0..count {
        let (offset, bit) = (random.random_range(0..length), random.random_range(0..8));
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ (1 << bit)], offset)?;
        places.push(format!("{offset}.{bit}"));
    }
    Ok(format!("flipped {} of {length} bytes", places.join(" ")))
}

fn cut(file: &File, length: u64, random: &mut StdRng) -> std::io::Result<String> {
    // Near the end as often as anywhere: that is where a lost tail hides.
    let lost = if random.random_bool(0.5) {
        random.random_range(1..=length.min(300))
    } else {
        random.random_range(1..=length)
    };
    file.set_len(length - lost)?;
    Ok(format!("cut {lost} of {length} bytes"))
}

fn zero(file: &File, length: u64, random: &mut StdRng) -> std::io::Result<String> {
    let offset = random.random_range(0..length);
    let count = random.random_range(1..=512).min(length - offset);
    file.write_all_at(&vec![0; usize::try_from(count).unwrap_or(0)], offset)?;
    Ok(format!("zeroed {count} of {length} bytes at {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::OwnedFolder;
    use rand::SeedableRng;

    #[test]
    fn damage_changes_a_file() {
        let folder = OwnedFolder::create("damage-test").expect("a folder");
        let mut random = StdRng::seed_from_u64(3);
        assert_eq!(inflict(folder.path(), &mut random).expect("nothing to do"), None);
        std::fs::create_dir(folder.path().join("log")).expect("a folder");
        let file = folder.path().join("log/chunk");
        let content = vec![0xa5; 1000];
        for _ in 0..50 {
            std::fs::write(&file, &content).expect("a file");
            let damage = inflict(folder.path(), &mut random)
                .expect("damage")
                .expect("a file to damage");
            assert_eq!(damage.file, Path::new("log/chunk"));
            // Two flips of one bit undo each other, which is rare enough not to happen with this seed.
            assert_ne!(std::fs::read(&file).expect("the file"), content, "{damage:?}");
        }
    }
}
