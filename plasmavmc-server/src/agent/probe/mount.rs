//! What a pool's folder is mounted with, as far as it rules out that hosts share it safely.
//!
//! Locks have to reach the other hosts, and the writes of a host that lost its locks have to be refused: NFSv4 does
//! both. Other file systems are judged by their deeds alone: see [`super::verdict`].

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

const NFS_MAGIC: u64 = 0x6969;

/// What one line of mountinfo says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    options: Vec<String>,
}

/// Why a folder cannot be a shared pool, if its mount says so. Touches the folder, so it may hang with its storage.
pub fn refusal(folder: &Path) -> io::Result<Option<String>> {
    let folder = std::fs::canonicalize(folder)?;
    let is_nfs = u64::try_from(statfs(&folder)?.f_type) == Ok(NFS_MAGIC);
    let mountinfo = std::fs::read("/proc/self/mountinfo")?;
    Ok(match mount_of(&mountinfo, &folder) {
        Some(mount) if is_nfs || mount.is_nfs() => nfs_refusal(&mount),
        None if is_nfs => Some("it is NFS, and how it is mounted cannot be found out".to_owned()),
        _ => None,
    })
}

impl Mount {
    fn is_nfs(&self) -> bool {
        matches!(self.kind.as_str(), "nfs" | "nfs4")
    }

    fn value(&self, option: &str) -> Option<&str> {
        let mut options = self.options.iter();
        options.find_map(|text| text.strip_prefix(option)?.strip_prefix('='))
    }
}

fn nfs_refusal(mount: &Mount) -> Option<String> {
    let version = mount.value("vers").or_else(|| mount.value("nfsvers"));
    if version.is_none_or(|version| !version.starts_with('4')) {
        let version = version.unwrap_or("of an unknown version");
        return Some(format!(
            "it is mounted as NFS {version}, which lets a host write that lost its locks: mount it with vers=4.2"
        ));
    }
    if mount.options.iter().any(|option| option == "nolock") {
        return Some("it is mounted with nolock, so no other host sees its locks: mount it without".to_owned());
    }
    let local = mount.value("local_lock").filter(|local| *local != "none")?;
    Some(format!(
        "it is mounted with local_lock={local}, so no other host sees its locks: mount it without"
    ))
}

/// The mount that a folder lies in: the deepest, and of those at one place the last, which hides the others.
fn mount_of(mountinfo: &[u8], folder: &Path) -> Option<Mount> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(parse).filter(|mount| folder.starts_with(&mount.point));
    mounts.max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let texts = [fields.get(5)?, fields.get(dash + 3)?];
    let options = texts.into_iter().flat_map(|text| text.split(|byte| *byte == b','));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Mount {
        point: unescape(fields.get(4)?),
        kind: text(fields.get(dash + 1)?),
        options: options.map(text).collect(),
    })
}

/// Blanks and the like stand as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::new();
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, escaped) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
40 22 0:50 / /mnt/old rw shared:2 - nfs nas:/x rw,vers=3,proto=tcp,local_lock=none,addr=10.0.0.1\n\
41 22 0:51 / /mnt/new rw - nfs4 nas:/x rw,vers=4.2,local_lock=none,addr=10.0.0.1\n\
42 22 0:52 / /mnt/a\\040b rw - nfs4 nas:/y rw,vers=4.1,local_lock=posix\n\
43 22 0:53 / /mnt/blind rw - nfs nas:/y rw,vers=4.0,nolock\n\
44 22 0:54 / /mnt/what rw - nfs nas:/y rw\n\
45 22 8:2 / /mnt/new/deep rw - xfs /dev/sdb rw\n\
46 22 8:3 / /srv rw - xfs /dev/sdc rw\n\
47 22 0:55 / /srv rw - nfs nas:/z rw,vers=3\n";

    #[test]
    fn a_mount_is_refused_for_what_it_says() {
        let check = |folder: &str, expected: Option<&str>| {
            let mount = mount_of(MOUNTS.as_bytes(), Path::new(folder)).unwrap();
            let refusal = if mount.is_nfs() { nfs_refusal(&mount) } else { None };
            match (&refusal, expected) {
                (Some(text), Some(word)) => assert!(text.contains(word), "{folder}: {text}"),
                (refusal, expected) => assert_eq!(refusal.as_deref(), expected, "{folder}"),
            }
        };
        check("/home/pool", None);
        check("/mnt/old/pool", Some("NFS 3"));
        check("/mnt/older", None);
        check("/mnt/new", None);
        check("/mnt/new/deep/pool", None);
        check("/mnt/a b/pool", Some("local_lock=posix"));
        check("/mnt/blind", Some("nolock"));
        check("/mnt/what", Some("unknown version"));
        check("/srv/pool", Some("NFS 3"));
        assert_eq!(mount_of(b"nonsense\n\n1 2 3\n", Path::new("/x")), None);
    }

    #[test]
    fn a_folder_of_this_machine_may_be_a_pool() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refusal(folder.path()).unwrap(), None);
        assert!(refusal(&folder.path().join("gone")).is_err());
    }
}
