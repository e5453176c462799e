//! Words that end up in a command line or in a guest, and so are made of harmless characters only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Why a text is no word of letters, digits, dots, hyphens and underscores that begins with one of the first two.
fn refuse_word(text: &str, max_bytes: usize) -> Option<String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() {
        Some("is empty".to_owned())
    } else if text.len() > max_bytes {
        Some(format!("has {} bytes, at most {max_bytes} are allowed", text.len()))
    } else if let Some(bad) = text.chars().find(|c| !is_inner(*c)) {
        Some(format!(
            "{text:?} has {bad:?}; letters, digits, dots, hyphens and underscores are allowed"
        ))
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some(format!("{text:?} must start with a letter or a digit"))
    } else {
        None
    }
}

fn refuse_machine_type(text: &str) -> Option<String> {
    refuse_word(text, 64).or_else(|| {
        let is_version = |version: &str| {
            let mut parts = version.split('.');
            let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            parts.clone().count() == 2 && parts.all(is_number)
        };
        let pinned = text.strip_prefix("pc-q35-").or_else(|| text.strip_prefix("pc-i440fx-"));
        let is_known = matches!(text, "q35" | "pc") || pinned.is_some_and(is_version);
        let reason =
            format!("{text:?} is unknown; q35, pc, pc-q35-7.2 and pc-i440fx-7.2 (or another version) are allowed");
        (!is_known).then_some(reason)
    })
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $refuse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
                let text = text.into();
                let refuse: fn(&str) -> Option<String> = $refuse;
                match refuse(&text) {
                    None => Ok(Self(text)),
                    Some(problem) => Err(Invalid::whole($what, problem)),
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

word!(
    /// A CPU model as QEMU names it: `max`, `EPYC-v4`.
    CpuModel,
    "CPU model",
    |text| refuse_word(text, 64)
);
word!(
    /// The board of a VM: `q35`, `pc`, or one of their versions, which keeps the guest's hardware the same
    /// when QEMU is upgraded. Whether the QEMU of a host has that version is found out there.
    MachineType,
    "machine type",
    refuse_machine_type
);
word!(
    /// The serial number that the guest reads from a disk. 20 bytes are what all buses carry.
    DiskSerial,
    "serial number",
    |text| refuse_word(text, 20)
);
word!(
    /// A network bridge of a host, named as the kernel allows it.
    BridgeName,
    "bridge name",
    |text| refuse_word(text, 15)
);

/// The two families of boards. They differ in what can be plugged in where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineFamily {
    /// PCI Express.
    Q35,
    /// Plain PCI, for old guests.
    Pc,
}

impl MachineType {
    pub fn family(&self) -> MachineFamily {
        if self.0.contains("q35") {
            MachineFamily::Q35
        } else {
            MachineFamily::Pc
        }
    }
}

impl Default for MachineType {
    fn default() -> Self {
        Self("q35".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_harmless_in_a_command_line() {
        for good in ["max", "EPYC-v4", "486", "Skylake-Client-noTSX-IBRS"] {
            assert!(CpuModel::new(good).is_ok(), "{good}");
        }
        for bad in ["", "max,+vmx", "-max", "a b", "a=b", "a\nb", "ä", ".a"] {
            assert!(CpuModel::new(bad).is_err(), "{bad:?}");
        }
        assert!(DiskSerial::new("x".repeat(21)).is_err());
        assert!(BridgeName::new("a/b").is_err() && BridgeName::new("x".repeat(16)).is_err());
    }

    #[test]
    fn machine_types_are_of_two_families() {
        let table = [
            ("q35", MachineFamily::Q35),
            ("pc-q35-7.2", MachineFamily::Q35),
            ("pc", MachineFamily::Pc),
            ("pc-i440fx-10.0", MachineFamily::Pc),
        ];
        for (text, family) in table {
            assert_eq!(MachineType::new(text).unwrap().family(), family, "{text}");
        }
        for bad in [
            "vax",
            "microvm",
            "pc-q35-",
            "pc-q35-7",
            "pc-q35-7.2.1",
            "q35,accel=kvm",
            "pc-q35-7.2-x",
        ] {
            assert!(MachineType::new(bad).is_err(), "{bad}");
        }
        assert_eq!(MachineType::default().as_str(), "q35");
    }
}
