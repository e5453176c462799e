//! What a VM has one of: its identity, processors, memory, firmware, channels and single devices.

use plasmavmc_types::{DirectBoot, Display, Firmware, GuestWatchdog, MachineFamily, VmId, VmSpec};

use super::disk::SCSI_ID;
use super::option::{Arguments, Object, path_text};
use super::slots::Place;
use super::{Accelerator, HostFacts, Placed};
use crate::qemu::QemuVersion;
use crate::refused::{Reason, Refused};
use crate::runtime::file;

/// Everything that QEMU need not do is forbidden to it, in case a guest gets hold of it.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// Begins the name of every QEMU of ours; the VM's id and name follow.
const MARK: &str = "plasmavmc";
pub(super) const AGENT_PORT: &str = "org.qemu.guest_agent.0";
pub(super) const PLASMA_AGENT_PORT: &str = "org.plasmavmc.agent.0";

/// The id that a QEMU of ours was started under, from its arguments; `None` if it is not one of ours.
pub fn vm_id_of<T: AsRef<str>>(arguments: &[T]) -> Option<VmId> {
    let value_of = |option: &str| {
        let mut pairs = arguments.windows(2);
        let pair = pairs.find(|pair| pair[0].as_ref() == option)?;
        Some(pair[1].as_ref())
    };
    let name = value_of("-name")?.strip_prefix("guest=")?;
    let id: VmId = name
        .strip_prefix(MARK)?
        .strip_prefix('/')?
        .split('/')
        .next()?
        .parse()
        .ok()?;
    (value_of("-uuid")?.parse() == Ok(id)).then_some(id)
}

/// The CPU model that a VM gets on a host with this accelerator.
pub fn cpu_model(spec: &VmSpec, accelerator: Accelerator) -> &str {
    match (&spec.cpu.model, accelerator) {
        (Some(model), _) => model.as_str(),
        (None, Accelerator::Kvm) => "host",
        (None, Accelerator::Tcg) => "max",
    }
}

pub(super) fn write_identity(spec: &VmSpec, id: VmId, arguments: &mut Arguments) {
    let name = format!("{MARK}/{id}/{}", spec.name);
    arguments.keyed("-name", &[("guest", &name), ("debug-threads", "on")]);
    arguments.plain("-uuid", id.to_string());
    for flag in ["-no-user-config", "-nodefaults"] {
        arguments.flag(flag);
    }
    arguments.plain("-display", "none");
    arguments.plain("-sandbox", SANDBOX);
    arguments.keyed("-msg", &[("timestamp", "on")]);
    // The guest executes nothing until every channel is attached and somebody says `cont`.
    arguments.flag("-S");
    // A guest that powers off, panics or hangs leaves a paused QEMU behind, which tells what happened.
    arguments.flag("-no-shutdown");
    arguments.keyed("-action", &[("panic", "pause"), ("watchdog", "pause")]);
}

pub(super) fn write_machine(
    spec: &VmSpec,
    host: &HostFacts,
    placed: &Placed,
    arguments: &mut Arguments,
) -> Result<(), Refused> {
    let mut machine = vec![
        ("type", spec.machine.as_str()),
        ("usb", "off"),
        ("vmport", "off"),
        ("dump-guest-core", "off"),
    ];
    match spec.firmware {
        Firmware::Bios => {}
        Firmware::Uefi { secure_boot } => {
            write_flash(secure_boot, host, placed, arguments)?;
            machine.extend([("pflash0", "uefi-code"), ("pflash1", "uefi-vars")]);
            if secure_boot {
                machine.push(("smm", "on"));
            }
        }
    }
    arguments.keyed("-machine", &machine);
    match host.accelerator {
        Accelerator::Kvm => arguments.plain("-accel", "kvm"),
        Accelerator::Tcg => arguments.plain("-accel", "tcg,thread=multi"),
    }
    arguments.plain("-cpu", cpu_model(spec, host.accelerator));
    let (cpus, sockets) = (spec.vcpus.to_string(), spec.cpu.sockets.to_string());
    let cores = (spec.vcpus / spec.cpu.sockets.max(1)).to_string();
    arguments.keyed(
        "-smp",
        &[
            ("cpus", &cpus),
            ("sockets", &sockets),
            ("cores", &cores),
            ("threads", "1"),
        ],
    );
    arguments.keyed("-m", &[("size", &format!("{}M", spec.memory_mb))]);
    arguments.keyed("-rtc", &[("base", "utc"), ("driftfix", "slew")]);
    // A guest that put itself to sleep would look like one that hangs.
    let power = match spec.machine.family() {
        MachineFamily::Q35 => "ICH9-LPC",
        MachineFamily::Pc => "PIIX4_PM",
    };
    for property in ["disable_s3", "disable_s4"] {
        arguments.keyed("-global", &[("driver", power), ("property", property), ("value", "1")]);
    }
    // What is not in the boot order is not booted.
    arguments.keyed("-boot", &[("menu", "off"), ("strict", "on")]);
    spec.direct_boot
        .as_ref()
        .map_or(Ok(()), |boot| write_kernel(boot, arguments))
}

fn write_flash(secure_boot: bool, host: &HostFacts, placed: &Placed, arguments: &mut Arguments) -> Result<(), Refused> {
    let missing = || Refused::new("firmware", Reason::NoFirmware { secure_boot });
    let firmware = host.uefi.for_boot(secure_boot).ok_or_else(missing)?;
    let vars = placed.uefi_vars.as_deref().ok_or_else(missing)?;
    let flash = |name: &str, path: &str, read_only: bool| {
        Object::new("driver", "file")
            .with("node-name", name)
            .with("filename", path)
            .with("locking", "on")
            .with("read-only", read_only)
    };
    arguments.json(
        "-blockdev",
        &flash("uefi-code", path_text("firmware", &firmware.code)?, true),
    );
    arguments.json("-blockdev", &flash("uefi-vars", path_text("firmware", vars)?, false));
    if secure_boot {
        let secure = [("driver", "cfi.pflash01"), ("property", "secure"), ("value", "on")];
        arguments.keyed("-global", &secure);
    }
    Ok(())
}

fn write_kernel(boot: &DirectBoot, arguments: &mut Arguments) -> Result<(), Refused> {
    let field = "direct_boot.kernel";
    arguments.plain("-kernel", path_text(field, &boot.kernel)?);
    if let Some(initrd) = &boot.initrd {
        let field = "direct_boot.initrd";
        let text = path_text(field, initrd)?;
        if text.contains(',') {
            // For a multiboot kernel QEMU takes it for a list of files.
            let text = text.to_owned();
            let problem = "has a comma, which an initrd's path must not have";
            return Err(Refused::new(field, Reason::UnsafeText { text, problem }));
        }
        arguments.plain("-initrd", text);
    }
    if !boot.cmdline.is_empty() {
        arguments.plain("-append", boot.cmdline.as_str());
    }
    Ok(())
}

/// QMP, the serial console and the two agents.
///
/// All paths are relative to the runtime folder that QEMU runs in: an absolute one may be longer than the
/// 107 bytes that a socket's address has. QEMU is the client of the channels, and comes back within a
/// second when we were gone.
pub(super) fn write_channels(spec: &VmSpec, host: &HostFacts, arguments: &mut Arguments) {
    let server = [("path", file::QMP_SOCKET), ("server", "on"), ("wait", "off")];
    arguments.plain("-chardev", chardev("qmp", &server));
    arguments.keyed("-mon", &[("chardev", "qmp"), ("mode", "control")]);

    let reconnect = reconnect_of(host.qemu);
    let log = [
        ("path", file::CONSOLE_SOCKET),
        reconnect,
        ("logfile", file::CONSOLE_LOG),
        ("logappend", "on"),
    ];
    arguments.plain("-chardev", chardev("console", &log));
    arguments.plain("-serial", "chardev:console");

    let family = spec.machine.family();
    let bus = Object::new("driver", "virtio-serial-pci")
        .with("id", "channels")
        .with("max_ports", 4);
    arguments.json("-device", &Place::fixed(family, "0x03").of(bus));
    let ports = [
        ("qga", file::AGENT_SOCKET, AGENT_PORT),
        ("agent", file::PLASMA_AGENT_SOCKET, PLASMA_AGENT_PORT),
    ];
    for (number, (id, path, name)) in (1..).zip(ports) {
        arguments.plain("-chardev", chardev(id, &[("path", path), reconnect]));
        let port = Object::new("driver", "virtserialport")
            .with("id", format!("{id}-port"))
            .with("bus", "channels.0")
            .with("nr", number)
            .with("chardev", id)
            .with("name", name);
        arguments.json("-device", &port);
    }
}

/// `-chardev` is the one option of ours that takes no JSON; all its values are our own words.
fn chardev(id: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("socket,id={id},{}", pairs.join(","))
}

/// 9.2 has milliseconds, and warns of seconds.
fn reconnect_of(qemu: QemuVersion) -> (&'static str, &'static str) {
    if qemu >= QemuVersion::new(9, 2, 0) {
        ("reconnect-ms", "1000")
    } else {
        ("reconnect", "1")
    }
}

pub(super) fn write_single_devices(spec: &VmSpec, arguments: &mut Arguments) {
    let family = spec.machine.family();
    let mut device = |addr: &str, device: Object| {
        arguments.json("-device", &Place::fixed(family, addr).of(device));
    };
    if spec.display == Display::Vnc {
        device("0x02", Object::new("driver", "VGA").with("id", "screen"));
    }
    if spec.rng {
        device(
            "0x04",
            Object::new("driver", "virtio-rng-pci")
                .with("id", "rng")
                .with("rng", "entropy"),
        );
    }
    if spec.balloon {
        let balloon = Object::new("driver", "virtio-balloon-pci").with("id", "balloon");
        device("0x05", balloon.with("deflate-on-oom", true));
    }
    if spec.watchdog == GuestWatchdog::I6300esb {
        device("0x07", Object::new("driver", "i6300esb").with("id", "watchdog"));
    }
    if spec.pvpanic {
        arguments.json("-device", &Object::new("driver", "pvpanic").with("id", "panic"));
    }
    if spec.display == Display::Vnc {
        arguments.plain("-vnc", format!("unix:{}", file::VNC_SOCKET));
    }
}

/// Has to stand before the device that uses it.
pub(super) fn write_entropy(spec: &VmSpec, arguments: &mut Arguments) {
    if spec.rng {
        arguments.json("-object", &Object::new("qom-type", "rng-builtin").with("id", "entropy"));
    }
}

pub(super) fn scsi_controller(family: MachineFamily) -> Object {
    let controller = Object::new("driver", "virtio-scsi-pci").with("id", SCSI_ID);
    Place::fixed(family, "0x06").of(controller)
}

pub(super) fn sata_controller(family: MachineFamily, controller: usize, id: String) -> Object {
    let device = Object::new("driver", "ich9-ahci")
        .with("id", id)
        .with("multifunction", true);
    Place::fixed(family, &format!("0x08.{controller:#x}")).of(device)
}
