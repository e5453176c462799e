//! The archive an initramfs is: "newc" cpio, written by hand.
//!
//! Written here because owners and device nodes in the archive are then ours to choose: no root, no
//! fakeroot, no cpio program, and the same input gives the same bytes. Must never take a time, an owner
//! or a number from the file system.

use std::collections::BTreeMap;

const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";

enum Entry {
    Folder,
    File { executable: bool, content: Vec<u8> },
    Link { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

/// What goes into an archive, by path without a leading slash. Folders above an entry come by themselves.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    pub fn folder(&mut self, path: &str) {
        self.insert(path, Entry::Folder);
    }

    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.insert(
            path,
            Entry::File {
                executable: false,
                content: content.into(),
            },
        );
    }

    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.insert(
            path,
            Entry::File {
                executable: true,
                content: content.into(),
            },
        );
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(
            path,
            Entry::Link {
                target: target.to_owned(),
            },
        );
    }

    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.insert(path, Entry::CharacterDevice { major, minor });
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive. Parents stand before what is in them, as the order of paths has it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let inode = u32::try_from(number + 1).unwrap_or(u32::MAX);
            match entry {
                Entry::Folder => append(&mut bytes, inode, path, FOLDER | 0o755, (0, 0), &[]),
                Entry::File { executable, content } => {
                    let mode = REGULAR | if *executable { 0o755 } else { 0o644 };
                    append(&mut bytes, inode, path, mode, (0, 0), content);
                }
                Entry::Link { target } => append(&mut bytes, inode, path, LINK | 0o777, (0, 0), target.as_bytes()),
                Entry::CharacterDevice { major, minor } => {
                    append(&mut bytes, inode, path, CHARACTER_DEVICE | 0o600, (*major, *minor), &[]);
                }
            }
        }
        append(&mut bytes, 0, TRAILER, 0, (0, 0), &[]);
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, inode: u32, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    // 4 GiB in one file of an initramfs would not boot anywhere.
    let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
    // Inode, mode, owner, group, links, time, size, device of the archive (2), device node (2), name, sum.
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::default();
        archive.program("bin/sh", "code");
        archive.link("init", "bin/sh");
        archive.character_device("dev/console", 5, 1);
        archive
    }

    #[test]
    fn the_bytes_depend_on_nothing_but_the_entries() {
        assert_eq!(sample().to_bytes(), sample().to_bytes());
    }

    #[test]
    fn folders_above_an_entry_are_in_the_archive_before_it() {
        let bytes = sample().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let (folder, file) = (text.find("bin\0").unwrap(), text.find("bin/sh\0").unwrap());
        assert!(folder < file);
    }

    #[test]
    fn a_header_has_the_fields_that_the_kernel_reads() {
        let bytes = sample().to_bytes();
        let at = bytes.windows(12).position(|window| window == b"dev/console\0").unwrap() - 110;
        let header = std::str::from_utf8(&bytes[at..at + 110]).unwrap();
        let field = |index: usize| u32::from_str_radix(&header[6 + 8 * index..14 + 8 * index], 16).unwrap();
        assert_eq!(&header[..6], "070701");
        assert_eq!(field(1), CHARACTER_DEVICE | 0o600, "mode");
        assert_eq!((field(9), field(10)), (5, 1), "device");
        assert_eq!(field(11), 12, "length of the name");
        assert_eq!(at % 4, 0);
    }
}
