//! Values for tests: one of each kind with nothing left at its default; any at random is in `random`.

use plasmavmc_core::view::{PlacementMode, Recovery};
use plasmavmc_types::*;
use uuid::Uuid;

mod random;

pub use random::*;

use super::keys::ParsedKey;
use super::values::{ClusterConfig, Request, StoredValue, Token};

pub fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

pub fn vm_id(n: u128) -> VmId {
    VmId::from_uuid(uuid(n))
}

pub fn host_id(n: u128) -> HostId {
    HostId::from_uuid(uuid(n))
}

pub fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

/// A small VM.
pub fn record(n: u128) -> VmRecord {
    let name = VmName::new(format!("vm-{n}")).unwrap();
    let number = VmNumber::new(u32::try_from(n).unwrap() + 100).unwrap();
    VmRecord::create(vm_id(n), number, VmSpec::new(VmSpecFields::new(name, 1, 512)).unwrap()).unwrap()
}

pub fn session(epoch: u64) -> Session {
    Session {
        epoch: Epoch::from_raw(epoch),
        instance: InstanceNonce::from_uuid(uuid(0xa1)),
        boot_id: BootId::from_uuid(uuid(0xb2)),
        state: SessionState::Open,
    }
}

pub fn beat(sequence: u64) -> Beat {
    Beat::new(BeatFields {
        epoch: Epoch::from_raw(1),
        instance: InstanceNonce::from_uuid(uuid(0xa1)),
        boot_id: BootId::from_uuid(uuid(0xb2)),
        sequence: BeatSequence(sequence),
        lease_ms: 4000,
        // What came later is in `random`: these bytes are frozen.
        failover_ms: 0,
        capacity: Capacity {
            vcpus: 8,
            memory_mb: 16_384,
        },
        usage: Usage {
            vms: 2,
            vcpus: 3,
            memory_mb: 1024,
        },
        facts: HostFacts {
            pools: vec![PoolName::new("default").unwrap(), PoolName::new("nfs").unwrap()],
            shared_pools: vec![PoolName::new("nfs").unwrap()],
            bridges: vec![BridgeName::new("br0").unwrap()],
            accelerator: "tcg: no /dev/kvm".to_owned(),
            version: "0.1.0".to_owned(),
            warnings: vec!["an orphan".to_owned()],
        },
    })
    .unwrap()
}

pub fn decision(at_ms: u64) -> Decision {
    Decision {
        at_ms,
        kind: "place".to_owned(),
        vm: Some(vm_id(1)),
        host: Some(host_id(2)),
        text: "vm-1 goes to alpha".to_owned(),
        evidence: vec!["alpha has room (revision 17)".to_owned()],
    }
}

pub fn operation(n: u128) -> Operation {
    Operation {
        id: OperationId::from_uuid(uuid(n)),
        kind: OperationKind::Stop { force: true },
        vm: vm_id(1),
        vm_name: VmName::new("vm-1").unwrap(),
        state: OperationState::Failed(OperationError {
            code: 9,
            reason: "AGENT_SILENT".to_owned(),
            message: "the guest agent did not answer".to_owned(),
        }),
        step: "asks the agent".to_owned(),
        created_at_ms: 1_700_000_000_001,
        updated_at_ms: 1_700_000_000_002,
        deadline_ms: 1_700_000_000_003,
        cancel_requested: true,
        runner: Some((host_id(2), Epoch::from_raw(3))),
    }
}

pub fn request() -> Request {
    Request {
        content_sha256: [7; 32],
        vm: Some(vm_id(1)),
        operation: Some(OperationId::from_uuid(uuid(5))),
        at_ms: 1_700_000_000_000,
    }
}

pub fn token() -> Token {
    Token {
        secret_sha256: [9; 32],
        expires_at_ms: 1_700_000_000_000,
        uses_left: 2,
    }
}

pub fn config() -> ClusterConfig {
    let fields = TimingsFields {
        beat_ms: 500,
        freeze_after_ms: 3000,
        failover_after_ms: 5000,
    };
    ClusterConfig {
        timings: Timings::new(fields).unwrap(),
        placement: PlacementMode::Pack,
        // As it is where no cluster was ever recovered.
        recovery: Recovery::default(),
    }
}

pub fn host_record() -> HostRecord {
    let addresses = vec!["alpha:50051".parse().unwrap(), "10.0.0.7:50051".parse().unwrap()];
    HostRecord::new(host_id(2), HostName::new("alpha").unwrap(), addresses)
        .unwrap()
        .with_mode(HostMode::Draining)
        .with_cluster_address(Some("alpha:50052".parse().unwrap()))
}

pub fn status() -> VmStatus {
    VmStatus::new(VmStatusFields {
        incarnation: Incarnation::from_raw(3),
        leased: true,
        attempt: AttemptId::from_uuid(uuid(4)),
        state: ObservedState::Paused {
            cause: PauseCause::IoError,
        },
        process: Some(QemuProcess {
            pid: 4711,
            start_time_ticks: 12,
        }),
        qemu: Some(QemuRunState::IoError),
        agent: AgentHealth::NotResponding,
        last_exit: Some(Exit::Signal(9)),
        conditions: vec![Condition {
            name: label("crashed"),
            text: "QEMU died".to_owned(),
        }],
        crashes_at_ms: vec![1_700_000_000_000, 1_700_000_000_500],
        generation: 6,
        since_ms: 1_700_000_000_700,
    })
    .unwrap()
}

/// A disk with nothing left at its default, and one in a file.
fn full_disks() -> Vec<Disk> {
    let volume = |name: &str| DiskLocation::Volume {
        pool: PoolName::new("nfs").unwrap(),
        volume: label(name),
    };
    let disk = Disk {
        read_only: true,
        backing: vec![BackingImage {
            location: volume("base"),
            format: DiskFormat::Raw,
        }],
        bus: DiskBus::VirtioScsi,
        cache: DiskCache::Directsync,
        aio: DiskAio::Native,
        discard: DiskDiscard::Ignore,
        serial: Some(DiskSerial::new("S1").unwrap()),
        ..Disk::new(label("root"), volume("root"), 10_240)
    };
    let raw = Disk {
        format: DiskFormat::Raw,
        ..Disk::new(
            label("data"),
            DiskLocation::File {
                path: "/srv/data".into(),
            },
            1,
        )
    };
    vec![disk, raw]
}

/// A VM with nothing left at its default.
pub fn full_record() -> VmRecord {
    let nic = Nic {
        queues: 4,
        ..Nic::new(
            label("net0"),
            "52:54:00:12:34:56".parse().unwrap(),
            NicNetwork::Bridge(BridgeName::new("br0").unwrap()),
        )
    };
    let spec = VmSpec::new(VmSpecFields {
        cpu: Cpu {
            sockets: 2,
            model: Some(CpuModel::new("max").unwrap()),
        },
        machine: MachineType::new("pc-q35-7.2").unwrap(),
        firmware: Firmware::Uefi { secure_boot: true },
        direct_boot: Some(DirectBoot {
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd".into()),
            cmdline: "quiet".to_owned(),
        }),
        disks: full_disks(),
        cdroms: vec![Cdrom {
            name: label("cd"),
            image: Some(DiskLocation::File {
                path: "/srv/seed.iso".into(),
            }),
        }],
        nics: vec![nic],
        boot_order: vec![label("root"), label("net0")],
        display: Display::None,
        rng: false,
        balloon: false,
        pvpanic: false,
        watchdog: GuestWatchdog::I6300esb,
        agent: AgentPolicy::Optional,
        ha: HaPolicy::On,
        priority: 200,
        restart: RestartPolicy::OnCrash { tries: 5, window_s: 60 },
        depends_on: vec![Dependency {
            vm: vm_id(8),
            until: DependencyReached::Running,
        }],
        start_delay_s: 5,
        start_paused: true,
        affinity: Affinity {
            hosts: vec![HostName::new("alpha").unwrap()],
            apart_from: vec![vm_id(9)],
            together_with: vec![vm_id(10)],
            // What came later is in `random`: these bytes are frozen.
            ..Affinity::default()
        },
        ..VmSpecFields::new(VmName::new("web-1").unwrap(), 4, 2048)
    });
    VmRecord::from_parts(VmRecordParts {
        id: vm_id(1),
        number: VmNumber::new(101).unwrap(),
        spec: spec.unwrap(),
        power: PowerWanted::Off,
        generation: Generation::from_raw(6),
        deleted: true,
        created_at_ms: 1_700_000_000_000,
    })
    .unwrap()
}

/// One value of each kind, with nothing left at its default, under its key.
pub fn one_of_each() -> Vec<(ParsedKey, StoredValue)> {
    let vm = vm_id(1);
    let host = host_id(2);
    let placement = Placement {
        host,
        incarnation: Incarnation::from_raw(3),
    };
    vec![
        (ParsedKey::Config, StoredValue::Config(config())),
        (ParsedKey::HostRecord(host), StoredValue::HostRecord(host_record())),
        (ParsedKey::Session(host), StoredValue::Session(session(3).fenced())),
        (ParsedKey::Beat(host), StoredValue::Beat(beat(0x0102))),
        (ParsedKey::VmRecord(vm), StoredValue::VmRecord(full_record())),
        (ParsedKey::Placement(vm), StoredValue::Placement(placement)),
        (ParsedKey::Status(vm), StoredValue::Status(status())),
        (ParsedKey::Name(VmName::new("web-1").unwrap()), StoredValue::Pointer(vm)),
        (ParsedKey::Number(VmNumber::new(101).unwrap()), StoredValue::Pointer(vm)),
        (
            ParsedKey::Request(RequestId::new("r-1").unwrap()),
            StoredValue::Request(request()),
        ),
        (
            ParsedKey::Operation(OperationId::from_uuid(uuid(5))),
            StoredValue::Operation(operation(5)),
        ),
        (
            ParsedKey::Decision(super::keys::decision_id(17, 0xbeef)),
            StoredValue::Decision(decision(17)),
        ),
        (
            ParsedKey::Token(TokenId::new("t-1").unwrap()),
            StoredValue::Token(token()),
        ),
    ]
}
