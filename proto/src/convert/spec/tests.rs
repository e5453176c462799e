use std::cell::Cell;

use plasmavmc_types::{
    AgentPolicy, DiskAio, DiskDiscard, DiskLocation, HaPolicy, Invalid, Label, MacAddress, NicNetwork, RestartPolicy,
    VmId, VmName, VmRef, VmSpec, VmSpecFields,
};
use uuid::Uuid;

use super::spec_from_api;
use crate::api;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn known_vm() -> VmId {
    VmId::from_uuid(Uuid::from_u128(7))
}

/// Knows one VM, by its id and as `db`.
fn read(spec: api::VmSpec) -> Result<VmSpec, Invalid> {
    let resolve = |vm: &VmRef| match vm {
        VmRef::Name(name) => (name.as_str() == "db").then(known_vm),
        VmRef::Id(id) => (*id == known_vm()).then_some(*id),
        VmRef::Number(_) => None,
    };
    let made = Cell::new(MAC[5]);
    let new_mac = || {
        let mac = MacAddress::new([MAC[0], MAC[1], MAC[2], MAC[3], MAC[4], made.get()]);
        made.set(made.get() + 1);
        mac.unwrap()
    };
    spec_from_api(spec, resolve, new_mac)
}

fn smallest() -> api::VmSpec {
    api::VmSpec {
        name: "test-vm".to_owned(),
        vcpus: 1,
        memory_mb: 512,
        ..Default::default()
    }
}

fn path(path: &str) -> Option<api::DiskLocation> {
    let location = Some(api::disk_location::Location::Path(path.to_owned()));
    Some(api::DiskLocation { location })
}

fn disk(name: &str) -> api::Disk {
    api::Disk {
        name: name.to_owned(),
        location: path(&format!("/srv/{name}")),
        size_mb: 1024,
        ..Default::default()
    }
}

fn nic(name: &str) -> api::Nic {
    api::Nic {
        name: name.to_owned(),
        network: Some(api::nic::Network::Named("lan".to_owned())),
        ..Default::default()
    }
}

/// Refuses the specification after `spoil` and names exactly these fields.
fn check(spoil: impl FnOnce(&mut api::VmSpec), expected: &[&str]) {
    let mut spec = smallest();
    spoil(&mut spec);
    let invalid = read(spec).expect_err("taken, but should be refused");
    let found: Vec<&str> = invalid
        .problems()
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(found, expected, "{invalid}");
}

#[test]
fn the_smallest_request_gets_every_default() {
    let fields = VmSpecFields::new(VmName::new("test-vm").unwrap(), 1, 512);
    assert_eq!(*read(smallest()).unwrap(), fields);
}

#[test]
fn empty_parts_get_their_defaults_too() {
    let spec = read(api::VmSpec {
        cpu: Some(api::Cpu::default()),
        disks: vec![disk("root")],
        cdroms: vec![api::Cdrom {
            name: "cd".to_owned(),
            image: Some(api::DiskLocation::default()),
        }],
        nics: vec![nic("net0")],
        restart: Some(api::RestartPolicy::default()),
        affinity: Some(api::Affinity::default()),
        ..smallest()
    })
    .unwrap();
    assert_eq!((spec.cpu.sockets, spec.cpu.model.clone()), (1, None));
    let root = &spec.disks[0];
    assert_eq!(
        (root.aio, root.discard, root.serial.clone()),
        (DiskAio::Threads, DiskDiscard::Unmap, None)
    );
    assert_eq!(spec.cdroms[0].image, None);
    assert_eq!((spec.nics[0].queues, spec.nics[0].mac.bytes()), (1, MAC));
    assert_eq!(spec.restart, RestartPolicy::default());
}

#[test]
fn what_is_given_counts() {
    let vms = || vec!["db".to_owned()];
    let spec = read(api::VmSpec {
        rng: Some(false),
        priority: Some(0),
        agent: api::AgentPolicy::None.into(),
        ha: api::HaPolicy::Off.into(),
        restart: Some(api::RestartPolicy {
            tries: 5,
            ..Default::default()
        }),
        nics: vec![
            api::Nic {
                mac: "52:54:00:AA:bb:cc".to_owned(),
                network: Some(api::nic::Network::User(true)),
                ..nic("net0")
            },
            nic("net1"),
            nic("net2"),
        ],
        depends_on: vec![api::Dependency {
            vm: "db".to_owned(),
            until: 0,
        }],
        affinity: Some(api::Affinity {
            apart_from: vms(),
            ..Default::default()
        }),
        ..smallest()
    })
    .unwrap();
    assert_eq!((spec.rng, spec.balloon, spec.priority), (false, true, 0));
    assert_eq!((spec.agent, spec.ha), (AgentPolicy::None, HaPolicy::Off));
    assert_eq!(
        spec.restart,
        RestartPolicy::OnCrash {
            tries: 5,
            window_s: 600
        }
    );
    assert_eq!(spec.nics[0].mac.to_string(), "52:54:00:aa:bb:cc");
    assert_eq!(spec.nics[0].network, NicNetwork::User);
    assert_ne!(spec.nics[1].mac, spec.nics[2].mac);
    assert_eq!(spec.depends_on[0].vm, known_vm());
    assert_eq!(spec.affinity.apart_from, [known_vm()]);
}

fn spoilt_affinity() -> api::Affinity {
    let (hosts, apart, together) = (vec!["Host".to_owned()], vec!["17".to_owned()], vec![String::new()]);
    api::Affinity {
        prefer_hosts: hosts.clone(),
        prefer_apart_from: apart.clone(),
        prefer_together_with: together.clone(),
        hosts,
        apart_from: apart,
        together_with: together,
    }
}

#[test]
fn everything_wrong_is_named_at_once_as_the_client_wrote_it() {
    let spoil = |spec: &mut api::VmSpec| {
        spec.name = "Web 1".to_owned();
        spec.vcpus = 0;
        spec.firmware = 9;
        spec.priority = Some(256);
        spec.disks = vec![
            api::Disk {
                name: "Root".to_owned(),
                location: None,
                cache: 77,
                ..disk("")
            },
            api::Disk {
                location: path("relative"),
                ..disk("data")
            },
        ];
        spec.nics = vec![
            api::Nic {
                mac: "nonsense".to_owned(),
                network: None,
                ..nic("net0")
            },
            api::Nic {
                queues: 70_000,
                ..nic("net1")
            },
        ];
        spec.boot_order = vec!["floppy".to_owned(), "Root".to_owned()];
        spec.restart = Some(api::RestartPolicy {
            tries: 101,
            window_s: 1,
            never: false,
        });
        spec.depends_on = vec![api::Dependency {
            vm: "nobody".to_owned(),
            until: 8,
        }];
        spec.affinity = Some(spoilt_affinity());
    };
    let expected = [
        "name",
        "firmware",
        "disks[0].name",
        "disks[0].location",
        "disks[0].cache",
        "nics[0].mac",
        "nics[0]",
        "boot_order[1]",
        "priority",
        "depends_on[0].vm",
        "depends_on[0].until",
        "affinity.hosts[0]",
        "affinity.apart_from[0]",
        "affinity.together_with[0]",
        "affinity.prefer_hosts[0]",
        "affinity.prefer_apart_from[0]",
        "affinity.prefer_together_with[0]",
        "vcpus",
        "disks[1].location.path",
        "nics[1].queues",
        "boot_order[0]",
        "restart.tries",
        "restart.window_s",
    ];
    check(spoil, &expected);
}

#[test]
fn numbers_that_mean_nothing_are_refused_by_name() {
    let disk_with = |change: fn(&mut api::Disk)| {
        move |spec: &mut api::VmSpec| {
            spec.disks = vec![disk("root")];
            change(&mut spec.disks[0]);
        }
    };
    check(|spec| spec.firmware = -1, &["firmware"]);
    check(|spec| spec.display = 2, &["display"]);
    check(|spec| spec.watchdog = 2, &["watchdog"]);
    check(|spec| spec.agent = 3, &["agent"]);
    check(|spec| spec.ha = 3, &["ha"]);
    check(disk_with(|disk| disk.format = 2), &["disks[0].format"]);
    check(disk_with(|disk| disk.bus = 3), &["disks[0].bus"]);
    check(disk_with(|disk| disk.cache = 5), &["disks[0].cache"]);
    check(disk_with(|disk| disk.aio = 4), &["disks[0].aio"]);
    check(disk_with(|disk| disk.discard = 3), &["disks[0].discard"]);
    check(
        |spec| spec.nics = vec![api::Nic { model: 2, ..nic("a") }],
        &["nics[0].model"],
    );
    let mut unknown = smallest();
    unknown.ha = 3;
    let text = read(unknown).unwrap_err().to_string();
    assert_eq!(text, "invalid VM spec: ha is 3, which means nothing to this version");
}

#[test]
fn texts_that_are_no_names_are_refused_where_they_are() {
    check(|spec| spec.name.clear(), &["name"]);
    check(|spec| spec.machine = "vax".to_owned(), &["machine"]);
    let model = "max,+vmx".to_owned();
    check(|spec| spec.cpu = Some(api::Cpu { sockets: 1, model }), &["cpu.model"]);
    let serial = "x".repeat(21);
    check(
        |spec| spec.disks = vec![api::Disk { serial, ..disk("a") }],
        &["disks[0].serial"],
    );
    let volume = api::Volume {
        pool: "P".to_owned(),
        volume: String::new(),
    };
    let location = Some(api::disk_location::Location::Volume(volume));
    check(
        |spec| {
            spec.cdroms = vec![api::Cdrom {
                name: "cd".to_owned(),
                image: Some(api::DiskLocation { location }),
            }]
        },
        &["cdroms[0].image.volume.pool", "cdroms[0].image.volume.volume"],
    );
    let network = |network| move |spec: &mut api::VmSpec| spec.nics = vec![api::Nic { network, ..nic("a") }];
    check(network(None), &["nics[0]"]);
    check(network(Some(api::nic::Network::User(false))), &["nics[0].user"]);
    check(
        network(Some(api::nic::Network::Bridge("a/b".to_owned()))),
        &["nics[0].bridge"],
    );
    check(
        network(Some(api::nic::Network::Named(String::new()))),
        &["nics[0].named"],
    );
}

#[test]
fn never_to_restart_contradicts_a_number_of_tries() {
    let never = api::RestartPolicy {
        never: true,
        tries: 3,
        window_s: 0,
    };
    check(|spec| spec.restart = Some(never), &["restart.tries"]);
}

#[test]
fn what_was_stored_names_vms_by_id_and_has_all_addresses() {
    let stored = api::VmSpec::from(
        &read(api::VmSpec {
            nics: vec![nic("net0")],
            disks: vec![disk("root")],
            depends_on: vec![api::Dependency {
                vm: "db".to_owned(),
                until: 1,
            }],
            ..smallest()
        })
        .unwrap(),
    );
    assert_eq!(stored.depends_on[0].vm, known_vm().to_string());
    let back = VmSpec::try_from(stored.clone()).unwrap();
    assert_eq!(api::VmSpec::from(&back), stored);
    let root = DiskLocation::File {
        path: "/srv/root".into(),
    };
    assert_eq!(
        (&back.disks[0].name, &back.disks[0].location),
        (&Label::new("root").unwrap(), &root)
    );

    let mut spoilt = stored;
    spoilt.nics[0].mac.clear();
    spoilt.depends_on[0].vm = "db".to_owned();
    let refused = VmSpec::try_from(spoilt).unwrap_err();
    assert!(
        refused.mentions("nics[0].mac") && refused.mentions("depends_on[0].vm"),
        "{refused}"
    );
}
