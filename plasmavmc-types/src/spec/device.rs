//! The devices of a VM.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::invalid::Checks;
use crate::{Invalid, Label, PoolName};

const MAX_DISK_MB: u64 = 256 * 1024 * 1024;
/// What Linux allows.
const MAX_PATH_BYTES: usize = 4095;

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Unique among the disks and NICs of the VM.
    pub name: Label,
    pub location: DiskLocation,
    #[serde(default)]
    pub format: DiskFormat,
    pub size_mb: u64,
    #[serde(default)]
    pub bus: DiskBus,
    #[serde(default)]
    pub read_only: bool,
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

impl Disk {
    pub(crate) fn check(&self, field: &str, checks: &mut Checks) {
        checks.require_range(format!("{field}.size_mb"), self.size_mb, 1..=MAX_DISK_MB);
        if let DiskLocation::File { path } = &self.location {
            let problem = refuse_path(path);
            checks.require(problem.is_none(), format!("{field}.location.path"), || {
                problem.unwrap_or_default()
            });
        }
    }
}

/// A path must mean the same file whoever reads it from wherever, and must survive as text.
fn refuse_path(path: &Path) -> Option<String> {
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

/// A network interface of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Unique among the disks and NICs of the VM.
    pub name: Label,
    pub mac: MacAddress,
    /// The network it is plugged into.
    pub network: Label,
    #[serde(default)]
    pub model: NicModel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicModel {
    #[default]
    Virtio,
    E1000,
}

/// The address of one network card: never a group address, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    pub fn new(bytes: [u8; 6]) -> Result<Self, Invalid> {
        let address = Self(bytes);
        if bytes == [0; 6] {
            Err(Invalid::whole("MAC address", "is all zero"))
        } else if bytes[0] & 1 == 1 {
            Err(Invalid::whole(
                "MAC address",
                format!("{address} means a group, not one card"),
            ))
        } else {
            Ok(address)
        }
    }

    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::whole("MAC address", format!("{text:?} is not of the form 52:54:00:12:34:56"));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(malformed)?;
            let is_hex = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !is_hex {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Self::new(bytes)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_back_in_lower_case() {
        let address: MacAddress = "52:54:00:AB:cd:01".parse().unwrap();
        assert_eq!(address.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(address.bytes(), [0x52, 0x54, 0, 0xab, 0xcd, 1]);
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let table = [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:1",
            "52:54:00:ab:cd:+1",
            "52-54-00-ab-cd-01",
            "01:54:00:ab:cd:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ];
        for bad in table {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

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
