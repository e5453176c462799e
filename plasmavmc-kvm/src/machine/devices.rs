//! Devices that come and go while the guest executes. The record is written before QEMU is told, so that a
//! server that comes later knows every place that may be taken.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_types::{Disk, DiskBus, Label, Nic, VmSpec};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::MachineError;
use super::hands::Hands;
use super::{Action, patience};
use crate::argv::{
    PlacedImage, PluggedKind, disk_device_id, disk_node, disk_nodes_of, netdev_id, nic_device_id, plug_disk, plug_nic,
};
use crate::qmp::{EventsError, Qmp};
use crate::runtime::{RuntimeFolder, StartRecord};

const MIB: u64 = 1024 * 1024;

/// A VM's record on its way through a change.
pub struct Ledger {
    pub folder: Arc<RuntimeFolder>,
    pub record: StartRecord,
}

impl Ledger {
    fn write(&self) -> Result<(), MachineError> {
        Ok(self.folder.write_record(&self.record)?)
    }

    /// Goes back to what was before a change that has failed. On the way it may have been written.
    fn settle(&mut self, before: StartRecord, done: Result<(), MachineError>) -> Result<(), MachineError> {
        if done.is_err() && self.record != before {
            self.record = before;
            // Whoever reads it later compares it with QEMU.
            if let Err(error) = self.write() {
                tracing::warn!(vm = %self.record.id, %error, "the record tells of a device that was not added");
            }
        }
        done
    }

    fn edit(&mut self, change: impl FnOnce(&mut plasmavmc_types::VmSpecFields)) -> Result<(), MachineError> {
        self.record.spec = self.record.spec.edit(change)?;
        Ok(())
    }
}

pub async fn add_disk(
    hands: &Hands,
    ledger: &mut Ledger,
    disk: Disk,
    images: Vec<PlacedImage>,
) -> Result<(), MachineError> {
    let qmp = hands.qmp(Action::Devices)?;
    let before = ledger.record.clone();
    let added = try_add_disk(qmp, ledger, disk, images).await;
    ledger.settle(before, added)
}

async fn try_add_disk(
    qmp: &Qmp,
    ledger: &mut Ledger,
    disk: Disk,
    images: Vec<PlacedImage>,
) -> Result<(), MachineError> {
    require_new(&ledger.record.spec, &disk.name)?;
    let record = &mut ledger.record;
    let has_scsi = record.spec.disks.iter().any(|disk| disk.bus == DiskBus::VirtioScsi);
    record.placed.images.extend(images);
    let plug = plug_disk(&record.spec.machine, &mut record.slots, has_scsi, &disk, &record.placed)?;
    ledger.edit(|fields| fields.disks.push(disk.clone()))?;
    ledger.write()?;
    let added = async {
        for node in &plug.nodes {
            qmp.execute_raw("blockdev-add", node.clone(), patience::DISK_COMMAND)
                .await?;
        }
        qmp.execute_raw("device_add", plug.device.clone(), patience::COMMAND)
            .await
    };
    if let Err(error) = added.await {
        // The last node first: it stands on the others. One that was not added is refused, which is fine.
        for node in plug.nodes.iter().rev() {
            let name = json!({ "node-name": node.get("node-name") });
            let _ = qmp.execute_raw("blockdev-del", name, patience::DISK_COMMAND).await;
        }
        return Err(error.into());
    }
    Ok(())
}

pub async fn remove_disk(hands: &Hands, ledger: &mut Ledger, name: &Label) -> Result<(), MachineError> {
    let qmp = hands.qmp(Action::Devices)?;
    let disks = &ledger.record.spec.disks;
    let Some(disk) = disks.iter().find(|disk| disk.name == *name).cloned() else {
        return Err(no_such("disk", name));
    };
    unplug(qmp, &disk_device_id(name)).await?;
    for node in nodes_of(qmp, &disk).await? {
        qmp.execute_raw("blockdev-del", json!({ "node-name": node }), patience::DISK_COMMAND)
            .await?;
    }
    ledger.record.slots.release(PluggedKind::Disk, name);
    ledger.edit(|fields| {
        fields.disks.retain(|disk| disk.name != *name);
        fields.boot_order.retain(|device| device != name);
    })?;
    ledger.write()
}

/// The block nodes of a disk, from the one the guest sees down: those that QEMU has.
async fn nodes_of(qmp: &Qmp, disk: &Disk) -> Result<Vec<String>, MachineError> {
    let answer = qmp
        .execute_raw("query-named-block-nodes", json!({ "flat": true }), patience::COMMAND)
        .await?;
    let present: Vec<&str> = answer
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node.get("node-name")?.as_str())
        .collect();
    let ours = disk_nodes_of(disk);
    Ok(ours
        .into_iter()
        .filter(|node| present.contains(&node.as_str()))
        .collect())
}

pub async fn add_nic(hands: &Hands, ledger: &mut Ledger, nic: Nic, taps: Vec<OwnedFd>) -> Result<(), MachineError> {
    let qmp = hands.qmp(Action::Devices)?;
    let before = ledger.record.clone();
    let added = try_add_nic(qmp, ledger, nic, taps).await;
    ledger.settle(before, added)
}

async fn try_add_nic(qmp: &Qmp, ledger: &mut Ledger, nic: Nic, taps: Vec<OwnedFd>) -> Result<(), MachineError> {
    require_new(&ledger.record.spec, &nic.name)?;
    let names: Vec<String> = (0..taps.len())
        .map(|queue| format!("tap{queue}-{}", nic.name))
        .collect();
    let record = &mut ledger.record;
    let plug = plug_nic(&record.spec.machine, &mut record.slots, &nic, &names)?;
    ledger.edit(|fields| fields.nics.push(nic.clone()))?;
    ledger.write()?;
    let added = async {
        for (name, tap) in names.iter().zip(taps) {
            qmp.getfd(name, tap, patience::COMMAND).await?;
        }
        qmp.execute_raw("netdev_add", plug.netdev, patience::COMMAND).await?;
        qmp.execute_raw("device_add", plug.device, patience::COMMAND).await
    };
    if let Err(error) = added.await {
        let _ = qmp
            .execute_raw("netdev_del", json!({ "id": netdev_id(&nic.name) }), patience::COMMAND)
            .await;
        // A tap lives as long as a descriptor of it. One that the card had taken over is refused, which is fine.
        for name in names {
            let _ = qmp
                .execute_raw("closefd", json!({ "fdname": name }), patience::COMMAND)
                .await;
        }
        return Err(error.into());
    }
    Ok(())
}

pub async fn remove_nic(hands: &Hands, ledger: &mut Ledger, name: &Label) -> Result<(), MachineError> {
    let qmp = hands.qmp(Action::Devices)?;
    if !ledger.record.spec.nics.iter().any(|nic| nic.name == *name) {
        return Err(no_such("NIC", name));
    }
    unplug(qmp, &nic_device_id(name)).await?;
    qmp.execute_raw("netdev_del", json!({ "id": netdev_id(name) }), patience::COMMAND)
        .await?;
    ledger.record.slots.release(PluggedKind::Nic, name);
    ledger.edit(|fields| {
        fields.nics.retain(|nic| nic.name != *name);
        fields.boot_order.retain(|device| device != name);
    })?;
    ledger.write()
}

/// Takes out of a record what QEMU does not have: whoever wrote it died between the record and QEMU.
pub async fn forget_missing(qmp: &Qmp, ledger: &mut Ledger) -> Result<(), MachineError> {
    let present = present_devices(qmp).await?;
    let spec = ledger.record.spec.clone();
    let lost_disks = spec
        .disks
        .iter()
        .filter(|disk| !present.contains(&disk_device_id(&disk.name)));
    let lost_nics = spec
        .nics
        .iter()
        .filter(|nic| !present.contains(&nic_device_id(&nic.name)));
    let (lost_disks, lost_nics): (Vec<&Disk>, Vec<&Nic>) = (lost_disks.collect(), lost_nics.collect());
    if lost_disks.is_empty() && lost_nics.is_empty() {
        return Ok(());
    }
    for disk in &lost_disks {
        tracing::warn!(vm = %ledger.record.id, disk = %disk.name, "is in the record, but not in QEMU");
        for node in nodes_of(qmp, disk).await? {
            qmp.execute_raw("blockdev-del", json!({ "node-name": node }), patience::DISK_COMMAND)
                .await?;
        }
        ledger.record.slots.release(PluggedKind::Disk, &disk.name);
    }
    for nic in &lost_nics {
        tracing::warn!(vm = %ledger.record.id, nic = %nic.name, "is in the record, but not in QEMU");
        // It is refused if the host's side was never added either.
        let _ = qmp
            .execute_raw("netdev_del", json!({ "id": netdev_id(&nic.name) }), patience::COMMAND)
            .await;
        ledger.record.slots.release(PluggedKind::Nic, &nic.name);
    }
    let is_lost = |name: &Label| {
        lost_disks.iter().any(|disk| disk.name == *name) || lost_nics.iter().any(|nic| nic.name == *name)
    };
    ledger.edit(|fields| {
        fields.disks.retain(|disk| !is_lost(&disk.name));
        fields.nics.retain(|nic| !is_lost(&nic.name));
        fields.boot_order.retain(|name| !is_lost(name));
    })?;
    ledger.write()
}

/// Asks the guest to let a device go, and waits until it has.
async fn unplug(qmp: &Qmp, device: &str) -> Result<(), MachineError> {
    let mut events = qmp.events();
    let deadline = Instant::now() + patience::UNPLUG;
    let not_released = || MachineError::NotReleased {
        device: device.to_owned(),
        within: patience::UNPLUG,
    };
    qmp.execute_raw("device_del", json!({ "id": device }), patience::COMMAND)
        .await?;
    loop {
        let event = match tokio::time::timeout_at(deadline, events.next()).await {
            Err(_) => return Err(not_released()),
            Ok(Ok(event)) => event,
            Ok(Err(EventsError::Closed)) => return Err(not_released()),
            // Whether it is gone has to be asked for.
            Ok(Err(EventsError::Lagged { .. })) if !present_devices(qmp).await?.contains(device) => return Ok(()),
            Ok(Err(EventsError::Lagged { .. })) => continue,
        };
        let is_it = event.data.get("device").and_then(Value::as_str) == Some(device);
        match event.name.as_str() {
            "DEVICE_DELETED" if is_it => return Ok(()),
            "DEVICE_UNPLUG_GUEST_ERROR" if is_it => return Err(not_released()),
            _ => {}
        }
    }
}

/// The devices that have names.
async fn present_devices(qmp: &Qmp) -> Result<BTreeSet<String>, MachineError> {
    let answer = qmp
        .execute_raw("qom-list", json!({ "path": "/machine/peripheral" }), patience::COMMAND)
        .await?;
    let entries = answer.as_array().into_iter().flatten();
    Ok(entries
        .filter_map(|entry| Some(entry.get("name")?.as_str()?.to_owned()))
        .collect())
}

/// Makes a disk bigger. The guest sees it at once.
pub async fn resize_disk(hands: &Hands, ledger: &mut Ledger, name: &Label, size_mb: u64) -> Result<(), MachineError> {
    let qmp = hands.qmp(Action::Devices)?;
    let Some(disk) = ledger.record.spec.disks.iter().find(|disk| disk.name == *name) else {
        return Err(no_such("disk", name));
    };
    if size_mb < disk.size_mb {
        return Err(MachineError::WouldShrink {
            name: name.to_string(),
            have_mb: disk.size_mb,
        });
    }
    let arguments = json!({ "node-name": disk_node(name), "size": size_mb * MIB });
    qmp.execute_raw("block_resize", arguments, patience::DISK_COMMAND)
        .await?;
    ledger.edit(|fields| {
        for disk in fields.disks.iter_mut().filter(|disk| disk.name == *name) {
            disk.size_mb = size_mb;
        }
    })?;
    ledger.write()
}

/// A picture of the screen, as PNG.
pub async fn screenshot(hands: &Hands, folder: &RuntimeFolder) -> Result<Vec<u8>, MachineError> {
    const MAX_PICTURE_BYTES: u64 = 64 * MIB;
    let qmp = hands.qmp(Action::Screenshot)?;
    let name = "screen.png";
    // In its working folder: QEMU may be another user, and may write nowhere else.
    qmp.execute_raw(
        "screendump",
        json!({ "filename": name, "format": "png" }),
        Duration::from_secs(10),
    )
    .await?;
    Ok(folder.take_file(name, MAX_PICTURE_BYTES)?)
}

fn require_new(spec: &VmSpec, name: &Label) -> Result<(), MachineError> {
    let disks = spec.disks.iter().map(|disk| &disk.name);
    let cdroms = spec.cdroms.iter().map(|cdrom| &cdrom.name);
    let nics = spec.nics.iter().map(|nic| &nic.name);
    if disks.chain(cdroms).chain(nics).any(|present| present == name) {
        let name = name.to_string();
        return Err(MachineError::DeviceExists { name });
    }
    Ok(())
}

fn no_such(what: &'static str, name: &Label) -> MachineError {
    MachineError::NoSuchDevice {
        what,
        name: name.to_string(),
    }
}
