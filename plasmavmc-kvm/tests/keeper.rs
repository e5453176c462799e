//! The way to a guard that is not well: every wait ends in time, and nothing is called undone that may be done.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plasmavmc_guard::wire::socket::{Received, SOCKET_NAME, receive};
use plasmavmc_guard::wire::{ExitReason, Key};
use plasmavmc_kvm::argv::{Accelerator, HostFacts, Placed, UefiFirmwares};
use plasmavmc_kvm::keeper::{Keeper, KeeperError};
use plasmavmc_kvm::machine::{Host, MachineError, StartPlan, launch};
use plasmavmc_kvm::qemu::Qemu;
use plasmavmc_types::{AttemptId, VmId, VmName, VmSpec, VmSpecFields};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use uuid::Uuid;

fn key() -> Key {
    Key {
        vm: VmId::from_uuid(Uuid::new_v4()),
        attempt: AttemptId::from_uuid(Uuid::new_v4()),
    }
}

/// A program that is started instead of a guard.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// The socket of a guard. What the kernel has accepted, nobody reads.
fn listen(folder: &Path) -> OwnedFd {
    let opened = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let address = format!("/proc/self/fd/{}/{SOCKET_NAME}", opened.as_raw_fd());
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(address).unwrap()).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    socket
}

#[tokio::test]
async fn an_end_that_nobody_can_tell_of_is_unknown_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let within = Duration::from_millis(300);
    let unknown = ExitReason::Unknown { kill_ordered: false };
    let check = async |what: &str, keeper: Keeper| {
        let begun = Instant::now();
        assert_eq!(keeper.collect(key(), within).await, unknown, "{what}");
        assert!(
            begun.elapsed() < within + Duration::from_secs(3),
            "{what}: {:?}",
            begun.elapsed()
        );
    };
    let hangs = program(folder.path(), "exec sleep 600");
    check(
        "a start that hangs",
        Keeper::new(folder.path().join("none"), hangs.clone()),
    )
    .await;
    let _guard = listen(folder.path());
    check("a guard that is mute", Keeper::new(folder.path().to_owned(), hangs)).await;
}

async fn host(folder: &Path) -> Arc<Host> {
    Arc::new(Host {
        vms: folder.join("vms"),
        keeper: Keeper::new(folder.to_owned(), program(folder, "echo no guard >&2; exit 1")),
        qemu: Qemu::find(None).await.unwrap(),
        run_as: None,
        cgroup: None,
    })
}

fn plan(host: &Host) -> StartPlan {
    let fields = VmSpecFields::new(VmName::new("unclear").unwrap(), 1, 16);
    StartPlan {
        id: key().vm,
        attempt: key().attempt,
        spec: VmSpec::new(fields).unwrap(),
        facts: HostFacts {
            qemu: host.qemu.version(),
            accelerator: Accelerator::Tcg,
            uefi: UefiFirmwares::default(),
        },
        placed: Placed::default(),
        taps: Default::default(),
        lease: None,
    }
}

#[tokio::test]
async fn a_start_that_reached_a_guard_is_not_called_undone_when_the_guard_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path()).await;
    let plan = plan(&host);
    let runtime = host.vms.join(plan.id.to_string());
    let guard = listen(folder.path());
    let socket = folder.path().join(SOCKET_NAME);
    // It takes the order, and with it the lock of the folder, and dies.
    let guard = std::thread::Builder::new()
        .spawn(move || {
            let client = rustix::net::accept(&guard).unwrap();
            let mut polled = [rustix::event::PollFd::new(&client, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, None).unwrap();
            let Received::Packet { descriptors, .. } = receive(&client).unwrap() else {
                panic!("no order");
            };
            std::fs::remove_file(socket).unwrap();
            descriptors
        })
        .unwrap();
    let error = launch(&host, plan).await.unwrap_err();
    let started = guard.join().unwrap();
    assert_eq!(started.len(), 1);
    assert!(
        matches!(error, MachineError::Keeper(KeeperError::Unknown(_))),
        "{error:?}"
    );
    assert!(
        runtime.join("machine.json").exists(),
        "who adopts the process finds no folder"
    );
}

#[tokio::test]
async fn a_start_that_reached_no_guard_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path()).await;
    let plan = plan(&host);
    let runtime = host.vms.join(plan.id.to_string());
    let error = launch(&host, plan).await.unwrap_err();
    assert!(error.to_string().contains("no guard"), "{error}");
    assert!(!runtime.exists());
}
