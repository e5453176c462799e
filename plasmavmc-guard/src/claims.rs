//! The reader of claims: a disposable child of the guard that looks at storage pools, which may hang.
//!
//! Whoever starts a VM that another host had makes a claim beside its disks first: a file in the VM's claims
//! folder, named by its incarnation. For a host that cannot ask the cluster it is the one proof that a frozen
//! VM is lost to it. A pool may be dead, and then every look at it hangs, be it for ever; so the guard never
//! looks itself. It starts its own program with the folders to look into:
//!
//! ```text
//!   plasmavmc-guard read-claims FOLDER...     one line for each folder: the highest number there
//! ```
//!
//! Must never happen: a number that is no claim's name, or one from a folder that could not be read whole. A
//! folder without claims, and one that cannot be read, say nothing; the folders after it are read all the same.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

/// The word on the command line that makes this program a reader.
pub const COMMAND: &str = "read-claims";

/// A folder of one VM that holds more than this is not understood.
const MOST_NAMES: usize = 100_000;

/// Prints what it finds, folder by folder, so that one that hangs takes nothing back.
pub fn run(folders: impl Iterator<Item = String>) -> ExitCode {
    // Nobody else has a use for it, and it is the first that should go when memory is short. Neither has to work.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let mut all_read = true;
    for folder in folders {
        match highest(&folder) {
            Ok(None) => {}
            Ok(Some(number)) => all_read &= print(number).is_ok(),
            Err(_) => all_read = false,
        }
    }
    if all_read { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In one write, so that the guard sees it whole.
fn print(number: u64) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{number}\n").as_bytes())?;
    stdout.flush()
}

fn highest(folder: &str) -> io::Result<Option<u64>> {
    let mut highest = None;
    for (count, entry) in fs::read_dir(folder)?.enumerate() {
        if count >= MOST_NAMES {
            return Err(io::Error::other("too many names"));
        }
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(parse);
        if number > highest && entry.file_type()?.is_file() {
            highest = number;
        }
    }
    Ok(highest)
}

/// The number in a claim's name or in a reader's line, written the one way it is written.
pub fn parse(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_claims_are_numbers() {
        for (name, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("07", None),
            ("+7", None),
            ("-7", None),
            ("7 ", None),
            ("7.new", None),
            ("", None),
            ("seven", None),
        ] {
            assert_eq!(parse(name), expected, "{name:?}");
        }
    }

    #[test]
    fn the_highest_claim_is_found_among_other_things() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a plain path");
        assert_eq!(highest(path).expect("read"), None);
        for name in ["3", "12", "7", "99.new", "100 ", "x"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        // What is no file is no claim.
        fs::create_dir(folder.path().join("500")).expect("made");
        std::os::unix::fs::symlink("12", folder.path().join("501")).expect("a link");
        assert_eq!(highest(path).expect("read"), Some(12));
        assert!(highest(&format!("{path}/none")).is_err());
    }
}
