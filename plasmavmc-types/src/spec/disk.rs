//! What a VM stores its data on and reads it from.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DiskSerial;
use crate::invalid::Checks;
use crate::{Label, PoolName};

const MAX_DISK_MB: u64 = 256 * 1024 * 1024;
/// Every layer costs a read of the guest more time.
const MAX_BACKING: usize = 8;
/// What Linux allows.
const MAX_PATH_BYTES: usize = 4095;

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Unique among the disks, CD-ROMs and NICs of the VM.
    pub name: Label,
    pub location: DiskLocation,
    #[serde(default)]
    pub format: DiskFormat,
    pub size_mb: u64,
    #[serde(default)]
    pub bus: DiskBus,
    #[serde(default)]
    pub read_only: bool,
    /// The images under this one, where it is a clone: first the one it was made of, then that one's. An
    /// image is never opened because another one names it.
    #[serde(default)]
    pub backing: Vec<BackingImage>,
    #[serde(default)]
    pub cache: DiskCache,
    #[serde(default)]
    pub aio: DiskAio,
    #[serde(default)]
    pub discard: DiskDiscard,
    /// Without one: the disk's name, where it is short enough to be a serial number.
    #[serde(default)]
    pub serial: Option<DiskSerial>,
}

/// An image that another one is a clone of. It is only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackingImage {
    pub location: DiskLocation,
    pub format: DiskFormat,
}

/// A CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cdrom {
    /// Unique among the disks, CD-ROMs and NICs of the VM.
    pub name: Label,
    /// An ISO image; without one the drive is empty.
    #[serde(default)]
    pub image: Option<DiskLocation>,
}

/// Where the bytes of a disk are. Decides which hosts can open it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DiskLocation {
    /// A volume of a pool; the pool says which hosts share it.
    Volume { pool: PoolName, volume: Label },
    /// A file or block device of one host.
    File { path: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    #[default]
    Qcow2,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskBus {
    #[default]
    VirtioBlk,
    VirtioScsi,
    Sata,
}

/// What stands between the guest's writes and the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskCache {
    /// Past the host's page cache. The default, and the one to use on shared pools: a host that lost its VM
    /// must not write out old pages later.
    #[default]
    None,
    /// Through the host's page cache, flushed when the guest flushes.
    Writeback,
    /// As `writeback`, flushed after every write.
    Writethrough,
    /// As `none`, flushed after every write.
    Directsync,
    /// Never flushed: for data that may be lost.
    Unsafe,
}

impl DiskCache {
    /// Whether the host's page cache is left out.
    pub fn is_direct(self) -> bool {
        matches!(self, DiskCache::None | DiskCache::Directsync)
    }
}

/// How QEMU waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskAio {
    #[default]
    Threads,
    /// Linux AIO. Only with a cache mode that leaves out the page cache.
    Native,
    IoUring,
}

/// What becomes of space that the guest no longer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskDiscard {
    /// It is given back to the host.
    #[default]
    Unmap,
    Ignore,
}

impl Disk {
    /// A disk with the default for all the rest.
    pub fn new(name: Label, location: DiskLocation, size_mb: u64) -> Self {
        Self {
            name,
            location,
            format: DiskFormat::default(),
            size_mb,
            bus: DiskBus::default(),
            read_only: false,
            backing: Vec::new(),
            cache: DiskCache::default(),
            aio: DiskAio::default(),
            discard: DiskDiscard::default(),
            serial: None,
        }
    }

    pub(super) fn check(&self, field: &str, checks: &mut Checks) {
        checks.require_range(format!("{field}.size_mb"), self.size_mb, 1..=MAX_DISK_MB);
        self.location.check(&format!("{field}.location"), checks);
        checks.require(
            !(self.read_only && self.bus == DiskBus::Sata),
            format!("{field}.read_only"),
            || "is set, but a SATA disk cannot be; use virtio_blk or virtio_scsi".to_owned(),
        );
        let is_async_cached = self.aio == DiskAio::Native && !self.cache.is_direct();
        checks.require(!is_async_cached, format!("{field}.aio"), || {
            "is native, which needs cache none or directsync".to_owned()
        });
        self.check_backing(&format!("{field}.backing"), checks);
    }

    fn check_backing(&self, field: &str, checks: &mut Checks) {
        checks.require_at_most(field, self.backing.len(), MAX_BACKING);
        // Only qcow2 can stand on another image; raw can only be the last.
        let formats = std::iter::once(self.format).chain(self.backing.iter().map(|image| image.format));
        for (index, (above, image)) in formats.zip(&self.backing).enumerate() {
            checks.require(above == DiskFormat::Qcow2, format!("{field}[{index}]"), || {
                "lies under a raw image, which cannot be a clone".to_owned()
            });
            image.location.check(&format!("{field}[{index}].location"), checks);
        }
        let chain = std::iter::once(&self.location).chain(self.backing.iter().map(|image| &image.location));
        checks.require_unique(chain, |index| match index.checked_sub(1) {
            None => field.replace("backing", "location"),
            Some(index) => format!("{field}[{index}].location"),
        });
    }
}

impl Cdrom {
    pub(super) fn check(&self, field: &str, checks: &mut Checks) {
        if let Some(image) = &self.image {
            image.check(&format!("{field}.image"), checks);
        }
    }
}

impl DiskLocation {
    fn check(&self, field: &str, checks: &mut Checks) {
        if let DiskLocation::File { path } = self {
            let problem = refuse_path(path);
            checks.require(problem.is_none(), format!("{field}.path"), || {
                problem.unwrap_or_default()
            });
        }
    }
}

/// A path must mean the same file whoever reads it from wherever, and must survive as text.
pub(super) fn refuse_path(path: &Path) -> Option<String> {
    let Some(text) = path.to_str() else {
        return Some("is not UTF-8".to_owned());
    };
    if !path.is_absolute() {
        Some(format!("is {text:?}, which is not absolute"))
    } else if path.components().any(|part| part == Component::ParentDir) {
        Some(format!("is {text:?}, which goes back with `..`"))
    } else if text.contains(char::is_control) {
        Some(format!("is {text:?}, which has a control character"))
    } else if text.len() > MAX_PATH_BYTES {
        Some(format!(
            "has {} bytes, at most {MAX_PATH_BYTES} are allowed",
            text.len()
        ))
    } else {
        None
    }
}

impl fmt::Display for DiskLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskLocation::Volume { pool, volume } => write!(f, "volume {volume} of pool {pool}"),
            DiskLocation::File { path } => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_must_be_absolute_plain_and_short() {
        assert_eq!(refuse_path(Path::new("/srv/vms/a,b.qcow2")), None);
        for bad in [
            "disk.img",
            "/srv/../etc/shadow",
            "/srv/a\nb",
            &format!("/{}", "x".repeat(4095)),
        ] {
            assert!(refuse_path(Path::new(bad)).is_some(), "{bad}");
        }
    }
}
