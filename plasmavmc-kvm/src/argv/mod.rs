//! The command line of a VM, as a pure function: the same specification on the same host always gives the
//! same arguments.
//!
//! Must never happen here: I/O; a value of the specification that becomes an option of its own; a device
//! whose name or place depends on what else is plugged in; an image that QEMU opens without being told to.
//!
//! ```text
//!   VmSpec      what is wanted ----+
//!   HostFacts   what there is -----+--> command_line --> CommandLine --> the guard starts it
//!   Placed      what was prepared -+         |
//!                                            +--> PciSlots --> plug_disk, plug_nic --> QMP
//! ```

mod board;
mod disk;
mod hotplug;
mod names;
mod nic;
mod option;
mod slots;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use plasmavmc_types::{DiskBus, DiskLocation, Label, NicModel, VmId, VmSpec};
use serde::{Deserialize, Serialize};

use crate::qemu::QemuVersion;
use crate::refused::{Reason, Refused};
use disk::{Attachment, cdrom_device, cdrom_nodes, disk_device, disk_nodes};
use nic::{netdev, nic_device};
use option::Arguments;

pub use crate::accel::Accelerator;
pub use board::{cpu_model, vm_id_of};
pub use hotplug::{DiskPlug, NicPlug, plug_disk, plug_nic, taps_of};
pub use names::{disk_device_id, disk_node, disk_nodes_of, file_node, netdev_id, nic_device_id};
pub use slots::{PciSlots, PluggedKind};

/// What a host offers to every VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    pub qemu: QemuVersion,
    pub accelerator: Accelerator,
    pub uefi: UefiFirmwares,
}

/// The UEFI firmware that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UefiFirmwares {
    pub plain: Option<UefiFirmware>,
    pub secure_boot: Option<UefiFirmware>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UefiFirmware {
    /// The same for all VMs.
    pub code: PathBuf,
    /// What every VM gets a copy of, to keep its boot entries in.
    pub vars_template: PathBuf,
}

impl UefiFirmwares {
    pub fn for_boot(&self, secure_boot: bool) -> Option<&UefiFirmware> {
        if secure_boot { &self.secure_boot } else { &self.plain }.as_ref()
    }
}

/// What was prepared on this host for this start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Every volume, and every file that is a block device. A file that is not listed is a plain one.
    pub images: Vec<PlacedImage>,
    /// For each NIC on a bridge, by name: the descriptors that QEMU inherits, one a queue.
    pub taps: BTreeMap<Label, Vec<i32>>,
    /// The VM's own copy of the firmware's variables. Outlives the runtime folder.
    pub uefi_vars: Option<PathBuf>,
}

/// Where an image is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedImage {
    pub location: DiskLocation,
    pub path: PathBuf,
    pub medium: Medium,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    File,
    BlockDevice,
}

impl Placed {
    /// The path of an image on this host, and what it lies on.
    pub fn resolve<'a>(&'a self, field: &str, location: &'a DiskLocation) -> Result<(&'a Path, Medium), Refused> {
        if let Some(image) = self.images.iter().find(|image| image.location == *location) {
            return Ok((&image.path, image.medium));
        }
        match location {
            DiskLocation::File { path } => Ok((path, Medium::File)),
            DiskLocation::Volume { .. } => {
                let location = location.clone();
                Err(Refused::new(field, Reason::NotPlaced { location }))
            }
        }
    }
}

/// How to start a VM. Shown with one argument a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Without the program itself. To be started in the VM's runtime folder.
    pub arguments: Vec<String>,
    /// Where the devices sit, for those that come later.
    pub slots: PciSlots,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arguments.iter().try_for_each(|argument| writeln!(f, "{argument}"))
    }
}

/// The arguments that start this VM on this host.
pub fn command_line(spec: &VmSpec, id: VmId, host: &HostFacts, placed: &Placed) -> Result<CommandLine, Refused> {
    let slots = assign_slots(spec)?;
    let mut arguments = Arguments::default();
    board::write_identity(spec, id, &mut arguments);
    board::write_machine(spec, host, placed, &mut arguments)?;
    slots.write_ports(|kind, name| needs_io(spec, kind, name), &mut arguments);
    board::write_channels(spec, host, &mut arguments);
    board::write_entropy(spec, &mut arguments);
    board::write_single_devices(spec, &mut arguments);
    write_controllers(spec, &mut arguments);
    write_disks(spec, placed, &slots, &mut arguments)?;
    write_nics(spec, placed, &slots, &mut arguments)?;
    let arguments = arguments.finish();
    Ok(CommandLine { arguments, slots })
}

fn assign_slots(spec: &VmSpec) -> Result<PciSlots, Refused> {
    let disks = (0..)
        .zip(&spec.disks)
        .filter(|(_, disk)| disk.bus == DiskBus::VirtioBlk);
    let disks = disks.map(|(index, disk)| (PluggedKind::Disk, &disk.name, format!("disks[{index}]")));
    let nics = (0..).zip(&spec.nics);
    let nics = nics.map(|(index, nic)| (PluggedKind::Nic, &nic.name, format!("nics[{index}]")));
    PciSlots::assign(&spec.machine, disks.chain(nics))
}

fn needs_io(spec: &VmSpec, kind: PluggedKind, name: &Label) -> bool {
    let is_old = |nic: &plasmavmc_types::Nic| nic.name == *name && nic.model == NicModel::E1000;
    kind == PluggedKind::Nic && spec.nics.iter().any(is_old)
}

/// The position of a device in the boot order, counted from 1: 0 is the kernel handed over by the host.
///
/// A VM that says nothing boots its disks and CD-ROMs. From the network it boots only on demand: a disk
/// that does not boot should be noticed, not replaced by whatever answers.
fn boot_index(spec: &VmSpec, name: &Label) -> Option<usize> {
    let disks = spec.disks.iter().map(|disk| &disk.name);
    let default_order = disks.chain(spec.cdroms.iter().map(|cdrom| &cdrom.name));
    let position = if spec.boot_order.is_empty() {
        default_order.into_iter().position(|device| device == name)
    } else {
        spec.boot_order.iter().position(|device| device == name)
    };
    position.map(|position| position + 1)
}

/// How many drives hang on SATA: disks first, then CD-ROMs.
fn sata_disks(spec: &VmSpec) -> usize {
    spec.disks.iter().filter(|disk| disk.bus == DiskBus::Sata).count()
}

fn write_controllers(spec: &VmSpec, arguments: &mut Arguments) {
    let family = spec.machine.family();
    if spec.disks.iter().any(|disk| disk.bus == DiskBus::VirtioScsi) {
        arguments.json("-device", &board::scsi_controller(family));
    }
    let drives = sata_disks(spec) + spec.cdroms.len();
    let controllers = drives
        .checked_sub(1)
        .map_or(0, |last| Attachment::sata_controller(last) + 1);
    for controller in 0..controllers {
        let id = Attachment::sata_controller_id(controller);
        arguments.json("-device", &board::sata_controller(family, controller, id));
    }
}

fn write_disks(spec: &VmSpec, placed: &Placed, slots: &PciSlots, arguments: &mut Arguments) -> Result<(), Refused> {
    let (mut scsi, mut sata) = (0.., 0..);
    for (index, disk) in spec.disks.iter().enumerate() {
        let field = format!("disks[{index}]");
        for node in disk_nodes(disk, &field, placed)? {
            arguments.json("-blockdev", &node);
        }
        let attachment = match disk.bus {
            DiskBus::VirtioScsi => Attachment::Scsi(scsi.next()),
            DiskBus::Sata => Attachment::Sata(sata.next().unwrap_or_default()),
            DiskBus::VirtioBlk => Attachment::Pci(find_slot(spec, slots, PluggedKind::Disk, &disk.name, field)?),
        };
        let boot_index = boot_index(spec, &disk.name);
        arguments.json("-device", &disk_device(disk, attachment, boot_index));
    }
    for (index, cdrom) in spec.cdroms.iter().enumerate() {
        for node in cdrom_nodes(cdrom, &format!("cdroms[{index}]"), placed)? {
            arguments.json("-blockdev", &node);
        }
        let number = sata_disks(spec) + index;
        arguments.json("-device", &cdrom_device(cdrom, number, boot_index(spec, &cdrom.name)));
    }
    Ok(())
}

fn write_nics(spec: &VmSpec, placed: &Placed, slots: &PciSlots, arguments: &mut Arguments) -> Result<(), Refused> {
    for (index, nic) in spec.nics.iter().enumerate() {
        let field = format!("nics[{index}]");
        let taps = placed.taps.get(&nic.name).map(Vec::as_slice).unwrap_or_default();
        let taps: Vec<String> = taps.iter().map(i32::to_string).collect();
        arguments.json("-netdev", &netdev(nic, &field, &taps)?);
        let place = find_slot(spec, slots, PluggedKind::Nic, &nic.name, field)?;
        arguments.json("-device", &nic_device(nic, place, boot_index(spec, &nic.name)));
    }
    Ok(())
}

fn find_slot(
    spec: &VmSpec,
    slots: &PciSlots,
    kind: PluggedKind,
    name: &Label,
    field: String,
) -> Result<slots::Place, Refused> {
    let machine = spec.machine.clone();
    let found = slots.find(machine.family(), kind, name);
    found.ok_or_else(|| Refused::new(field, Reason::NoSlot { machine, room: 0 }))
}
