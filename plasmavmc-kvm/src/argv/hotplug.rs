//! What QMP is told to add a device to a running VM: the same objects as on the command line.

use plasmavmc_types::{Disk, DiskBus, MachineType, Nic, NicModel, NicNetwork};
use serde_json::Value;

use super::Placed;
use super::disk::{Attachment, disk_device, disk_nodes};
use super::nic::{netdev, nic_device};
use super::slots::{PciSlots, PluggedKind};
use crate::refused::{Reason, Refused};

/// The arguments of the commands that add a disk, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskPlug {
    /// Each for one `blockdev-add`.
    pub nodes: Vec<Value>,
    /// For `device_add`.
    pub device: Value,
}

/// The arguments of the commands that add a network card, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct NicPlug {
    /// For `netdev_add`.
    pub netdev: Value,
    /// For `device_add`.
    pub device: Value,
}

/// Plugs a disk into a VM that has these places taken. The place it gets is noted in `slots`; if a command
/// fails, [`PciSlots::release`] gives it back. `has_scsi`: whether the VM started with a SCSI disk.
pub fn plug_disk(
    machine: &MachineType,
    slots: &mut PciSlots,
    has_scsi: bool,
    disk: &Disk,
    placed: &Placed,
) -> Result<DiskPlug, Refused> {
    let field = format!("disks[{}]", disk.name);
    let refuse = |problem| Refused::new(format!("{field}.bus"), Reason::NotHotPluggable { problem });
    let nodes = disk_nodes(disk, &field, placed)?;
    let attachment = match disk.bus {
        DiskBus::VirtioBlk => Attachment::Pci(slots.take(machine, PluggedKind::Disk, &disk.name, &field)?),
        DiskBus::VirtioScsi if has_scsi => Attachment::Scsi(None),
        DiskBus::VirtioScsi => return Err(refuse("the VM started without a SCSI controller; virtio_blk works")),
        DiskBus::Sata => return Err(refuse("SATA disks are found at boot only; virtio_blk works")),
    };
    Ok(DiskPlug {
        nodes: nodes.into_iter().map(super::option::Object::into_value).collect(),
        device: disk_device(disk, attachment, None).into_value(),
    })
}

/// Plugs a network card into a VM that has these places taken. `tap_names` are the names under which the
/// tap descriptors were handed over with `getfd`, one a queue; none for a card in user mode.
pub fn plug_nic(
    machine: &MachineType,
    slots: &mut PciSlots,
    nic: &Nic,
    tap_names: &[String],
) -> Result<NicPlug, Refused> {
    let field = format!("nics[{}]", nic.name);
    if nic.model != NicModel::Virtio {
        let problem = "only virtio cards are; the others need I/O space that was given away at boot";
        return Err(Refused::new(
            format!("{field}.model"),
            Reason::NotHotPluggable { problem },
        ));
    }
    let netdev = netdev(nic, &field, tap_names)?;
    let place = slots.take(machine, PluggedKind::Nic, &nic.name, &field)?;
    Ok(NicPlug {
        netdev: netdev.into_value(),
        device: nic_device(nic, place, None).into_value(),
    })
}

/// How many tap descriptors a card needs.
pub fn taps_of(nic: &Nic) -> u16 {
    match nic.network {
        NicNetwork::User => 0,
        NicNetwork::Named(_) | NicNetwork::Bridge(_) => nic.queues,
    }
}
