//! Any value of each kind.

use plasmavmc_types::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::super::values::Request;
use super::{label, vm_id};

fn any_uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

pub fn any_name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn any_location(place: &'static str) -> impl Strategy<Value = DiskLocation> {
    any::<bool>().prop_map(move |is_file| match is_file {
        true => DiskLocation::File {
            path: format!("/srv/{place}").into(),
        },
        false => DiskLocation::Volume {
            pool: PoolName::new("nfs").unwrap(),
            volume: label(place),
        },
    })
}

prop_compose! {
    fn any_disk(name: &'static str)(
        location in any_location(name),
        size_mb in 1u64..1_000_000,
        is_clone in any::<bool>(),
        backing in any_location("base"),
        format in select(vec![DiskFormat::Qcow2, DiskFormat::Raw]),
        bus in select(vec![DiskBus::VirtioBlk, DiskBus::VirtioScsi, DiskBus::Sata]),
        read_only in any::<bool>(),
        cache in select(vec![
            DiskCache::None, DiskCache::Writeback, DiskCache::Writethrough, DiskCache::Directsync, DiskCache::Unsafe,
        ]),
        aio in select(vec![DiskAio::Threads, DiskAio::Native, DiskAio::IoUring]),
        discard in select(vec![DiskDiscard::Unmap, DiskDiscard::Ignore]),
        serial in option::of("[A-Za-z0-9]{1,20}"),
    ) -> Disk {
        let aio = if aio == DiskAio::Native && !cache.is_direct() { DiskAio::IoUring } else { aio };
        let format = if is_clone { DiskFormat::Qcow2 } else { format };
        let image = BackingImage { location: backing, format: DiskFormat::Raw };
        Disk {
            format,
            bus,
            read_only: read_only && bus != DiskBus::Sata,
            backing: is_clone.then_some(image).into_iter().collect(),
            cache,
            aio,
            discard,
            serial: serial.map(|text| DiskSerial::new(text).unwrap()),
            ..Disk::new(label(name), location, size_mb)
        }
    }
}

fn any_nic() -> impl Strategy<Value = Nic> {
    let network = select(vec![
        NicNetwork::Named(label("lan")),
        NicNetwork::Bridge(BridgeName::new("br0").unwrap()),
        NicNetwork::User,
    ]);
    let model = select(vec![NicModel::Virtio, NicModel::E1000]);
    (any::<[u8; 5]>(), network, model, 1u16..=16).prop_map(|([a, b, c, d, e], network, model, queues)| {
        let has_queues = model == NicModel::Virtio && network != NicNetwork::User;
        Nic {
            model,
            queues: if has_queues { queues } else { 1 },
            ..Nic::new(label("net0"), MacAddress::new([0x52, a, b, c, d, e]).unwrap(), network)
        }
    })
}

prop_compose! {
    fn any_policies()(
        agent in select(vec![AgentPolicy::Required, AgentPolicy::Optional, AgentPolicy::None]),
        ha in select(vec![HaPolicy::Auto, HaPolicy::On, HaPolicy::Off]),
        priority in any::<u8>(),
        restart in prop_oneof![
            Just(RestartPolicy::Never),
            (1u32..=100, 10u32..=86_400).prop_map(|(tries, window_s)| RestartPolicy::OnCrash { tries, window_s }),
        ],
        depends_on in option::of((any_uuid(), any::<bool>())),
        start_delay_s in 0u32..=3600,
        start_paused in any::<bool>(),
        hosts in option::of(any_name()),
        vms in option::of((any::<u64>(), any::<u64>())),
    ) -> VmSpecFields {
        let dependency = |(vm, is_running)| Dependency {
            vm: VmId::from_uuid(vm),
            until: if is_running { DependencyReached::Running } else { DependencyReached::Ready },
        };
        let (apart, together) = vms.unzip();
        let vm = |n: u64, side: u128| vm_id(u128::from(n) << 8 | side);
        VmSpecFields {
            agent,
            ha,
            priority,
            restart,
            depends_on: depends_on.map(dependency).into_iter().collect(),
            start_delay_s,
            start_paused,
            affinity: Affinity {
                prefer_hosts: hosts.iter().map(|name| HostName::new(name.clone()).unwrap()).collect(),
                hosts: hosts.map(|name| HostName::new(name).unwrap()).into_iter().collect(),
                apart_from: apart.map(|n| vm(n, 1)).into_iter().collect(),
                together_with: together.map(|n| vm(n, 2)).into_iter().collect(),
                prefer_apart_from: apart.map(|n| vm(n, 3)).into_iter().collect(),
                prefer_together_with: together.map(|n| vm(n, 4)).into_iter().collect(),
            },
            ..VmSpecFields::new(VmName::new("any").unwrap(), 1, 64)
        }
    }
}

prop_compose! {
    pub fn any_spec()(
        name in any_name(),
        (vcpus, sockets) in (1u32..=100, 1u32..=2),
        memory_mb in 16u64..=1_000_000,
        model in option::of("[a-z][a-z0-9.-]{0,20}"),
        machine in select(vec!["q35", "pc-q35-7.2"]),
        firmware in select(vec![
            Firmware::Bios, Firmware::Uefi { secure_boot: false }, Firmware::Uefi { secure_boot: true },
        ]),
        direct_boot in option::of((any::<bool>(), "[a-z =]{0,20}")),
        disks in (option::of(any_disk("root")), option::of(any_disk("data"))),
        cdrom in option::of(option::of(any_location("iso"))),
        nic in option::of(any_nic()),
        (is_shown, rng, balloon, pvpanic, is_watched, is_ordered) in any::<(bool, bool, bool, bool, bool, bool)>(),
        policies in any_policies(),
    ) -> VmSpec {
        let boot = |(has_initrd, cmdline): (bool, String)| DirectBoot {
            kernel: "/boot/vmlinuz".into(),
            initrd: has_initrd.then(|| "/boot/initrd".into()),
            cmdline,
        };
        let nics: Vec<Nic> = nic.into_iter().collect();
        VmSpec::new(VmSpecFields {
            name: VmName::new(name).unwrap(),
            vcpus: vcpus * sockets,
            memory_mb,
            cpu: Cpu { sockets, model: model.map(|text| CpuModel::new(text).unwrap()) },
            machine: MachineType::new(machine).unwrap(),
            firmware,
            direct_boot: direct_boot.map(boot),
            disks: disks.0.into_iter().chain(disks.1).collect(),
            cdroms: cdrom.map(|image| Cdrom { name: label("cd"), image }).into_iter().collect(),
            boot_order: nics.iter().filter(|_| is_ordered).map(|nic| nic.name.clone()).collect(),
            nics,
            display: if is_shown { Display::Vnc } else { Display::None },
            rng,
            balloon,
            pvpanic,
            watchdog: if is_watched { GuestWatchdog::I6300esb } else { GuestWatchdog::None },
            ..policies
        })
        .unwrap()
    }
}

prop_compose! {
    pub fn any_record()(
        id in any_uuid(),
        number in VmNumber::MIN..=VmNumber::MAX,
        spec in any_spec(),
        generation in 1u64..,
        (is_on, deleted) in any::<(bool, bool)>(),
        created_at_ms in any::<u64>(),
    ) -> VmRecord {
        VmRecord::from_parts(VmRecordParts {
            id: VmId::from_uuid(id),
            number: VmNumber::new(number).unwrap(),
            spec,
            power: if is_on && !deleted { PowerWanted::On } else { PowerWanted::Off },
            generation: Generation::from_raw(generation),
            deleted,
            created_at_ms,
        })
        .unwrap()
    }
}

fn any_state() -> impl Strategy<Value = ObservedState> {
    prop_oneof![
        Just(ObservedState::Starting),
        Just(ObservedState::Running),
        select(PauseCause::ALL.to_vec()).prop_map(|cause| ObservedState::Paused { cause }),
        Just(ObservedState::Frozen),
        Just(ObservedState::Stopping),
        Just(ObservedState::Stopped),
        Just(ObservedState::Migrating),
        ".{1,200}".prop_map(|reason| ObservedState::Failed { reason }),
    ]
}

prop_compose! {
    pub fn any_status()(
        (incarnation, leased, attempt) in (1u64.., any::<bool>(), any_uuid()),
        state in any_state(),
        (pid, start_time_ticks) in (1u32.., any::<u64>()),
        qemu in option::of("[a-z-]{1,16}"),
        agent in select(vec![
            AgentHealth::NotAsked, AgentHealth::Responding, AgentHealth::NotResponding, AgentHealth::NotInstalled,
        ]),
        last_exit in option::of(prop_oneof![
            any::<i32>().prop_map(Exit::Code), any::<i32>().prop_map(Exit::Signal), Just(Exit::Unseen),
        ]),
        text in option::of(".{0,50}"),
        crashes_at_ms in vec(any::<u64>(), 0..10),
        (generation, since_ms) in any::<(u64, u64)>(),
    ) -> VmStatus {
        let process = (state != ObservedState::Stopped).then_some(QemuProcess { pid, start_time_ticks });
        VmStatus::new(VmStatusFields {
            incarnation: Incarnation::from_raw(incarnation),
            leased,
            attempt: AttemptId::from_uuid(attempt),
            state,
            process,
            qemu: qemu.map(QemuRunState::from),
            agent,
            last_exit,
            conditions: text.map(|text| Condition { name: label("crashed"), text }).into_iter().collect(),
            crashes_at_ms,
            generation,
            since_ms,
        })
        .unwrap()
    }
}

fn any_kind() -> impl Strategy<Value = OperationKind> {
    any::<bool>().prop_flat_map(|force| {
        select(vec![
            OperationKind::Create,
            OperationKind::Start,
            OperationKind::Stop { force },
            OperationKind::Reboot,
            OperationKind::Restart { force },
            OperationKind::Reset,
            OperationKind::Pause,
            OperationKind::Resume,
            OperationKind::Delete,
        ])
    })
}

prop_compose! {
    pub fn any_operation()(
        (id, vm) in (any_uuid(), any_uuid()),
        vm_name in any_name(),
        kind in any_kind(),
        state in prop_oneof![
            Just(OperationState::Pending),
            Just(OperationState::Running),
            Just(OperationState::Done),
            Just(OperationState::Cancelled),
            (any::<u32>(), ".{0,20}", ".{0,50}").prop_map(|(code, reason, message)| {
                OperationState::Failed(OperationError { code, reason, message })
            }),
        ],
        step in ".{0,50}",
        (created_at_ms, updated_at_ms, deadline_ms, cancel_requested) in any::<(u64, u64, u64, bool)>(),
        runner in option::of((any_uuid(), any::<u64>())),
    ) -> Operation {
        Operation {
            id: OperationId::from_uuid(id),
            kind,
            vm: VmId::from_uuid(vm),
            vm_name: VmName::new(vm_name).unwrap(),
            state,
            step,
            created_at_ms,
            updated_at_ms,
            deadline_ms,
            cancel_requested,
            runner: runner.map(|(host, epoch)| (HostId::from_uuid(host), Epoch::from_raw(epoch))),
        }
    }
}

prop_compose! {
    pub fn any_host()(
        id in any_uuid(),
        name in any_name(),
        port in 1u16..,
        mode in select(vec![HostMode::Active, HostMode::Draining, HostMode::Maintenance]),
        has_cluster_address in any::<bool>(),
        witness in any::<bool>(),
        departure in option::of((any_uuid(), any::<bool>(), any::<u64>())),
    ) -> HostRecord {
        let departure = departure.map(|(instance, stays, until_ms)| Departure {
            instance: InstanceNonce::from_uuid(instance),
            leaving: if stays { Leaving::Stay } else { Leaving::Move },
            until_ms,
        });
        let address: Address = format!("{name}:{port}").parse().unwrap();
        HostRecord::new(HostId::from_uuid(id), HostName::new(name).unwrap(), vec![address.clone()])
            .unwrap()
            .with_mode(mode)
            .with_cluster_address(has_cluster_address.then_some(address))
            .with_witness(witness)
            .with_departure(departure)
    }
}

pub fn any_session() -> impl Strategy<Value = Session> {
    (1u64.., any_uuid(), any_uuid(), any::<bool>()).prop_map(|(epoch, instance, boot_id, is_open)| {
        let session = Session {
            epoch: Epoch::from_raw(epoch),
            instance: InstanceNonce::from_uuid(instance),
            boot_id: BootId::from_uuid(boot_id),
            state: SessionState::Open,
        };
        if is_open { session } else { session.fenced() }
    })
}

prop_compose! {
    pub fn any_beat()(
        session in any_session(),
        sequence in any::<u64>(),
        lease_ms in 100u64..=600_000,
        spare_ms in option::of(0u64..100_000),
        (vcpus, memory_mb) in (1u32.., 1u64..),
        (vms, vcpus_used, memory_used_mb) in any::<(u32, u32, u64)>(),
        pools in vec(any_name(), 0..3),
        (accelerator, version) in (".{0,50}", ".{0,20}"),
        warnings in vec(".{0,50}", 0..3),
    ) -> Beat {
        let pools: Vec<PoolName> = pools.into_iter().map(|name| PoolName::new(name).unwrap()).collect();
        Beat::new(BeatFields {
            epoch: session.epoch,
            instance: session.instance,
            boot_id: session.boot_id,
            sequence: BeatSequence(sequence),
            lease_ms,
            failover_ms: spare_ms.map_or(0, |spare_ms| Timings::least_failover_ms(lease_ms) + spare_ms),
            capacity: Capacity { vcpus, memory_mb },
            usage: Usage { vms, vcpus: vcpus_used, memory_mb: memory_used_mb },
            facts: HostFacts {
                shared_pools: pools.iter().take(1).cloned().collect(),
                pools,
                bridges: vec![BridgeName::new("br0").unwrap()],
                accelerator,
                version,
                warnings,
            },
        })
        .unwrap()
    }
}

prop_compose! {
    pub fn any_decision()(
        at_ms in any::<u64>(),
        (kind, text) in ("[a-z]{0,10}", ".{0,50}"),
        (vm, host) in (option::of(any_uuid()), option::of(any_uuid())),
        evidence in vec(".{0,50}", 0..4),
    ) -> Decision {
        Decision {
            at_ms,
            kind,
            vm: vm.map(VmId::from_uuid),
            host: host.map(HostId::from_uuid),
            text,
            evidence,
        }
    }
}

prop_compose! {
    pub fn any_request()(
        content_sha256 in any::<[u8; 32]>(),
        (vm, operation) in (option::of(any_uuid()), option::of(any_uuid())),
        at_ms in any::<u64>(),
    ) -> Request {
        Request {
            content_sha256,
            vm: vm.map(VmId::from_uuid),
            operation: operation.map(OperationId::from_uuid),
            at_ms,
        }
    }
}
