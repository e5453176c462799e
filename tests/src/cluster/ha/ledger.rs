//! What a guest writes to its disk, read from outside: the guest's own proof that it runs once.
//!
//! The micro guest (`count-disk`) writes the number of its write and the id of its boot to one sector, synced, ten
//! times a second. Two guests on one disk would take turns; a guest that went on with what another had moved past would
//! bring an old boot, or a smaller number, back.
//!
//! Must never: miss that an earlier boot writes again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

const SECTOR: usize = 512;
/// Far more often than a guest writes.
const EVERY: Duration = Duration::from_millis(20);

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub boot: String,
    pub count: u64,
}

impl Entry {
    /// `count 17 boot 0a1b...`, padded with blanks. Nothing where no guest has written yet.
    fn parse(sector: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(sector).ok()?;
        let mut words = text.split_ascii_whitespace();
        let (Some("count"), Some(count), Some("boot"), Some(boot)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        Some(Self {
            boot: boot.to_owned(),
            count: count.parse().ok()?,
        })
    }
}

/// All that was seen: the last write of each boot, in the order of the boots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    pub boots: Vec<Entry>,
    pub faults: Vec<String>,
}

impl Ledger {
    fn add(&mut self, entry: Entry) {
        match self.boots.iter().rposition(|known| known.boot == entry.boot) {
            None => self.boots.push(entry),
            Some(at) if at + 1 < self.boots.len() => self.faults.push(format!("an earlier guest writes: {entry:?}")),
            Some(at) => {
                let known = &mut self.boots[at];
                if entry.count < known.count {
                    self.faults
                        .push(format!("it went back from {} to {entry:?}", known.count));
                }
                *known = entry;
            }
        }
    }

    pub fn newest(&self) -> Option<&Entry> {
        self.boots.last()
    }
}

/// Reads a disk again and again until it is dropped.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<(AtomicBool, Mutex<Ledger>)>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Of the raw image in this file.
    pub fn of(image: &Path) -> Self {
        let shared = Arc::<(AtomicBool, Mutex<Ledger>)>::default();
        let (theirs, image) = (Arc::clone(&shared), image.to_owned());
        let reading = std::thread::Builder::new().name("ledger".to_owned());
        let thread = reading.spawn(move || read(&theirs, &image)).ok();
        Self { shared, thread }
    }

    pub fn ledger(&self) -> Ledger {
        self.shared.1.lock().clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends after its next look.
            let _ = thread.join();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it samples: a thread of its own that waits for nothing but its turn"
)]
fn read((stop, ledger): &(AtomicBool, Mutex<Ledger>), image: &PathBuf) {
    while !stop.load(Ordering::Relaxed) {
        let mut sector = [0; SECTOR];
        let file = std::fs::File::open(image);
        let is_read = file.and_then(|file| std::os::unix::fs::FileExt::read_exact_at(&file, &mut sector, 0));
        if is_read.is_ok()
            && let Some(entry) = Entry::parse(&sector)
        {
            ledger.lock().add(entry);
        }
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(writes: &[(&str, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (boot, count) in writes {
            let text = format!("{:<511}\n", format!("count {count} boot {boot}"));
            ledger.add(Entry::parse(text.as_bytes()).unwrap());
        }
        ledger
    }

    #[test]
    fn what_goes_on_is_right_and_what_comes_back_is_not() {
        let check = |writes: &[(&str, u64)], faults: usize| {
            assert_eq!(ledger(writes).faults.len(), faults, "{writes:?}");
        };
        check(&[("a", 0), ("a", 0), ("a", 7), ("b", 0), ("b", 1)], 0);
        check(&[("a", 7), ("a", 6)], 1);
        check(&[("a", 7), ("b", 0), ("a", 8)], 1);
        check(&[("a", 7), ("b", 0), ("a", 8), ("b", 1), ("a", 9)], 2);
        assert_eq!(ledger(&[("a", 7), ("b", 3)]).newest().unwrap().count, 3);
    }

    #[test]
    fn a_disk_that_nobody_wrote_to_says_nothing() {
        assert_eq!(Entry::parse(&[0; SECTOR]), None);
        assert_eq!(Entry::parse(b"count x boot y"), None);
        assert_eq!(Entry::parse(&[0xff; SECTOR]), None);
    }
}
