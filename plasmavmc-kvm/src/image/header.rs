//! The header of an image, read by ourselves before any program of QEMU's opens the file.
//!
//! A qcow2 header may name other files: one to stand on, and one that holds the data. Whoever opens such an
//! image opens those, too. So we look first, and never touch a file because a header names it.

use std::path::{Component, Path, PathBuf};

/// How much of a file is read. QEMU writes the name of the backing file right behind the header.
pub const HEADER_BYTES: usize = 64 << 10;

const MAGIC: &[u8] = b"QFI\xfb";
/// What QEMU takes as well.
const MAX_NAME_BYTES: usize = 1023;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;

/// What a qcow2 header says that decides whether the image may be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Header {
    pub size_bytes: u64,
    /// As it stands there, which may be anything.
    pub backing: Option<String>,
    /// QEMU found the image damaged once.
    pub is_corrupt: bool,
    pub is_encrypted: bool,
    pub has_external_data: bool,
}

impl Qcow2Header {
    /// Out of the first bytes of a file; `None` if it is no qcow2 at all.
    pub fn read(bytes: &[u8]) -> Option<Result<Self, &'static str>> {
        bytes.starts_with(MAGIC).then(|| Self::read_fields(bytes))
    }

    fn read_fields(bytes: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "its header is cut off";
        let version = u32_at(bytes, 4).ok_or(SHORT)?;
        // Version 2 ends before these.
        let incompatible = match version {
            2 => 0,
            3 => u64_at(bytes, 72).ok_or(SHORT)?,
            _ => return Err("its qcow2 version is neither 2 nor 3"),
        };
        let name_start = usize::try_from(u64_at(bytes, 8).ok_or(SHORT)?).unwrap_or(usize::MAX);
        let name_bytes = u32_at(bytes, 16).ok_or(SHORT)? as usize;
        let backing = match name_start {
            0 => None,
            _ if name_bytes > MAX_NAME_BYTES => return Err("the name of its backing file is too long"),
            _ => {
                let end = name_start.saturating_add(name_bytes);
                let name = bytes
                    .get(name_start..end)
                    .ok_or("the name of its backing file lies outside of its header")?;
                Some(String::from_utf8_lossy(name).into_owned())
            }
        };
        Ok(Self {
            size_bytes: u64_at(bytes, 24).ok_or(SHORT)?,
            backing,
            is_corrupt: incompatible & INCOMPATIBLE_CORRUPT != 0,
            is_encrypted: u32_at(bytes, 32).ok_or(SHORT)? != 0,
            has_external_data: incompatible & INCOMPATIBLE_EXTERNAL_DATA != 0,
        })
    }

    /// Whether the header names this very file, by its text: nothing is looked up.
    pub fn stands_on(&self, image: &Path, backing: &Path) -> bool {
        let Some(name) = &self.backing else { return false };
        // `json:{...}`, `nbd:...`: a protocol, not a path.
        let first = name.split('/').next().unwrap_or_default();
        if first.contains(':') {
            return false;
        }
        let folder = image.parent().unwrap_or(Path::new("/"));
        normal(&folder.join(name)) == normal(backing)
    }
}

/// The path without `.` and `..`, as text.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// What a file seems to be that is not what was expected.
pub fn guess_format(bytes: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 5] = [
        (MAGIC, "qcow2"),
        (b"KDMV", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
        (b"QED\0", "qed"),
    ];
    if bytes.is_empty() {
        return "empty";
    }
    let found = known.iter().find(|(magic, _)| bytes.starts_with(magic));
    found.map_or("raw or something unknown", |(_, name)| name)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header_on(backing: &str) -> Qcow2Header {
        Qcow2Header {
            size_bytes: 0,
            backing: Some(backing.to_owned()),
            is_corrupt: false,
            is_encrypted: false,
            has_external_data: false,
        }
    }

    #[test]
    fn a_backing_file_is_known_by_its_path_only() {
        let stands = |name: &str| header_on(name).stands_on(Path::new("/pool/vm/disk"), Path::new("/pool/base"));
        for good in ["/pool/base", "../base", "/pool/./x/../base"] {
            assert!(stands(good), "{good}");
        }
        for bad in [
            "base",
            "/etc/shadow",
            "json:{\"driver\":\"file\",\"filename\":\"/pool/base\"}",
            "nbd://host/pool/base",
            "file:/pool/base",
            "",
        ] {
            assert!(!stands(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange_to_be_read(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [MAGIC, &tail].concat();
            if let Some(Ok(header)) = Qcow2Header::read(&bytes) {
                prop_assert!(header.backing.is_none_or(|name| name.len() <= 3 * MAX_NAME_BYTES));
            }
            prop_assert_eq!(Qcow2Header::read(&tail).is_some(), tail.starts_with(MAGIC));
        }
    }
}
