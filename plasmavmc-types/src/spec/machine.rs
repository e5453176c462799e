//! The board of a VM: processors, firmware, the kernel it may be given, and the devices a VM has one of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::refuse_path;
use super::{CpuModel, MachineFamily, VmSpecFields};
use crate::invalid::Checks;

/// What the kernel of Linux takes; anything longer would be cut off silently.
const MAX_CMDLINE_BYTES: usize = 2047;

/// How the vcpus look to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// The vcpus are spread evenly over the sockets; the rest are cores.
    #[serde(default = "one_socket")]
    pub sockets: u32,
    /// Without one: the best that the accelerator of the host offers.
    #[serde(default)]
    pub model: Option<CpuModel>,
}

fn one_socket() -> u32 {
    1
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            sockets: one_socket(),
            model: None,
        }
    }
}

impl Cpu {
    pub(crate) fn check(&self, vcpus: u32, checks: &mut Checks) {
        let divides = self.sockets > 0 && vcpus.is_multiple_of(self.sockets);
        checks.require(divides, "cpu.sockets", || {
            format!("is {}, which does not divide the {vcpus} vcpus evenly", self.sockets)
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Firmware {
    #[default]
    Bios,
    Uefi {
        #[serde(default)]
        secure_boot: bool,
    },
}

/// A kernel that the firmware is handed by the host, instead of one read from a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectBoot {
    pub kernel: PathBuf,
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    #[serde(default)]
    pub cmdline: String,
}

impl DirectBoot {
    fn check(&self, checks: &mut Checks) {
        let files = [
            ("direct_boot.kernel", Some(&self.kernel)),
            ("direct_boot.initrd", self.initrd.as_ref()),
        ];
        for (field, path) in files {
            let problem = path.and_then(|path| refuse_path(path));
            checks.require(problem.is_none(), field, || problem.unwrap_or_default());
        }
        let field = "direct_boot.cmdline";
        let bytes = self.cmdline.len();
        checks.require(bytes <= MAX_CMDLINE_BYTES, field, || {
            format!("has {bytes} bytes, at most {MAX_CMDLINE_BYTES} are allowed")
        });
        checks.require(!self.cmdline.contains(char::is_control), field, || {
            "has a control character".to_owned()
        });
    }
}

/// Whether the guest has a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Display {
    /// A VGA card, shown over VNC.
    #[default]
    Vnc,
    /// The serial console only.
    None,
}

/// Hangs of the guest are noticed by a watchdog that the guest itself has to feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestWatchdog {
    #[default]
    None,
    /// Expiry pauses the guest; what happens then is the host's decision.
    I6300esb,
}

pub(super) fn check(fields: &VmSpecFields, checks: &mut Checks) {
    fields.cpu.check(fields.vcpus, checks);
    let is_secure = fields.firmware == Firmware::Uefi { secure_boot: true };
    let family = fields.machine.family();
    checks.require(!is_secure || family == MachineFamily::Q35, "firmware", || {
        format!(
            "asks for secure boot, which machine type {} cannot do; q35 can",
            fields.machine
        )
    });
    if let Some(direct_boot) = &fields.direct_boot {
        direct_boot.check(checks);
    }
}
