//! What is wanted of a VM: the part of its record that its owner decides.

mod disk;
mod machine;
mod nic;
mod policy;
mod word;

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::invalid::Checks;
use crate::{Invalid, Label, VmName};

pub use disk::{BackingImage, Cdrom, Disk, DiskAio, DiskBus, DiskCache, DiskDiscard, DiskFormat, DiskLocation};
pub use machine::{Cpu, DirectBoot, Display, Firmware, GuestWatchdog};
pub use nic::{MacAddress, Nic, NicModel, NicNetwork};
pub use policy::{Affinity, AgentPolicy, Dependency, DependencyReached, HaPolicy, RestartPolicy};
pub use word::{BridgeName, CpuModel, DiskSerial, MachineFamily, MachineType};

const MAX_VCPUS: u32 = 255;
/// Below this no firmware starts.
const MIN_MEMORY_MB: u64 = 16;
const MAX_MEMORY_MB: u64 = 16 * 1024 * 1024;
const MAX_DISKS: usize = 32;
const MAX_CDROMS: usize = 4;
const MAX_NICS: usize = 16;
const MAX_DEPENDENCIES: usize = 64;
const MAX_START_DELAY_S: u32 = 3600;

/// The fields of a specification, to be filled in freely and then checked by [`VmSpec::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpecFields {
    pub name: VmName,
    pub vcpus: u32,
    pub memory_mb: u64,
    #[serde(default)]
    pub cpu: Cpu,
    #[serde(default)]
    pub machine: MachineType,
    #[serde(default)]
    pub firmware: Firmware,
    /// Comes before everything in the boot order.
    #[serde(default)]
    pub direct_boot: Option<DirectBoot>,
    #[serde(default)]
    pub disks: Vec<Disk>,
    #[serde(default)]
    pub cdroms: Vec<Cdrom>,
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// Disks, CD-ROMs and NICs by name, first tried first; what is not named is not tried. Empty: the disks
    /// in their order, then the CD-ROMs. From the network a VM boots only on demand.
    #[serde(default)]
    pub boot_order: Vec<Label>,
    #[serde(default)]
    pub display: Display,
    /// Randomness from the host, so that a guest does not wait for its own at boot.
    #[serde(default = "yes")]
    pub rng: bool,
    /// Lets the host ask the guest for memory it does not need.
    #[serde(default = "yes")]
    pub balloon: bool,
    /// Lets the guest tell that its kernel panicked.
    #[serde(default = "yes")]
    pub pvpanic: bool,
    #[serde(default)]
    pub watchdog: GuestWatchdog,
    #[serde(default)]
    pub agent: AgentPolicy,
    #[serde(default)]
    pub ha: HaPolicy,
    /// Higher goes first, in start, failover and drain; the other way round in stop.
    #[serde(default = "default_priority")]
    pub priority: u8,
    #[serde(default)]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// How long to wait before this VM starts, once everything it depends on is there.
    #[serde(default)]
    pub start_delay_s: u32,
    /// Its guest is left paused at every start, before its first instruction, until it is resumed.
    #[serde(default)]
    pub start_paused: bool,
    #[serde(default)]
    pub affinity: Affinity,
}

fn default_priority() -> u8 {
    VmSpecFields::DEFAULT_PRIORITY
}

fn yes() -> bool {
    true
}

impl VmSpecFields {
    pub const DEFAULT_PRIORITY: u8 = 100;

    /// A VM with a name and a size, and the default for all the rest.
    pub fn new(name: VmName, vcpus: u32, memory_mb: u64) -> Self {
        Self {
            name,
            vcpus,
            memory_mb,
            cpu: Cpu::default(),
            machine: MachineType::default(),
            firmware: Firmware::default(),
            direct_boot: None,
            disks: Vec::new(),
            cdroms: Vec::new(),
            nics: Vec::new(),
            boot_order: Vec::new(),
            display: Display::default(),
            rng: true,
            balloon: true,
            pvpanic: true,
            watchdog: GuestWatchdog::default(),
            agent: AgentPolicy::default(),
            ha: HaPolicy::default(),
            priority: Self::DEFAULT_PRIORITY,
            restart: RestartPolicy::default(),
            depends_on: Vec::new(),
            start_delay_s: 0,
            start_paused: false,
            affinity: Affinity::default(),
        }
    }
}

/// A checked specification. Read its fields through it; change it with [`VmSpec::edit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "VmSpecFields", into = "VmSpecFields")]
pub struct VmSpec(VmSpecFields);

impl VmSpec {
    pub fn new(fields: VmSpecFields) -> Result<Self, Invalid> {
        let mut checks = Checks::of("VM spec");
        checks.require_range("vcpus", fields.vcpus, 1..=MAX_VCPUS);
        checks.require_range("memory_mb", fields.memory_mb, MIN_MEMORY_MB..=MAX_MEMORY_MB);
        machine::check(&fields, &mut checks);
        check_devices(&fields, &mut checks);
        check_boot_order(&fields, &mut checks);
        fields.restart.check(&mut checks);
        checks.require_at_most("depends_on", fields.depends_on.len(), MAX_DEPENDENCIES);
        let needed = fields.depends_on.iter().map(|dependency| dependency.vm);
        checks.require_unique(needed, |index| format!("depends_on[{index}].vm"));
        fields.affinity.check(&mut checks);
        checks.require_range("start_delay_s", fields.start_delay_s, 0..=MAX_START_DELAY_S);
        checks.finish(Self(fields))
    }

    /// The specification with a change, checked again.
    pub fn edit(&self, change: impl FnOnce(&mut VmSpecFields)) -> Result<Self, Invalid> {
        let mut fields = self.0.clone();
        change(&mut fields);
        Self::new(fields)
    }
}

fn check_devices(fields: &VmSpecFields, checks: &mut Checks) {
    let VmSpecFields {
        disks, cdroms, nics, ..
    } = fields;
    checks.require_at_most("disks", disks.len(), MAX_DISKS);
    checks.require_at_most("cdroms", cdroms.len(), MAX_CDROMS);
    checks.require_at_most("nics", nics.len(), MAX_NICS);
    for (index, disk) in disks.iter().enumerate() {
        disk.check(&format!("disks[{index}]"), checks);
    }
    for (index, cdrom) in cdroms.iter().enumerate() {
        cdrom.check(&format!("cdroms[{index}]"), checks);
    }
    for (index, nic) in nics.iter().enumerate() {
        nic.check(&format!("nics[{index}]"), checks);
    }
    checks.require_unique(device_names(fields), |index| match index.checked_sub(disks.len()) {
        None => format!("disks[{index}].name"),
        Some(index) => match index.checked_sub(cdroms.len()) {
            None => format!("cdroms[{index}].name"),
            Some(index) => format!("nics[{index}].name"),
        },
    });
    let locations = disks.iter().map(|disk| &disk.location);
    checks.require_unique(locations, |index| format!("disks[{index}].location"));
    check_backing_is_not_written(disks, checks);
    checks.require_unique(nics.iter().map(|nic| nic.mac), |index| format!("nics[{index}].mac"));
}

/// Boot order names disks, CD-ROMs and NICs alike, so they share one space of names.
fn device_names(fields: &VmSpecFields) -> impl Iterator<Item = &Label> {
    let disks = fields.disks.iter().map(|disk| &disk.name);
    let cdroms = fields.cdroms.iter().map(|cdrom| &cdrom.name);
    disks.chain(cdroms).chain(fields.nics.iter().map(|nic| &nic.name))
}

/// An image that is written falsifies every clone that stands on it.
fn check_backing_is_not_written(disks: &[Disk], checks: &mut Checks) {
    for (index, disk) in disks.iter().enumerate() {
        for (layer, image) in disk.backing.iter().enumerate() {
            let is_own = |other: &usize| *other == index;
            let user = (0..disks.len()).find(|other| !is_own(other) && disks[*other].location == image.location);
            checks.require(
                user.is_none(),
                format!("disks[{index}].backing[{layer}].location"),
                || {
                    let other = user.unwrap_or_default();
                    format!("is {}, which disks[{other}] is made of", image.location)
                },
            );
        }
    }
}

fn check_boot_order(fields: &VmSpecFields, checks: &mut Checks) {
    let field = |index| format!("boot_order[{index}]");
    for (index, name) in fields.boot_order.iter().enumerate() {
        let is_device = device_names(fields).any(|device| device == name);
        checks.require(is_device, field(index), || {
            format!("names {name}, which is no disk, no CD-ROM and no NIC")
        });
    }
    checks.require_unique(&fields.boot_order, field);
}

impl Deref for VmSpec {
    type Target = VmSpecFields;

    fn deref(&self) -> &VmSpecFields {
        &self.0
    }
}

impl TryFrom<VmSpecFields> for VmSpec {
    type Error = Invalid;

    fn try_from(fields: VmSpecFields) -> Result<Self, Invalid> {
        Self::new(fields)
    }
}

impl From<VmSpec> for VmSpecFields {
    fn from(spec: VmSpec) -> Self {
        spec.0
    }
}

#[cfg(test)]
mod tests;
