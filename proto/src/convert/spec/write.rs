//! Writing a specification: every default is spelt out, so that a later version with other defaults reads
//! what was meant.

use plasmavmc_types::{
    Affinity, AgentPolicy, BackingImage, Cdrom, Dependency, DependencyReached, DirectBoot, Disk, DiskAio, DiskBus,
    DiskCache, DiskDiscard, DiskFormat, DiskLocation, Display, Firmware, GuestWatchdog, HaPolicy, Nic, NicModel,
    NicNetwork, RestartPolicy, VmSpec,
};

use crate::api;

impl From<&VmSpec> for api::VmSpec {
    fn from(spec: &VmSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            vcpus: spec.vcpus,
            memory_mb: spec.memory_mb,
            cpu: Some(api::Cpu {
                sockets: spec.cpu.sockets,
                model: spec.cpu.model.as_ref().map(ToString::to_string).unwrap_or_default(),
            }),
            machine: spec.machine.to_string(),
            firmware: firmware(spec.firmware).into(),
            direct_boot: spec.direct_boot.as_ref().map(direct_boot),
            disks: spec.disks.iter().map(disk).collect(),
            cdroms: spec.cdroms.iter().map(cdrom).collect(),
            nics: spec.nics.iter().map(nic).collect(),
            boot_order: spec.boot_order.iter().map(ToString::to_string).collect(),
            display: match spec.display {
                Display::Vnc => api::Display::Vnc,
                Display::None => api::Display::None,
            }
            .into(),
            rng: Some(spec.rng),
            balloon: Some(spec.balloon),
            pvpanic: Some(spec.pvpanic),
            watchdog: match spec.watchdog {
                GuestWatchdog::None => api::GuestWatchdog::None,
                GuestWatchdog::I6300esb => api::GuestWatchdog::I6300esb,
            }
            .into(),
            agent: agent(spec.agent).into(),
            ha: ha(spec.ha).into(),
            priority: Some(spec.priority.into()),
            restart: Some(restart(spec.restart)),
            depends_on: spec.depends_on.iter().map(dependency).collect(),
            start_delay_s: spec.start_delay_s,
            start_paused: spec.start_paused,
            affinity: Some(affinity(&spec.affinity)),
        }
    }
}

fn firmware(firmware: Firmware) -> api::Firmware {
    match firmware {
        Firmware::Bios => api::Firmware::Bios,
        Firmware::Uefi { secure_boot: false } => api::Firmware::Uefi,
        Firmware::Uefi { secure_boot: true } => api::Firmware::UefiSecureBoot,
    }
}

fn agent(agent: AgentPolicy) -> api::AgentPolicy {
    match agent {
        AgentPolicy::Required => api::AgentPolicy::Required,
        AgentPolicy::Optional => api::AgentPolicy::Optional,
        AgentPolicy::None => api::AgentPolicy::None,
    }
}

fn ha(ha: HaPolicy) -> api::HaPolicy {
    match ha {
        HaPolicy::Auto => api::HaPolicy::Auto,
        HaPolicy::On => api::HaPolicy::On,
        HaPolicy::Off => api::HaPolicy::Off,
    }
}

fn restart(restart: RestartPolicy) -> api::RestartPolicy {
    let (never, tries, window_s) = match restart {
        RestartPolicy::Never => (true, 0, 0),
        RestartPolicy::OnCrash { tries, window_s } => (false, tries, window_s),
    };
    api::RestartPolicy { never, tries, window_s }
}

/// Paths are checked to be UTF-8 when a specification is made.
fn direct_boot(boot: &DirectBoot) -> api::DirectBoot {
    api::DirectBoot {
        kernel: boot.kernel.display().to_string(),
        initrd: boot
            .initrd
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        cmdline: boot.cmdline.clone(),
    }
}

fn location(location: &DiskLocation) -> api::DiskLocation {
    use api::disk_location::Location;
    let location = match location {
        DiskLocation::File { path } => Location::Path(path.display().to_string()),
        DiskLocation::Volume { pool, volume } => Location::Volume(api::Volume {
            pool: pool.to_string(),
            volume: volume.to_string(),
        }),
    };
    api::DiskLocation {
        location: Some(location),
    }
}

fn format(format: DiskFormat) -> i32 {
    match format {
        DiskFormat::Qcow2 => api::DiskFormat::Qcow2,
        DiskFormat::Raw => api::DiskFormat::Raw,
    }
    .into()
}

fn disk(disk: &Disk) -> api::Disk {
    let backing = |image: &BackingImage| api::BackingImage {
        location: Some(location(&image.location)),
        format: format(image.format),
    };
    api::Disk {
        name: disk.name.to_string(),
        location: Some(location(&disk.location)),
        format: format(disk.format),
        size_mb: disk.size_mb,
        bus: match disk.bus {
            DiskBus::VirtioBlk => api::DiskBus::VirtioBlk,
            DiskBus::VirtioScsi => api::DiskBus::VirtioScsi,
            DiskBus::Sata => api::DiskBus::Sata,
        }
        .into(),
        read_only: disk.read_only,
        backing: disk.backing.iter().map(backing).collect(),
        cache: match disk.cache {
            DiskCache::None => api::DiskCache::None,
            DiskCache::Writeback => api::DiskCache::Writeback,
            DiskCache::Writethrough => api::DiskCache::Writethrough,
            DiskCache::Directsync => api::DiskCache::Directsync,
            DiskCache::Unsafe => api::DiskCache::Unsafe,
        }
        .into(),
        aio: match disk.aio {
            DiskAio::Threads => api::DiskAio::Threads,
            DiskAio::Native => api::DiskAio::Native,
            DiskAio::IoUring => api::DiskAio::IoUring,
        }
        .into(),
        discard: match disk.discard {
            DiskDiscard::Unmap => api::DiskDiscard::Unmap,
            DiskDiscard::Ignore => api::DiskDiscard::Ignore,
        }
        .into(),
        serial: disk.serial.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn cdrom(cdrom: &Cdrom) -> api::Cdrom {
    api::Cdrom {
        name: cdrom.name.to_string(),
        image: cdrom.image.as_ref().map(location),
    }
}

fn nic(nic: &Nic) -> api::Nic {
    use api::nic::Network;
    api::Nic {
        name: nic.name.to_string(),
        mac: nic.mac.to_string(),
        network: Some(match &nic.network {
            NicNetwork::Named(name) => Network::Named(name.to_string()),
            NicNetwork::Bridge(name) => Network::Bridge(name.to_string()),
            NicNetwork::User => Network::User(true),
        }),
        model: match nic.model {
            NicModel::Virtio => api::NicModel::Virtio,
            NicModel::E1000 => api::NicModel::E1000,
        }
        .into(),
        queues: nic.queues.into(),
    }
}

fn dependency(dependency: &Dependency) -> api::Dependency {
    api::Dependency {
        vm: dependency.vm.to_string(),
        until: match dependency.until {
            DependencyReached::Ready => api::DependencyReached::Ready,
            DependencyReached::Running => api::DependencyReached::Running,
        }
        .into(),
    }
}

fn affinity(affinity: &Affinity) -> api::Affinity {
    let ids = |vms: &[plasmavmc_types::VmId]| vms.iter().map(ToString::to_string).collect();
    let names = |hosts: &[plasmavmc_types::HostName]| hosts.iter().map(ToString::to_string).collect();
    api::Affinity {
        hosts: names(&affinity.hosts),
        apart_from: ids(&affinity.apart_from),
        together_with: ids(&affinity.together_with),
        prefer_hosts: names(&affinity.prefer_hosts),
        prefer_apart_from: ids(&affinity.prefer_apart_from),
        prefer_together_with: ids(&affinity.prefer_together_with),
    }
}
