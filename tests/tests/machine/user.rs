//! A QEMU that is not root, under a server that is.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use plasmavmc_guard::wire::Owner;
use plasmavmc_kvm::adopt::inherit;
use plasmavmc_kvm::machine::{Cause, Machine, Phase};
use plasmavmc_tests::vms::{Place, boot_id, disk, has_agent, has_booted, micro};
use plasmavmc_types::{DiskFormat, VmSpec};

use crate::{SOON, STOP, at_this_place, cause, exec, in_runtime};

/// Nobody, on every Linux.
const USER: u32 = 65534;
const DISK_MB: u64 = 8;

/// The micro guest out of files that anybody may read, with a disk that is the user's.
fn spec(place: &Place) -> Result<VmSpec> {
    let image = place.folder().join("data.raw");
    std::fs::File::create(&image)?.set_len(DISK_MB * 1024 * 1024)?;
    chown(&image, Some(USER), Some(USER))?;
    let spec = micro("unprivileged", "", |_| {})?;
    let mut boot = spec.direct_boot.clone().context("it is booted directly")?;
    let readable = |from: &Path, name: &str| -> Result<_> {
        let to = place.folder().join(name);
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o644))?;
        Ok(to)
    };
    boot.kernel = readable(&boot.kernel, "kernel")?;
    boot.initrd = boot.initrd.map(|initrd| readable(&initrd, "initrd")).transpose()?;
    let data = disk("data", &image, DiskFormat::Raw, DISK_MB)?;
    Ok(spec.edit(|fields| {
        fields.direct_boot = Some(boot);
        fields.disks.push(data);
    })?)
}

/// Every id that the kernel knows of the process: real, effective, saved, of files.
fn ids(machine: &Machine, what: &str) -> Result<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", machine.state().borrow().pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let numbers = line.with_context(|| format!("no {what}"))?.split_whitespace();
    Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
}

#[test]
fn a_qemu_of_another_user_works_is_adopted_and_stops() {
    in_runtime(async {
        let owner = Owner {
            uid: USER,
            gid: USER,
            groups: Vec::new(),
        };
        let place = Place::of_user(owner).await.unwrap();
        at_this_place(place, async |place| {
            let machine = place.launch(spec(&place)?).await?;
            machine.cont().await?;
            has_booted(&machine).await?;
            for what in ["Uid:", "Gid:"] {
                assert_eq!(ids(&machine, what)?, [USER; 4], "{what}");
            }
            assert_eq!(ids(&machine, "Groups:")?, Vec::<u32>::new());
            assert_eq!(ids(&machine, "NoNewPrivs:")?, [1]);
            assert_eq!(ids(&machine, "CapEff:")?, [0]);
            let folder = place.host().vms.join(machine.key().vm.to_string());
            assert_eq!(folder.metadata()?.uid(), USER);
            assert_eq!(folder.join("machine.json").metadata()?.uid(), 0, "the record is ours");
            let write = exec("/bin/sh", &["-c", "echo written | dd of=/dev/vda conv=fsync"]);
            let written = machine.agent().exec(&write, SOON).await?;
            assert!(
                std::fs::read(place.folder().join("data.raw"))?.starts_with(b"written\n"),
                "{written:?}"
            );
            assert!(machine.screenshot().await?.starts_with(b"\x89PNG"));

            let boot = boot_id(&machine).await?;
            machine.close().await;
            let mut inheritance = inherit(place.host()).await?;
            ensure!(inheritance.left_alone.is_empty(), "{inheritance:?}");
            let machine = inheritance.machines.pop().context("nothing was adopted")?;
            assert_eq!(machine.state().borrow().phase, Phase::Running);
            has_agent(&machine).await?;
            assert_eq!(boot_id(&machine).await?, boot);
            machine.stop(STOP).await?;
            assert_eq!(cause(&machine), Some(Cause::Stopped));
            Ok(())
        })
        .await;
    });
}
