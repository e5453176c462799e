//! The real QEMU takes every case, opens the files that were meant, and takes the same objects over QMP.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use plasmavmc_kvm::argv::{
    Accelerator, Medium, Placed, PlacedImage, PluggedKind, command_line, disk_node, file_node, netdev_id, plug_disk,
    plug_nic,
};
use plasmavmc_kvm::qemu::{Qemu, QemuVersion};
use plasmavmc_types::{
    Disk, DiskFormat, DiskLocation, Label, MacAddress, Nic, NicNetwork, VmName, VmSpec, VmSpecFields,
};
use serde_json::json;

use crate::cases::{Case, all, host, id};
use crate::running::Running;

/// A folder so deep that no socket in it can be reached by its full path.
fn deep_vms(root: &Path) -> std::path::PathBuf {
    let vms = root.join("d".repeat(100)).join("e".repeat(100));
    assert!(vms.as_os_str().len() > 200);
    vms
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("install qemu-utils");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn make_image(path: &Path, format: DiskFormat) {
    match format {
        DiskFormat::Qcow2 => qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "8M"]),
        DiskFormat::Raw => File::create(path).unwrap().set_len(8 << 20).unwrap(),
    }
}

/// Makes every file that the case names.
fn prepare(case: &Case, images: &Path) {
    let path_of = |location: &DiskLocation| case.placed.resolve("", location).unwrap().0.to_owned();
    for disk in &case.spec.disks {
        for image in &disk.backing {
            make_image(&path_of(&image.location), image.format);
        }
        make_image(&path_of(&disk.location), disk.format);
    }
    for image in case.spec.cdroms.iter().filter_map(|cdrom| cdrom.image.as_ref()) {
        make_image(&path_of(image), DiskFormat::Raw);
    }
    std::fs::write(images.join("kernel"), kernel_header()).unwrap();
    std::fs::write(images.join("initrd"), "initrd").unwrap();
    if let Some(firmware) = case.host.uefi.for_boot(case.name == "secure-boot") {
        std::fs::copy(&firmware.vars_template, images.join("uefi-vars.fd")).expect("install ovmf");
    }
}

/// As much of a Linux kernel as QEMU looks at before it executes it, which it never does here.
fn kernel_header() -> Vec<u8> {
    let mut kernel = vec![0; 8192];
    let mut put = |offset: usize, bytes: &[u8]| kernel[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020c_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    kernel
}

/// Taps for the NICs on bridges, inheritable, and their numbers in place of those of the file.
fn open_taps(case: &mut Case) -> Vec<OwnedFd> {
    let mut taps = Vec::new();
    for (name, numbers) in &mut case.placed.taps {
        let is_multi = numbers.len() > 1;
        for number in numbers {
            let tap = tap::open(&format!("pvt-{name}"), is_multi);
            *number = tap.as_raw_fd();
            taps.push(tap);
        }
    }
    taps
}

#[tokio::test]
async fn qemu_takes_every_case_and_opens_what_was_meant() {
    let version = Qemu::find(None).await.unwrap().version();
    let mut taken = 0;
    for name in all("/images").into_iter().map(|case| case.name) {
        let root = tempfile::tempdir().unwrap();
        let mut cases = all(root.path().to_str().unwrap()).into_iter();
        let mut case = cases.find(|case| case.name == name).unwrap();
        if case.host.qemu > version || case.host.accelerator == Accelerator::Kvm {
            continue;
        }
        case.host.qemu = version;
        prepare(&case, root.path());
        let taps = open_taps(&mut case);
        let mut running = Running::start(&case.command_line(), &deep_vms(root.path())).await;
        drop(taps);
        check_disks(&case, &mut running).await;
        assert_eq!(running.ask("query-status", json!({})).await["status"], "prelaunch");
        assert_eq!(running.ask("query-uuid", json!({})).await["UUID"], id().to_string());
        let cpus = running.ask("query-cpus-fast", json!({})).await;
        assert_eq!(cpus.as_array().unwrap().len(), case.spec.vcpus as usize);
        running.quit().await;
        taken += 1;
    }
    assert!(taken >= 8, "only {taken} cases were tried");
}

async fn check_disks(case: &Case, running: &mut Running) {
    let blocks = running.ask("query-block", json!({})).await;
    for disk in &case.spec.disks {
        let node = disk_node(&disk.name);
        let mut blocks = blocks.as_array().unwrap().iter();
        let block = blocks.find(|block| block["inserted"]["node-name"] == node.as_str());
        let block = block.unwrap_or_else(|| panic!("{}: no {node}", case.name));
        assert_eq!(block["inserted"]["ro"], disk.read_only, "{node}");
        assert_eq!(
            block["inserted"]["drv"],
            if disk.format == DiskFormat::Raw { "raw" } else { "qcow2" }
        );
        assert_eq!(block["inserted"]["backing_file_depth"], disk.backing.len(), "{node}");
        let (path, _) = case.placed.resolve("", &disk.location).unwrap();
        let opened = running.path_of(&file_node(&disk.name)).await;
        assert_eq!(opened.as_deref(), path.to_str(), "{}", case.name);
    }
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

#[tokio::test]
async fn strange_file_names_are_opened_under_their_own_name() {
    let root = tempfile::tempdir().unwrap();
    let names = [
        "a,b.img",
        "x=y,if=none,,readonly=on",
        "quo\"te'back\\slash",
        "späce und 日本",
        "%s%n%d",
        "json:{\"driver\":\"nbd\"}",
        "nbd:localhost:1",
    ];
    let mut fields = VmSpecFields::new(VmName::new("strange").unwrap(), 1, 64);
    for (index, name) in names.into_iter().enumerate() {
        let path = root.path().join(name);
        make_image(&path, DiskFormat::Raw);
        let mut disk = Disk::new(label(&format!("disk{index}")), DiskLocation::File { path }, 8);
        disk.format = DiskFormat::Raw;
        fields.disks.push(disk);
    }
    let spec = VmSpec::new(fields).unwrap();
    let host = host(QemuVersion::OLDEST, Accelerator::Tcg);
    let line = command_line(&spec, id(), &host, &Placed::default()).unwrap();
    let mut running = Running::start(&line, &root.path().join("vms")).await;
    for (index, name) in names.into_iter().enumerate() {
        let opened = running.path_of(&file_node(&label(&format!("disk{index}")))).await;
        assert_eq!(opened.as_deref(), root.path().join(name).to_str());
    }
    running.quit().await;
}

#[tokio::test]
async fn what_is_plugged_in_later_is_taken_over_qmp_on_both_boards() {
    for machine in ["q35", "pc"] {
        let root = tempfile::tempdir().unwrap();
        let mut fields = VmSpecFields::new(VmName::new("plug").unwrap(), 1, 64);
        fields.machine = machine.parse().unwrap();
        let spec = VmSpec::new(fields).unwrap();
        let host = host(QemuVersion::OLDEST, Accelerator::Tcg);
        let line = command_line(&spec, id(), &host, &Placed::default()).unwrap();
        let mut running = Running::start(&line, &root.path().join("vms")).await;
        let mut slots = line.slots.clone();
        for index in 0..2 {
            let path = root.path().join(format!("{index}.qcow2"));
            make_image(&path, DiskFormat::Qcow2);
            let location = DiskLocation::File {
                path: format!("/volume-{index}").into(),
            };
            let image = PlacedImage {
                location: location.clone(),
                path: path.clone(),
                medium: Medium::File,
            };
            let placed = Placed {
                images: vec![image],
                ..Placed::default()
            };
            let disk = Disk::new(label(&format!("late{index}")), location, 8);
            let plug = plug_disk(&spec.machine, &mut slots, false, &disk, &placed).unwrap();
            for node in plug.nodes {
                running.ask("blockdev-add", node).await;
            }
            running.ask("device_add", plug.device).await;
            assert_eq!(running.path_of(&file_node(&disk.name)).await.as_deref(), path.to_str());

            let mac = MacAddress::new([0x52, 0x54, 0, 0, 0, index]).unwrap();
            let nic = Nic::new(label(&format!("net{index}")), mac, NicNetwork::User);
            let plug = plug_nic(&spec.machine, &mut slots, &nic, &[]).unwrap();
            running.ask("netdev_add", plug.netdev).await;
            running.ask("device_add", plug.device).await;
        }
        // What did not get as far as a device leaves no trace, and its place is free again.
        let nic = Nic::new(
            label("gone"),
            MacAddress::new([0x52, 0x54, 0, 0, 1, 0]).unwrap(),
            NicNetwork::User,
        );
        let before = slots.clone();
        let plug = plug_nic(&spec.machine, &mut slots, &nic, &[]).unwrap();
        running.ask("netdev_add", plug.netdev).await;
        running.ask("netdev_del", json!({ "id": netdev_id(&nic.name) })).await;
        slots.release(PluggedKind::Nic, &nic.name);
        assert_eq!(slots, before);
        running.quit().await;
    }
}

/// Tap devices as the starter of a QEMU makes them.
mod tap {
    #![expect(unsafe_code, reason = "a tap is made by an ioctl")]

    use std::os::fd::OwnedFd;

    use rustix::fs::{Mode, OFlags};
    use rustix::io::FdFlags;
    use rustix::ioctl::{Opcode, Setter, ioctl};

    const TUNSETIFF: Opcode = 0x4004_54ca;
    const IFF_TAP: u16 = 0x0002;
    const IFF_MULTI_QUEUE: u16 = 0x0100;
    const IFF_NO_PI: u16 = 0x1000;
    const IFF_VNET_HDR: u16 = 0x4000;

    /// One queue of a tap, without close-on-exec. The device goes when the last descriptor does.
    pub fn open(name: &str, is_multi: bool) -> OwnedFd {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).expect("taps need root");
        let multi = if is_multi { IFF_MULTI_QUEUE } else { 0 };
        // struct ifreq: 16 bytes of name, then the flags, 40 bytes in all.
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | multi).to_ne_bytes());
        // SAFETY: TUNSETIFF reads a struct ifreq, which this array is as large as.
        let made = unsafe { ioctl(&tap, Setter::<TUNSETIFF, _>::new(request)) };
        made.expect("taps need root");
        rustix::io::fcntl_setfd(&tap, FdFlags::empty()).unwrap();
        tap
    }
}
