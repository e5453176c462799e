//! Disks and CD-ROMs: the chain of block nodes, and the device on top.
//!
//! Every image of a chain is a node of its own with its format said, and the last one is told that it
//! stands on nothing. So QEMU never looks at which file a header names, nor guesses a format: a guest that
//! writes a header into its raw disk gains nothing.

use plasmavmc_types::{Cdrom, Disk, DiskAio, DiskBus, DiskCache, DiskDiscard, DiskFormat, DiskSerial, Label};
use serde_json::{Value, json};

use super::names::{backing_nodes, disk_device_id, disk_node, file_node};
use super::option::{Object, path_text};
use super::slots::Place;
use super::{Medium, Placed};
use crate::refused::{FormatName, Refused};

/// How many drives one SATA controller has.
const PORTS_PER_SATA: usize = 6;
pub(super) const SCSI_ID: &str = "scsi";

/// How an image is opened.
struct Access {
    read_only: bool,
    cache: DiskCache,
    aio: DiskAio,
    discard: DiskDiscard,
}

impl Access {
    fn of(disk: &Disk) -> Self {
        Self {
            read_only: disk.read_only,
            cache: disk.cache,
            aio: disk.aio,
            discard: disk.discard,
        }
    }

    fn of_backing(disk: &Disk) -> Self {
        Self {
            read_only: true,
            discard: DiskDiscard::Ignore,
            ..Self::of(disk)
        }
    }

    fn of_cdrom() -> Self {
        Self {
            read_only: true,
            cache: DiskCache::Writeback,
            aio: DiskAio::Threads,
            discard: DiskDiscard::Ignore,
        }
    }

    fn apply(&self, node: Object) -> Object {
        let cache = json!({ "direct": self.cache.is_direct(), "no-flush": self.cache == DiskCache::Unsafe });
        let discard = match self.discard {
            DiskDiscard::Unmap => "unmap",
            DiskDiscard::Ignore => "ignore",
        };
        node.with("read-only", self.read_only)
            .with("cache", cache)
            .with("discard", discard)
    }

    fn file_node(&self, name: &str, path: &str, medium: Medium) -> Object {
        let driver = match medium {
            Medium::File => "file",
            Medium::BlockDevice => "host_device",
        };
        let aio = match self.aio {
            DiskAio::Threads => "threads",
            DiskAio::Native => "native",
            DiskAio::IoUring => "io_uring",
        };
        // Without `locking`, QEMU goes without locks where it cannot have them, and says nothing.
        let node = Object::new("driver", driver)
            .with("node-name", name)
            .with("filename", path)
            .with("locking", "on")
            .with("aio", aio);
        self.apply(node)
    }

    fn format_node(&self, name: &str, format: DiskFormat, file: &str, backing: Option<&str>) -> Object {
        let node = Object::new("driver", &FormatName(format).to_string())
            .with("node-name", name)
            .with("file", file);
        let node = match format {
            DiskFormat::Qcow2 => node.with("backing", backing.map_or(Value::Null, Value::from)),
            DiskFormat::Raw => node,
        };
        self.apply(node)
    }
}

/// The nodes of a disk, each after those it stands on.
pub(super) fn disk_nodes(disk: &Disk, field: &str, placed: &Placed) -> Result<Vec<Object>, Refused> {
    let mut nodes = Vec::new();
    let mut below: Option<String> = None;
    let access = Access::of_backing(disk);
    for (index, image) in disk.backing.iter().enumerate().rev() {
        let field = format!("{field}.backing[{index}].location");
        let (format_name, file_name) = backing_nodes(&disk.name, index + 1);
        let (path, medium) = placed.resolve(&field, &image.location)?;
        nodes.push(access.file_node(&file_name, path_text(&field, path)?, medium));
        nodes.push(access.format_node(&format_name, image.format, &file_name, below.as_deref()));
        below = Some(format_name);
    }
    let field = format!("{field}.location");
    let access = Access::of(disk);
    let (path, medium) = placed.resolve(&field, &disk.location)?;
    let file_name = file_node(&disk.name);
    nodes.push(access.file_node(&file_name, path_text(&field, path)?, medium));
    nodes.push(access.format_node(&disk_node(&disk.name), disk.format, &file_name, below.as_deref()));
    Ok(nodes)
}

pub(super) fn cdrom_nodes(cdrom: &Cdrom, field: &str, placed: &Placed) -> Result<Vec<Object>, Refused> {
    let Some(image) = &cdrom.image else {
        return Ok(Vec::new());
    };
    let field = format!("{field}.image");
    let access = Access::of_cdrom();
    let (path, medium) = placed.resolve(&field, image)?;
    let file_name = file_node(&cdrom.name);
    let file = access.file_node(&file_name, path_text(&field, path)?, medium);
    let format = access.format_node(&disk_node(&cdrom.name), DiskFormat::Raw, &file_name, None);
    Ok(vec![file, format])
}

/// Where a disk is attached: its own PCI place, a number on the SCSI bus, a number among the SATA drives.
pub(super) enum Attachment {
    Pci(Place),
    /// Without a number QEMU takes the first that is free.
    Scsi(Option<usize>),
    Sata(usize),
}

impl Attachment {
    pub fn sata_controller(number: usize) -> usize {
        number / PORTS_PER_SATA
    }

    pub fn sata_controller_id(controller: usize) -> String {
        format!("sata{controller}")
    }

    fn of(self, device: Object) -> Object {
        match self {
            Attachment::Pci(place) => place.of(device),
            Attachment::Scsi(number) => device.with("bus", format!("{SCSI_ID}.0")).with_some("scsi-id", number),
            Attachment::Sata(number) => {
                let controller = Self::sata_controller_id(Self::sata_controller(number));
                device.with("bus", format!("{controller}.{}", number % PORTS_PER_SATA))
            }
        }
    }
}

/// The device that the guest sees.
pub(super) fn disk_device(disk: &Disk, attachment: Attachment, boot_index: Option<usize>) -> Object {
    let driver = match disk.bus {
        DiskBus::VirtioBlk => "virtio-blk-pci",
        DiskBus::VirtioScsi => "scsi-hd",
        DiskBus::Sata => "ide-hd",
    };
    let is_write_back = !matches!(disk.cache, DiskCache::Writethrough | DiskCache::Directsync);
    let device = Object::new("driver", driver)
        .with("id", disk_device_id(&disk.name))
        .with("drive", disk_node(&disk.name))
        .with("write-cache", if is_write_back { "on" } else { "off" })
        // A write that fails pauses the guest, which can go on once there is room again. A sector that
        // cannot be read would stop it forever, so that is the guest's to know.
        .with("werror", "stop")
        .with("rerror", "report")
        .with_some("serial", serial_of(disk))
        .with_some("bootindex", boot_index);
    attachment.of(device)
}

pub(super) fn cdrom_device(cdrom: &Cdrom, number: usize, boot_index: Option<usize>) -> Object {
    let drive = cdrom.image.as_ref().map(|_| disk_node(&cdrom.name));
    let device = Object::new("driver", "ide-cd")
        .with("id", disk_device_id(&cdrom.name))
        .with_some("drive", drive)
        .with_some("bootindex", boot_index);
    Attachment::Sata(number).of(device)
}

fn serial_of(disk: &Disk) -> Option<String> {
    let named = |name: &Label| DiskSerial::new(name.as_str()).ok();
    let serial = disk.serial.clone().or_else(|| named(&disk.name));
    serial.map(|serial| serial.to_string())
}
