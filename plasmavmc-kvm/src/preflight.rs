//! All that a VM can be refused for on a host, found out before anything is made for it.
//!
//! Must never change anything, and never stop at the first finding: whoever made three mistakes is told
//! three things. What is fine now may not be when QEMU starts; then QEMU says so.

use std::path::Path;

use plasmavmc_types::{Firmware, NicNetwork, VmSpec};

use crate::argv::{HostFacts, Medium, Placed, PlacedImage};
use crate::image::{QemuImg, check_readable};
use crate::qemu::Qemu;
use crate::refused::{Reason, Refused};

const KIB_PER_MIB: u64 = 1024;

/// Where the host describes itself.
#[derive(Debug, Clone, Copy)]
pub struct HostFiles<'a> {
    pub meminfo: &'a Path,
    /// One folder for each network interface.
    pub class_net: &'a Path,
}

impl HostFiles<'static> {
    /// Those of the host that this program runs on.
    pub fn own() -> Self {
        Self {
            meminfo: Path::new("/proc/meminfo"),
            class_net: Path::new("/sys/class/net"),
        }
    }
}

/// The programs that a VM needs.
#[derive(Debug, Clone, Copy)]
pub struct Programs<'a> {
    pub qemu: &'a Qemu,
    pub qemu_img: &'a QemuImg,
}

/// Checks whether this VM can start here. Returns where its images are, for [`Placed::images`].
pub async fn check(
    spec: &VmSpec,
    programs: Programs<'_>,
    host: &HostFacts,
    files: HostFiles<'_>,
    placed: &Placed,
) -> Result<Vec<PlacedImage>, Vec<Refused>> {
    let mut refusals = Vec::new();
    refusals.extend(programs.qemu.check_machine(&spec.machine).await.err());
    refusals.extend(check_memory(spec, files.meminfo));
    refusals.extend(check_bridges(spec, files.class_net));
    refusals.extend(check_boot_files(spec, host).await);
    let (images, refused) = check_images(spec, programs.qemu_img, placed).await;
    refusals.extend(refused);
    if refusals.is_empty() { Ok(images) } else { Err(refusals) }
}

/// A host that does not tell its memory refuses nothing for it.
fn check_memory(spec: &VmSpec, meminfo: &Path) -> Option<Refused> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let host_kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    let (wanted_mb, host_mb) = (spec.memory_mb, host_kib / KIB_PER_MIB);
    let reason = Reason::MemoryExceedsHost { wanted_mb, host_mb };
    (wanted_mb > host_mb).then(|| Refused::new("memory_mb", reason))
}

fn check_bridges(spec: &VmSpec, class_net: &Path) -> Vec<Refused> {
    let check = |(index, nic): (usize, &plasmavmc_types::Nic)| {
        let NicNetwork::Bridge(bridge) = &nic.network else {
            return None;
        };
        let interface = class_net.join(bridge.as_str());
        let bridge = bridge.to_string();
        let reason = if !interface.exists() {
            Reason::NoBridge { bridge }
        } else if !interface.join("bridge").exists() {
            Reason::NotABridge { interface: bridge }
        } else {
            return None;
        };
        Some(Refused::new(format!("nics[{index}].network"), reason))
    };
    spec.nics.iter().enumerate().filter_map(check).collect()
}

async fn check_boot_files(spec: &VmSpec, host: &HostFacts) -> Vec<Refused> {
    let mut files: Vec<(&str, &Path)> = Vec::new();
    let mut refusals = Vec::new();
    if let Some(boot) = &spec.direct_boot {
        files.push(("direct_boot.kernel", &boot.kernel));
        files.extend(
            boot.initrd
                .as_ref()
                .map(|initrd| ("direct_boot.initrd", initrd.as_path())),
        );
    }
    if let Firmware::Uefi { secure_boot } = spec.firmware {
        match host.uefi.for_boot(secure_boot) {
            Some(firmware) => files.push(("firmware", &firmware.code)),
            None => refusals.push(Refused::new("firmware", Reason::NoFirmware { secure_boot })),
        }
    }
    for (field, path) in files {
        let reason = match check_readable(path).await {
            Ok(Medium::File) => continue,
            Ok(Medium::BlockDevice) => Reason::NotAFile { path: path.to_owned() },
            Err(reason) => reason,
        };
        refusals.push(Refused::new(field, reason));
    }
    refusals
}

async fn check_images(spec: &VmSpec, qemu_img: &QemuImg, placed: &Placed) -> (Vec<PlacedImage>, Vec<Refused>) {
    let (mut images, mut refusals) = (Vec::new(), Vec::new());
    for (index, disk) in spec.disks.iter().enumerate() {
        match qemu_img.check_disk(&format!("disks[{index}]"), disk, placed).await {
            Ok(found) => images.extend(found),
            Err(refused) => refusals.push(refused),
        }
    }
    for (index, cdrom) in spec.cdroms.iter().enumerate() {
        match qemu_img.check_cdrom(&format!("cdroms[{index}]"), cdrom, placed).await {
            Ok(found) => images.extend(found),
            Err(refused) => refusals.push(refused),
        }
    }
    // Two disks may stand on one image.
    images.sort_by(|a: &PlacedImage, b| a.location.cmp(&b.location));
    images.dedup();
    (images, refusals)
}

#[cfg(test)]
mod tests {
    use plasmavmc_types::{
        BridgeName, Cdrom, DirectBoot, Disk, DiskLocation, Label, MacAddress, MachineType, Nic, VmName, VmSpecFields,
    };

    use super::*;
    use crate::argv::{Accelerator, UefiFirmwares};

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn bridged(name: &str, bridge: &str, last: u8) -> Nic {
        let mac = MacAddress::new([0x52, 0x54, 0, 0, 0, last]).unwrap();
        Nic::new(label(name), mac, NicNetwork::Bridge(BridgeName::new(bridge).unwrap()))
    }

    #[tokio::test]
    async fn everything_that_is_wrong_is_told_at_once_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("meminfo"), "MemFree: 1 kB\nMemTotal:       2097152 kB\n").unwrap();
        std::fs::create_dir_all(path("net/br0/bridge")).unwrap();
        std::fs::create_dir_all(path("net/eth0")).unwrap();
        let before = std::fs::read_dir(folder.path()).unwrap().count();

        let mut fields = VmSpecFields::new(VmName::new("vm").unwrap(), 1, 2049);
        let file = |name: &str| DiskLocation::File { path: path(name) };
        fields.machine = MachineType::new("pc-q35-99.9").unwrap();
        fields.firmware = Firmware::Uefi { secure_boot: true };
        fields.nics = vec![bridged("a", "br0", 1), bridged("b", "eth0", 2), bridged("c", "br9", 3)];
        fields.disks = vec![Disk::new(label("root"), file("none"), 8)];
        fields.cdroms = vec![Cdrom {
            name: label("cd"),
            image: Some(file("net")),
        }];
        fields.direct_boot = Some(DirectBoot {
            kernel: path("vmlinuz"),
            initrd: Some(path("meminfo")),
            cmdline: String::new(),
        });
        let spec = VmSpec::new(fields).unwrap();
        let (qemu, qemu_img) = (Qemu::find(None).await.unwrap(), QemuImg::find(None).await.unwrap());
        let host = HostFacts {
            qemu: qemu.version(),
            accelerator: Accelerator::Tcg,
            uefi: UefiFirmwares::default(),
        };
        let files = HostFiles {
            meminfo: &path("meminfo"),
            class_net: &path("net"),
        };
        let programs = Programs {
            qemu: &qemu,
            qemu_img: &qemu_img,
        };
        let refusals = check(&spec, programs, &host, files, &Placed::default())
            .await
            .unwrap_err();
        let fields: Vec<&str> = refusals.iter().map(|refused| refused.field.as_str()).collect();
        let expected = [
            "machine",
            "memory_mb",
            "nics[1].network",
            "nics[2].network",
            "firmware",
            "direct_boot.kernel",
            "disks[0].location",
            "cdroms[0].image",
        ];
        assert_eq!(fields, expected, "{refusals:?}");
        assert!(refusals[1].to_string().contains("2049 MB, but the host has 2048 MB"));
        assert!(matches!(refusals[2].reason, Reason::NotABridge { .. }));
        assert!(refusals[3].remedy().contains("ip link add br9"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    }

    #[tokio::test]
    async fn a_vm_that_needs_nothing_special_starts_on_this_host() {
        let spec = VmSpec::new(VmSpecFields::new(VmName::new("vm").unwrap(), 1, 64)).unwrap();
        let (qemu, qemu_img) = (Qemu::find(None).await.unwrap(), QemuImg::find(None).await.unwrap());
        let host = HostFacts {
            qemu: qemu.version(),
            accelerator: Accelerator::Tcg,
            uefi: UefiFirmwares::installed(),
        };
        let programs = Programs {
            qemu: &qemu,
            qemu_img: &qemu_img,
        };
        let images = check(&spec, programs, &host, HostFiles::own(), &Placed::default()).await;
        assert_eq!(images, Ok(Vec::new()));
    }
}
