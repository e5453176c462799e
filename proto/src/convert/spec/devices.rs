//! Reading what a VM stores its data on and how it is plugged into networks.

use plasmavmc_types::{
    BackingImage, BridgeName, Cdrom, Disk, DiskAio, DiskBus, DiskCache, DiskDiscard, DiskFormat, DiskLocation,
    DiskSerial, MacAddress, Nic, NicModel, NicNetwork, PoolName,
};

use super::super::read_enum;
use super::read::SpecReader;
use crate::api;

impl SpecReader<'_> {
    pub(super) fn disk(&mut self, field: &str, disk: api::Disk) -> Option<Disk> {
        let name = self.label(&format!("{field}.name"), disk.name)?;
        let location = self.location(&format!("{field}.location"), disk.location);
        let backing = self.each(&format!("{field}.backing"), disk.backing, Self::backing);
        let serial = (!disk.serial.is_empty()).then_some(disk.serial);
        Some(Disk {
            format: self.format(field, disk.format),
            bus: self.bus(field, disk.bus),
            read_only: disk.read_only,
            backing,
            cache: self.cache(field, disk.cache),
            aio: self.aio(field, disk.aio),
            discard: self.discard(field, disk.discard),
            serial: serial.and_then(|text| self.checks.take(&format!("{field}.serial"), DiskSerial::new(text))),
            ..Disk::new(name, location, disk.size_mb)
        })
    }

    pub(super) fn cdrom(&mut self, field: &str, cdrom: api::Cdrom) -> Option<Cdrom> {
        let image = cdrom.image.filter(|image| image.location.is_some());
        Some(Cdrom {
            name: self.label(&format!("{field}.name"), cdrom.name)?,
            image: image.map(|image| self.location(&format!("{field}.image"), Some(image))),
        })
    }

    pub(super) fn nic(&mut self, field: &str, nic: api::Nic) -> Option<Nic> {
        let name = self.label(&format!("{field}.name"), nic.name)?;
        let mac = self.mac(&format!("{field}.mac"), &nic.mac)?;
        let network = self.network(field, nic.network)?;
        let model = match read_enum(&mut self.checks, &format!("{field}.model"), nic.model) {
            None | Some(api::NicModel::Virtio) => NicModel::Virtio,
            Some(api::NicModel::E1000) => NicModel::E1000,
        };
        Some(Nic {
            model,
            // Too many for a number is too many for a NIC, which is checked with the rest.
            queues: u16::try_from(nic.queues.max(1)).unwrap_or(u16::MAX),
            ..Nic::new(name, mac, network)
        })
    }

    fn backing(&mut self, field: &str, image: api::BackingImage) -> Option<BackingImage> {
        Some(BackingImage {
            location: self.location(&format!("{field}.location"), image.location),
            format: self.format(field, image.format),
        })
    }

    fn location(&mut self, field: &str, location: Option<api::DiskLocation>) -> DiskLocation {
        use api::disk_location::Location;
        match location.and_then(|location| location.location) {
            Some(Location::Path(path)) => DiskLocation::File { path: path.into() },
            Some(Location::Volume(volume)) => {
                let pool = self
                    .checks
                    .take(&format!("{field}.volume.pool"), PoolName::new(volume.pool));
                let label = self.label(&format!("{field}.volume.volume"), volume.volume);
                match (pool, label) {
                    (Some(pool), Some(volume)) => DiskLocation::Volume { pool, volume },
                    _ => self.some_location(),
                }
            }
            None => {
                self.checks.refuse(field, "is missing: give a volume or a path");
                self.some_location()
            }
        }
    }

    /// A place that nothing else is at.
    fn some_location(&mut self) -> DiskLocation {
        let path = format!("/unreadable/{}", self.replacement()).into();
        DiskLocation::File { path }
    }

    fn format(&mut self, field: &str, number: i32) -> DiskFormat {
        match read_enum(&mut self.checks, &format!("{field}.format"), number) {
            None | Some(api::DiskFormat::Qcow2) => DiskFormat::Qcow2,
            Some(api::DiskFormat::Raw) => DiskFormat::Raw,
        }
    }

    fn bus(&mut self, field: &str, number: i32) -> DiskBus {
        match read_enum(&mut self.checks, &format!("{field}.bus"), number) {
            None | Some(api::DiskBus::VirtioBlk) => DiskBus::VirtioBlk,
            Some(api::DiskBus::VirtioScsi) => DiskBus::VirtioScsi,
            Some(api::DiskBus::Sata) => DiskBus::Sata,
        }
    }

    fn cache(&mut self, field: &str, number: i32) -> DiskCache {
        match read_enum(&mut self.checks, &format!("{field}.cache"), number) {
            None | Some(api::DiskCache::None) => DiskCache::None,
            Some(api::DiskCache::Writeback) => DiskCache::Writeback,
            Some(api::DiskCache::Writethrough) => DiskCache::Writethrough,
            Some(api::DiskCache::Directsync) => DiskCache::Directsync,
            Some(api::DiskCache::Unsafe) => DiskCache::Unsafe,
        }
    }

    fn aio(&mut self, field: &str, number: i32) -> DiskAio {
        match read_enum(&mut self.checks, &format!("{field}.aio"), number) {
            None | Some(api::DiskAio::Unspecified) => DiskAio::default(),
            Some(api::DiskAio::Threads) => DiskAio::Threads,
            Some(api::DiskAio::Native) => DiskAio::Native,
            Some(api::DiskAio::IoUring) => DiskAio::IoUring,
        }
    }

    fn discard(&mut self, field: &str, number: i32) -> DiskDiscard {
        match read_enum(&mut self.checks, &format!("{field}.discard"), number) {
            None | Some(api::DiskDiscard::Unspecified) => DiskDiscard::default(),
            Some(api::DiskDiscard::Unmap) => DiskDiscard::Unmap,
            Some(api::DiskDiscard::Ignore) => DiskDiscard::Ignore,
        }
    }

    fn mac(&mut self, field: &str, text: &str) -> Option<MacAddress> {
        if text.is_empty() {
            let made = self.make_mac();
            if made.is_some() {
                return made;
            }
            self.checks.refuse(field, "is missing");
        } else {
            let read = self.checks.take(field, text.parse());
            if read.is_some() {
                return read;
            }
        }
        let [.., high, low] = self.replacement().to_be_bytes();
        // An address of no maker: nothing that a client wrote is likely to be the same.
        MacAddress::new([0x02, 0xff, 0xff, 0xff, high, low]).ok()
    }

    fn network(&mut self, field: &str, network: Option<api::nic::Network>) -> Option<NicNetwork> {
        use api::nic::Network;
        match network {
            Some(Network::Named(name)) => self.label(&format!("{field}.named"), name).map(NicNetwork::Named),
            Some(Network::Bridge(name)) => {
                let bridge = self.checks.take(&format!("{field}.bridge"), BridgeName::new(name));
                let bridge = bridge.or_else(|| BridgeName::new("unreadable").ok())?;
                Some(NicNetwork::Bridge(bridge))
            }
            Some(Network::User(true)) => Some(NicNetwork::User),
            Some(Network::User(false)) => {
                let problem = "is false, which plugs it into nothing: give named, bridge or user = true";
                self.checks.refuse(format!("{field}.user"), problem);
                Some(NicNetwork::User)
            }
            None => {
                let problem = "is plugged into nothing: give named, bridge or user = true";
                self.checks.refuse(field, problem);
                Some(NicNetwork::User)
            }
        }
    }
}
