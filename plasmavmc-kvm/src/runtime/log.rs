//! Logs that do not fill the tmpfs that all runtime folders share.
//!
//! A guest may say as much as it likes on its console, and QEMU appends it for ever. QEMU opens its logs for
//! appending, so a file that is cut behind its back goes on at its new end.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::OFlags;

use super::RuntimeFolder;

/// A log that is longer is cut.
pub const LONGEST_LOG_BYTES: u64 = 4 * 1024 * 1024;
/// So much of its end is kept.
const KEPT_BYTES: u64 = 1024 * 1024;
const COPIED_AT_ONCE: usize = 256 * 1024;
/// A guest that writes faster than we copy loses what comes after.
const MOST_COPIES: usize = 64;

impl RuntimeFolder {
    /// Cuts a log that has become too long, and keeps its end. Tells how much it has lost.
    pub fn cap_log(&self, name: &str) -> io::Result<u64> {
        let log = match self.open_file(name, OFlags::RDWR) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let found = log.metadata()?;
        if found.len() <= LONGEST_LOG_BYTES {
            return Ok(0);
        }
        // The folder may belong to the user QEMU runs as, who must not have other files cut.
        if !found.is_file() || found.nlink() != 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a file with one name",
            ));
        }
        cut(&log, found.len() - KEPT_BYTES)
    }
}

impl RuntimeFolder {
    /// The end of a log; nothing if there is none.
    pub fn end_of_log(&self, name: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let log = match self.open_file(name, OFlags::RDONLY) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = log.metadata()?.len();
        let kept = length.min(bytes as u64);
        let mut end = vec![0; usize::try_from(kept).unwrap_or(bytes)];
        log.read_exact_at(&mut end, length - kept)?;
        Ok(end)
    }
}

/// Moves what stands from `from` on to the beginning, with what is appended meanwhile, and ends the file there.
fn cut(log: &File, from: u64) -> io::Result<u64> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    let (mut read_to, mut written_to) = (from, 0);
    for _ in 0..MOST_COPIES {
        let count = log.read_at(&mut buffer, read_to)?;
        if count == 0 {
            break;
        }
        // What is read always lies behind what is written.
        log.write_all_at(&buffer[..count], written_to)?;
        read_to += count as u64;
        written_to += count as u64;
    }
    log.set_len(written_to)?;
    Ok(from)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use plasmavmc_types::VmId;

    use super::*;

    fn folder(vms: &Path) -> RuntimeFolder {
        let id: VmId = "0b4a2a0c-9a3e-4e2b-9d52-5d6c3e0b7a11".parse().unwrap();
        RuntimeFolder::create(vms, id).unwrap()
    }

    fn lines(first: u64, bytes: u64) -> Vec<u8> {
        (first..)
            .take((bytes / 16) as usize)
            .flat_map(|line| format!("{line:015}\n").into_bytes())
            .collect()
    }

    #[test]
    fn a_log_that_is_too_long_keeps_its_end_and_goes_on_there() {
        let vms = tempfile::tempdir().unwrap();
        let folder = folder(vms.path());
        let path = folder.path().join("console.log");
        assert_eq!(folder.cap_log("console.log").unwrap(), 0, "there is none");
        let mut writer = File::options().append(true).create(true).open(&path).unwrap();
        writer.write_all(&lines(0, LONGEST_LOG_BYTES)).unwrap();
        assert_eq!(folder.cap_log("console.log").unwrap(), 0, "it is not too long");
        writer.write_all(b"the last line.\n\n").unwrap();
        assert_eq!(
            folder.cap_log("console.log").unwrap(),
            LONGEST_LOG_BYTES + 16 - KEPT_BYTES
        );
        writer.write_all(b"and on it goes\n").unwrap();

        let kept = std::fs::read(&path).unwrap();
        assert_eq!(kept.len() as u64, KEPT_BYTES + 15);
        assert!(kept.ends_with(b"the last line.\n\nand on it goes\n"));
        let first = (LONGEST_LOG_BYTES + 16 - KEPT_BYTES) / 16;
        assert!(kept.starts_with(&lines(first, KEPT_BYTES - 16)));
    }

    #[test]
    fn the_end_of_a_log_is_read() {
        let vms = tempfile::tempdir().unwrap();
        let folder = folder(vms.path());
        assert_eq!(folder.end_of_log("console.log", 10).unwrap(), b"");
        std::fs::write(folder.path().join("console.log"), "SeaBIOS\nlogin: ").unwrap();
        assert_eq!(folder.end_of_log("console.log", 100).unwrap(), b"SeaBIOS\nlogin: ");
        assert_eq!(folder.end_of_log("console.log", 7).unwrap(), b"login: ");
    }

    #[test]
    fn what_is_not_our_log_is_never_cut() {
        let vms = tempfile::tempdir().unwrap();
        let folder = folder(vms.path());
        let other = vms.path().join("other");
        std::fs::write(&other, vec![b'x'; LONGEST_LOG_BYTES as usize + 1]).unwrap();
        let name = folder.path().join("console.log");
        std::os::unix::fs::symlink(&other, &name).unwrap();
        folder.cap_log("console.log").unwrap_err();
        std::fs::remove_file(&name).unwrap();
        std::fs::hard_link(&other, &name).unwrap();
        folder.cap_log("console.log").unwrap_err();
        assert_eq!(other.metadata().unwrap().len(), LONGEST_LOG_BYTES + 1);
    }
}
