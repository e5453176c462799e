use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{HostName, PoolName, VmId};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn disk(name: &str) -> Disk {
    let location = DiskLocation::Volume {
        pool: PoolName::new("nfs").unwrap(),
        volume: label(name),
    };
    Disk::new(label(name), location, 1024)
}

fn nic(name: &str, last: u8) -> Nic {
    let mac = MacAddress::new([0x52, 0x54, 0, 0, 0, last]).unwrap();
    Nic::new(label(name), mac, NicNetwork::Named(label("lan")))
}

fn fields() -> VmSpecFields {
    VmSpecFields::new(VmName::new("test-vm").unwrap(), 1, 512)
}

/// Refuses the fields after `spoil` and names exactly these.
fn check(spoil: impl FnOnce(&mut VmSpecFields), expected: &[&str]) {
    let mut spoilt = fields();
    spoil(&mut spoilt);
    let invalid = VmSpec::new(spoilt).expect_err("taken, but should be refused");
    let found: Vec<&str> = invalid
        .problems()
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(found, expected, "{invalid}");
}

#[test]
fn the_smallest_request_is_enough() {
    let spec: VmSpec = serde_json::from_str(r#"{"name":"test-vm","vcpus":1,"memory_mb":512}"#).unwrap();
    assert_eq!(spec, VmSpec::new(fields()).unwrap());
    assert_eq!(spec.priority, VmSpecFields::DEFAULT_PRIORITY);
}

#[test]
fn sizes_have_bounds() {
    check(|f| f.vcpus = 0, &["vcpus"]);
    check(|f| f.vcpus = 256, &["vcpus"]);
    check(|f| f.memory_mb = 15, &["memory_mb"]);
    check(|f| f.memory_mb = u64::MAX, &["memory_mb"]);
    check(|f| f.start_delay_s = 3601, &["start_delay_s"]);
    check(
        |f| {
            f.disks = vec![Disk {
                size_mb: 0,
                ..disk("root")
            }]
        },
        &["disks[0].size_mb"],
    );
    check(
        |f| f.nics = (0..17).map(|n| nic(&format!("net{n}"), n)).collect(),
        &["nics"],
    );
    check(
        |f| f.disks = (0..33).map(|n| disk(&format!("d{n}"))).collect(),
        &["disks"],
    );
}

#[test]
fn everything_wrong_is_named_at_once() {
    let spoil = |f: &mut VmSpecFields| {
        f.vcpus = 0;
        f.memory_mb = 1;
        f.boot_order = vec![label("floppy")];
        f.restart = RestartPolicy::OnCrash { tries: 0, window_s: 1 };
    };
    let expected = [
        "vcpus",
        "memory_mb",
        "boot_order[0]",
        "restart.on_crash.tries",
        "restart.on_crash.window_s",
    ];
    check(spoil, &expected);
}

#[test]
fn names_and_addresses_are_unique_in_a_vm() {
    check(
        |f| {
            f.disks = vec![disk("root")];
            f.nics = vec![nic("root", 1)];
        },
        &["nics[0].name"],
    );
    check(|f| f.nics = vec![nic("a", 1), nic("b", 1)], &["nics[1].mac"]);
    let same_place = Disk {
        location: disk("root").location,
        ..disk("data")
    };
    check(|f| f.disks = vec![disk("root"), same_place], &["disks[1].location"]);
    let vm = VmId::from_uuid(Uuid::from_u128(1));
    let until = DependencyReached::Ready;
    check(
        |f| f.depends_on = vec![Dependency { vm, until }; 2],
        &["depends_on[1].vm"],
    );
}

#[test]
fn affinity_names_each_once_and_never_on_both_sides() {
    let vm = |n: u128| VmId::from_uuid(Uuid::from_u128(n));
    let host = |name: &str| HostName::new(name).unwrap();
    check(
        |f| f.affinity.hosts = vec![host("a"), host("a")],
        &["affinity.hosts[1]"],
    );
    check(
        |f| f.affinity.apart_from = vec![vm(1), vm(1)],
        &["affinity.apart_from[1]"],
    );
    check(
        |f| (f.affinity.apart_from, f.affinity.together_with) = (vec![vm(1)], vec![vm(2), vm(1)]),
        &["affinity.apart_from[0]"],
    );
    check(
        |f| f.affinity.together_with = (0..65).map(vm).collect(),
        &["affinity.together_with"],
    );
    check(
        |f| f.affinity.prefer_hosts = vec![host("a"), host("a")],
        &["affinity.prefer_hosts[1]"],
    );
    check(
        |f| (f.affinity.prefer_apart_from, f.affinity.prefer_together_with) = (vec![vm(1)], vec![vm(1)]),
        &["affinity.prefer_apart_from[0]"],
    );
    let mut good = fields();
    // A strict rule may go against a preference.
    (good.affinity.prefer_hosts, good.affinity.prefer_apart_from) = (vec![host("c")], vec![vm(2)]);
    good.affinity.hosts = vec![host("a"), host("b")];
    (good.affinity.apart_from, good.affinity.together_with) = (vec![vm(1)], vec![vm(2)]);
    let json = serde_json::to_string(&good).unwrap();
    assert_eq!(*serde_json::from_str::<VmSpec>(&json).unwrap(), good);
}

#[test]
fn boot_order_names_devices_once() {
    check(
        |f| {
            f.disks = vec![disk("root")];
            f.boot_order = vec![label("root"), label("root"), label("net0")];
        },
        &["boot_order[2]", "boot_order[1]"],
    );
}

#[test]
fn a_disk_file_must_have_an_absolute_path() {
    let file = Disk {
        location: DiskLocation::File { path: "../x".into() },
        ..disk("root")
    };
    check(|f| f.disks = vec![file], &["disks[0].location.path"]);
}

fn file(path: &str) -> DiskLocation {
    DiskLocation::File { path: path.into() }
}

fn clone_of(name: &str, base: DiskLocation, format: DiskFormat) -> Disk {
    let backing = vec![BackingImage { location: base, format }];
    Disk { backing, ..disk(name) }
}

#[test]
fn sockets_divide_the_vcpus() {
    let sockets = |vcpus, sockets| {
        move |f: &mut VmSpecFields| {
            f.vcpus = vcpus;
            f.cpu.sockets = sockets;
        }
    };
    for (vcpus, count) in [(4, 3), (4, 0), (2, 4)] {
        check(sockets(vcpus, count), &["cpu.sockets"]);
    }
    let mut good = fields();
    sockets(4, 2)(&mut good);
    assert!(VmSpec::new(good).is_ok());
}

#[test]
fn what_a_device_cannot_do_is_refused() {
    let of = |disk: Disk| move |f: &mut VmSpecFields| f.disks = vec![disk];
    let (bus, read_only) = (DiskBus::Sata, true);
    check(
        of(Disk {
            bus,
            read_only,
            ..disk("a")
        }),
        &["disks[0].read_only"],
    );
    let (aio, cache) = (DiskAio::Native, DiskCache::Writeback);
    check(
        of(Disk {
            aio,
            cache,
            ..disk("a")
        }),
        &["disks[0].aio"],
    );
    let with_queues = |model, network| {
        move |f: &mut VmSpecFields| {
            f.nics = vec![Nic {
                queues: 2,
                model,
                network,
                ..nic("a", 1)
            }];
        }
    };
    check(
        with_queues(NicModel::E1000, NicNetwork::Named(label("lan"))),
        &["nics[0].queues"],
    );
    check(with_queues(NicModel::Virtio, NicNetwork::User), &["nics[0].queues"]);
    check(
        |f| {
            f.machine = MachineType::new("pc").unwrap();
            f.firmware = Firmware::Uefi { secure_boot: true };
        },
        &["firmware"],
    );
}

#[test]
fn a_clone_stands_on_images_that_nobody_writes() {
    let base = || file("/base.qcow2");
    check(
        |f| {
            f.disks = vec![Disk {
                format: DiskFormat::Raw,
                ..clone_of("a", base(), DiskFormat::Raw)
            }]
        },
        &["disks[0].backing[0]"],
    );
    check(
        |f| {
            f.disks = vec![Disk {
                location: base(),
                ..clone_of("a", base(), DiskFormat::Raw)
            }]
        },
        &["disks[0].backing[0].location"],
    );
    check(
        |f| {
            f.disks = vec![
                clone_of("a", base(), DiskFormat::Raw),
                Disk {
                    location: base(),
                    ..disk("b")
                },
            ]
        },
        &["disks[0].backing[0].location"],
    );
    check(
        |f| f.disks = vec![clone_of("a", file("base"), DiskFormat::Raw)],
        &["disks[0].backing[0].location.path"],
    );
    let two_clones = VmSpec::new(VmSpecFields {
        disks: vec![
            clone_of("a", base(), DiskFormat::Raw),
            clone_of("b", base(), DiskFormat::Raw),
        ],
        ..fields()
    });
    assert!(two_clones.is_ok());
}

#[test]
fn a_kernel_is_a_plain_file_with_a_plain_command_line() {
    let boot = |kernel: &str, cmdline: &str| {
        let direct_boot = DirectBoot {
            kernel: kernel.into(),
            initrd: Some("initrd".into()),
            cmdline: cmdline.into(),
        };
        move |f: &mut VmSpecFields| f.direct_boot = Some(direct_boot)
    };
    check(
        boot("vmlinuz", "a\nb"),
        &["direct_boot.kernel", "direct_boot.initrd", "direct_boot.cmdline"],
    );
    check(
        boot("/vmlinuz", &"x".repeat(2048)),
        &["direct_boot.initrd", "direct_boot.cmdline"],
    );
}

#[test]
fn cdroms_share_the_names_and_may_be_booted() {
    let cdrom = |name: &str| Cdrom {
        name: label(name),
        image: None,
    };
    check(
        |f| (f.disks, f.cdroms) = (vec![disk("root")], vec![cdrom("cd"), cdrom("root")]),
        &["cdroms[1].name"],
    );
    let mut good = fields();
    (good.cdroms, good.boot_order) = (vec![cdrom("cd")], vec![label("cd")]);
    assert!(VmSpec::new(good).is_ok());
}

#[test]
fn an_edit_is_checked_like_a_new_one() {
    let spec = VmSpec::new(fields()).unwrap();
    assert_eq!(spec.edit(|f| f.memory_mb = 1024).unwrap().memory_mb, 1024);
    assert!(spec.edit(|f| f.memory_mb = 0).unwrap_err().mentions("memory_mb"));
}

#[test]
fn json_with_an_unknown_field_is_refused_by_name() {
    let text = r#"{"name":"a","vcpus":1,"memory_mb":512,"memroy":1}"#;
    let error = serde_json::from_str::<VmSpec>(text).unwrap_err().to_string();
    assert!(error.contains("memroy"), "{error}");
}

prop_compose! {
    fn any_fields()(
        vcpus in 0u32..300,
        memory_mb in prop_oneof![0u64..64, 500u64..600, any::<u64>()],
        disks in 0usize..4,
        nics in 0u8..4,
        priority in any::<u8>(),
        tries in 0u32..200,
        start_delay_s in 0u32..5000,
        uefi in any::<Option<bool>>(),
    ) -> VmSpecFields {
        VmSpecFields {
            disks: (0..disks).map(|n| disk(&format!("disk{n}"))).collect(),
            nics: (0..nics).map(|n| nic(&format!("net{n}"), n)).collect(),
            priority,
            restart: RestartPolicy::OnCrash { tries, window_s: 60 },
            start_delay_s,
            firmware: uefi.map_or(Firmware::Bios, |secure_boot| Firmware::Uefi { secure_boot }),
            ..VmSpecFields::new(VmName::new("any").unwrap(), vcpus, memory_mb)
        }
    }
}

proptest! {
    #[test]
    fn what_is_taken_survives_json_and_what_is_refused_stays_out(fields in any_fields()) {
        let json = serde_json::to_string(&fields).unwrap();
        match VmSpec::new(fields) {
            Ok(spec) => {
                prop_assert_eq!(&serde_json::to_string(&spec).unwrap(), &json);
                prop_assert_eq!(serde_json::from_str::<VmSpec>(&json).unwrap(), spec);
            }
            Err(invalid) => {
                prop_assert!(!invalid.problems().is_empty());
                let error = serde_json::from_str::<VmSpec>(&json).unwrap_err().to_string();
                prop_assert_eq!(error, invalid.to_string());
            }
        }
    }
}
