//! What goes wrong in a guest, and its cause.

use std::path::Path;
use std::time::Duration;

use plasmavmc_kvm::image::QemuImg;
use plasmavmc_kvm::machine::{MachineError, NotNow, Phase};
use plasmavmc_tests::vms::{disk, has_booted, micro};
use plasmavmc_types::{DiskFormat, GuestWatchdog, PauseCause};

use crate::{SOON, at_a_place, until, words};

#[test]
fn panic_and_watchdog_are_seen_with_their_cause() {
    at_a_place(async |place| {
        let watched = |name: &str| micro(name, "", |fields| fields.watchdog = GuestWatchdog::I6300esb);
        let (panics, hangs) = (
            place.launch(watched("panics")?).await?,
            place.launch(watched("hangs")?).await?,
        );
        panics.cont().await?;
        has_booted(&panics).await?;
        let _ = words(&panics, &["crash"]).await;
        until(&panics, "panicked", SOON, |state| {
            state.phase == Phase::Paused(PauseCause::GuestPanicked)
        })
        .await;
        let refused = panics.resume().await.unwrap_err();
        assert!(
            matches!(
                refused,
                MachineError::NotNow {
                    reason: NotNow::Panicked,
                    ..
                }
            ),
            "{refused}"
        );
        panics.reset().await?;
        has_booted(&panics).await?;
        panics.kill().await?;

        hangs.cont().await?;
        has_booted(&hangs).await?;
        let _ = words(&hangs, &["watch"]).await;
        until(&hangs, "caught by its watchdog", Duration::from_secs(60), |state| {
            state.phase == Phase::Paused(PauseCause::Watchdog)
        })
        .await;
        hangs.kill().await?;
        Ok(())
    });
}

/// A file system with so much room, until it is dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mib}m");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .status()?;
        anyhow::ensure!(mounted.success(), "mounting a tmpfs needs root");
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_pauses_the_guest_and_room_lets_it_go_on() {
    at_a_place(async |place| {
        let small = place.folder().join("small");
        let _small = Small::mount(&small, 8)?;
        let image = small.join("data.qcow2");
        let images = QemuImg::find(None).await?;
        images
            .create("disks[0].location", &image, DiskFormat::Qcow2, 64)
            .await?;
        let spec = micro("full", "", |fields| {
            let mut data = disk("data", &image, DiskFormat::Qcow2, 64).unwrap();
            data.cache = plasmavmc_types::DiskCache::Writeback;
            fields.disks.push(data);
        })?;
        let machine = place.launch(spec).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        words(&machine, &["fill-disk"]).await?;
        let state = until(&machine, "out of room", SOON, |state| {
            state.phase == Phase::Paused(PauseCause::IoError) && state.disk_trouble.is_some()
        })
        .await;
        let trouble = state.disk_trouble.unwrap();
        assert!(trouble.is_full, "{trouble:?}");
        let grown = std::process::Command::new("mount")
            .args(["-o", "remount,size=128m"])
            .arg(&small)
            .status()?;
        anyhow::ensure!(grown.success());
        machine.resume().await?;
        has_booted(&machine).await?;
        machine.kill().await?;
        Ok(())
    });
}
