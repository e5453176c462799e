//! Where on the PCI bus a device sits.
//!
//! Every kind of device has addresses of its own, so that one more disk does not move a network card: the
//! guest names cards after their place. On q35 each hot-pluggable device has a root port, and some ports
//! stay free, since ports cannot be added to a running VM. Those of NICs come first: their buses then have the
//! same numbers however many disks there are.
//!
//! ```text
//!   address   q35                        pc
//!   02        VGA                        VGA
//!   03        channels (virtio-serial)   the same
//!   04        rng                        the same
//!   05        balloon                    the same
//!   06        SCSI controller            the same
//!   07        watchdog                   the same
//!   08.0-7    SATA controllers           the same
//!   09-0f                                NICs
//!   10-11     16 ports for NICs          disks
//!   14-17     32 ports for disks         disks, up to 1f
//! ```

use std::collections::BTreeMap;

use plasmavmc_types::{Label, MachineFamily, MachineType};
use serde::{Deserialize, Serialize};

use super::option::{Arguments, Object};
use crate::refused::{Reason, Refused};

/// How many disks and how many NICs may be added to a running VM on q35, as far as there are ports.
const FREE_PORTS: u8 = 4;
const PORTS_PER_ADDRESS: u8 = 8;

/// Which places of a VM's hot-pluggable devices are taken. Goes with the VM as long as it runs: a device
/// that is added goes to a free place, and one that is removed leaves its place free.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciSlots {
    /// Root ports that exist; a VM on pc has none.
    ports: BTreeMap<PluggedKind, u8>,
    taken: BTreeMap<PluggedKind, BTreeMap<u8, Label>>,
}

/// Kinds of devices that have places of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluggedKind {
    Disk,
    Nic,
}

/// The values of a device's `bus` and `addr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub bus: String,
    pub addr: Option<String>,
}

impl Place {
    /// One of the addresses that belong to one device.
    pub fn fixed(family: MachineFamily, addr: &str) -> Self {
        Self {
            bus: root_bus(family).to_owned(),
            addr: Some(addr.to_owned()),
        }
    }

    pub fn of(self, device: Object) -> Object {
        device.with("bus", self.bus).with_some("addr", self.addr)
    }
}

fn root_bus(family: MachineFamily) -> &'static str {
    match family {
        MachineFamily::Q35 => "pcie.0",
        MachineFamily::Pc => "pci.0",
    }
}

impl PluggedKind {
    fn word(self) -> &'static str {
        match self {
            PluggedKind::Disk => "disk",
            PluggedKind::Nic => "nic",
        }
    }

    /// No two ports of a machine are in one chassis.
    fn first_chassis(self) -> u8 {
        match self {
            PluggedKind::Nic => 1,
            PluggedKind::Disk => 17,
        }
    }

    /// The first address, and how many places there are.
    fn range(self, family: MachineFamily) -> (u8, u8) {
        match (family, self) {
            (MachineFamily::Q35, PluggedKind::Nic) => (0x10, 16),
            (MachineFamily::Q35, PluggedKind::Disk) => (0x14, 32),
            (MachineFamily::Pc, PluggedKind::Nic) => (0x09, 7),
            (MachineFamily::Pc, PluggedKind::Disk) => (0x10, 16),
        }
    }
}

impl PciSlots {
    /// The places of the devices that a VM starts with.
    pub(super) fn assign<'a>(
        machine: &MachineType,
        devices: impl IntoIterator<Item = (PluggedKind, &'a Label, String)>,
    ) -> Result<Self, Refused> {
        let mut slots = Self::default();
        for (kind, name, field) in devices {
            slots.take(machine, kind, name, &field)?;
        }
        if machine.family() == MachineFamily::Q35 {
            for kind in [PluggedKind::Nic, PluggedKind::Disk] {
                let used = slots.taken.get(&kind).map_or(0, BTreeMap::len);
                let used = u8::try_from(used).unwrap_or(u8::MAX);
                let (_, room) = kind.range(MachineFamily::Q35);
                slots.ports.insert(kind, used.saturating_add(FREE_PORTS).min(room));
            }
        }
        Ok(slots)
    }

    /// Takes the first free place for a device.
    pub(super) fn take(
        &mut self,
        machine: &MachineType,
        kind: PluggedKind,
        name: &Label,
        field: &str,
    ) -> Result<Place, Refused> {
        let (_, most) = kind.range(machine.family());
        let room = self.ports.get(&kind).copied().unwrap_or(most);
        let taken = self.taken.entry(kind).or_default();
        let free = (0..room).find(|index| !taken.contains_key(index));
        let machine = machine.clone();
        let index = free.ok_or_else(|| {
            Refused::new(
                field,
                Reason::NoSlot {
                    machine: machine.clone(),
                    room,
                },
            )
        })?;
        taken.insert(index, name.clone());
        Ok(Self::place(machine.family(), kind, index))
    }

    /// Leaves the place of a device that is gone. Without effect if it has none.
    pub fn release(&mut self, kind: PluggedKind, name: &Label) {
        if let Some(taken) = self.taken.get_mut(&kind) {
            taken.retain(|_, holder| holder != name);
        }
    }

    /// Where a device of this name sits.
    pub(super) fn find(&self, family: MachineFamily, kind: PluggedKind, name: &Label) -> Option<Place> {
        let mut taken = self.taken.get(&kind)?.iter();
        let (index, _) = taken.find(|(_, holder)| *holder == name)?;
        Some(Self::place(family, kind, *index))
    }

    fn place(family: MachineFamily, kind: PluggedKind, index: u8) -> Place {
        let (first, _) = kind.range(family);
        match family {
            MachineFamily::Q35 => Place {
                bus: port_id(kind, index),
                addr: None,
            },
            MachineFamily::Pc => Place::fixed(family, &format!("{:#04x}", first + index)),
        }
    }

    /// The root ports themselves.
    ///
    /// A port asks for no I/O space unless its device has to have some: there are 64 KiB of it, which
    /// sixteen ports would use up.
    pub(super) fn write_ports(&self, needs_io: impl Fn(PluggedKind, &Label) -> bool, arguments: &mut Arguments) {
        for (kind, count) in &self.ports {
            let (first, _) = kind.range(MachineFamily::Q35);
            for index in 0..*count {
                let number = index + kind.first_chassis();
                let holder = self.taken.get(kind).and_then(|taken| taken.get(&index));
                let no_io = !holder.is_some_and(|name| needs_io(*kind, name));
                let addr = format!(
                    "{:#04x}.{:#x}",
                    first + index / PORTS_PER_ADDRESS,
                    index % PORTS_PER_ADDRESS
                );
                let port = Object::new("driver", "pcie-root-port")
                    .with("id", port_id(*kind, index))
                    .with("bus", "pcie.0")
                    .with("addr", addr)
                    .with("multifunction", true)
                    .with("chassis", number)
                    .with("port", number)
                    .with_some("io-reserve", no_io.then_some(0));
                arguments.json("-device", &port);
            }
        }
    }
}

fn port_id(kind: PluggedKind, index: u8) -> String {
    format!("{}-port-{index}", kind.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(text: &str) -> MachineType {
        MachineType::new(text).unwrap()
    }

    fn name(index: u8) -> Label {
        Label::new(format!("d{index}")).unwrap()
    }

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let q35 = machine("q35");
        let cold = [
            (PluggedKind::Disk, &name(0), String::new()),
            (PluggedKind::Disk, &name(1), String::new()),
        ];
        let mut slots = PciSlots::assign(&q35, cold).unwrap();
        slots.release(PluggedKind::Disk, &name(0));
        assert_eq!(slots.find(q35.family(), PluggedKind::Disk, &name(0)), None);
        let place = slots.take(&q35, PluggedKind::Disk, &name(9), "disks[2]").unwrap();
        assert_eq!(place.bus, "disk-port-0");
        assert_eq!(slots.find(q35.family(), PluggedKind::Disk, &name(9)), Some(place));
    }

    #[test]
    fn a_vm_has_as_many_places_as_it_started_with() {
        let q35 = machine("q35");
        let mut slots = PciSlots::assign(&q35, [(PluggedKind::Nic, &name(0), String::new())]).unwrap();
        for index in 1..=FREE_PORTS {
            slots.take(&q35, PluggedKind::Nic, &name(index), "nics[1]").unwrap();
        }
        let refused = slots.take(&q35, PluggedKind::Nic, &name(9), "nics[5]").unwrap_err();
        assert_eq!(refused.field, "nics[5]");
        assert!(matches!(refused.reason, Reason::NoSlot { room: 5, .. }), "{refused}");
    }

    #[test]
    fn pc_has_fewer_places_and_no_two_devices_share_one() {
        let pc = machine("pc");
        let mut slots = PciSlots::default();
        let mut seen = std::collections::BTreeSet::new();
        for (kind, count) in [(PluggedKind::Nic, 7), (PluggedKind::Disk, 16)] {
            for index in 0..count {
                let place = slots.take(&pc, kind, &name(index), "x").unwrap();
                assert_eq!(place.bus, "pci.0");
                assert!(seen.insert(place.addr), "{index}");
            }
            assert!(slots.take(&pc, kind, &name(99), "x").is_err());
        }
    }
}
