//! Words that end up in a command line or in a guest, and so are made of harmless characters only.

use crate::text::{checked_text, refuse_word};

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

checked_text!(
    /// A CPU model as QEMU names it: `max`, `EPYC-v4`.
    CpuModel,
    "CPU model",
    |text| refuse_word(text, 64)
);
checked_text!(
    /// The board of a VM: `q35`, `pc`, or one of their versions, which keeps the guest's hardware the same
    /// when QEMU is upgraded. Whether the QEMU of a host has that version is found out there.
    MachineType,
    "machine type",
    refuse_machine_type
);
checked_text!(
    /// The serial number that the guest reads from a disk. 20 bytes are what all buses carry.
    DiskSerial,
    "serial number",
    |text| refuse_word(text, 20)
);
checked_text!(
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
