//! Specifications that tests start from, and what every guest of theirs can be asked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plasmavmc_kvm::machine::Machine;
use plasmavmc_kvm::qga::{Exec, ExecEnd};
use plasmavmc_types::{BackingImage, DirectBoot, Disk, DiskFormat, DiskLocation, Label, VmName, VmSpec, VmSpecFields};

use super::guest;

/// How long a guest that boots may say nothing on its console: under TCG, on a busy machine.
const SILENCE: Duration = Duration::from_secs(180);
/// How long it may boot though it goes on talking.
const BOOT: Duration = Duration::from_secs(600);
/// As `cargo xtask guest-image debian` makes it.
const DEBIAN_DISK_MB: u64 = 3072;
const AGENT: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The micro guest. `words` are what it shall do, as its init takes them on the kernel's command line.
pub fn micro(name: &str, words: &str, change: impl FnOnce(&mut VmSpecFields)) -> Result<VmSpec> {
    direct("micro", name, words, 256, change)
}

/// The debian guest, on a clone of its disk. `words` are added to its kernel's command line.
pub fn debian(name: &str, clone: &Path, words: &str) -> Result<VmSpec> {
    let mut root = disk("root", clone, DiskFormat::Qcow2, DEBIAN_DISK_MB)?;
    let location = DiskLocation::File { path: debian_disk()? };
    root.backing.push(BackingImage {
        location,
        format: DiskFormat::Qcow2,
    });
    direct("debian", name, words, 512, |fields| fields.disks.push(root))
}

/// The disk that debian guests stand on. Nobody writes to it.
pub fn debian_disk() -> Result<PathBuf> {
    Ok(guest("debian")?.join("disk.qcow2"))
}

fn direct(
    image: &str,
    name: &str,
    words: &str,
    memory_mb: u64,
    change: impl FnOnce(&mut VmSpecFields),
) -> Result<VmSpec> {
    let folder = guest(image)?;
    let own = std::fs::read_to_string(folder.join("cmdline")).context("reading the guest's command line")?;
    let mut fields = VmSpecFields::new(VmName::new(name)?, 1, memory_mb);
    fields.direct_boot = Some(DirectBoot {
        kernel: folder.join("kernel"),
        initrd: Some(folder.join("initrd")),
        cmdline: format!("{} {words}", own.trim()).trim().to_owned(),
    });
    change(&mut fields);
    Ok(VmSpec::new(fields)?)
}

/// A VM that is never let loose: as small as QEMU takes it.
pub fn paused(name: &str) -> Result<VmSpec> {
    Ok(VmSpec::new(VmSpecFields::new(VmName::new(name)?, 1, 16))?)
}

/// A disk on a file of this host.
pub fn disk(name: &str, path: &Path, format: DiskFormat, size_mb: u64) -> Result<Disk> {
    let location = DiskLocation::File { path: path.to_owned() };
    let mut disk = Disk::new(Label::new(name)?, location, size_mb);
    disk.format = format;
    Ok(disk)
}

/// Waits until the guest agent answers, for as long as the guest is seen to go on with its boot.
pub async fn has_agent(machine: &Machine) -> Result<()> {
    let deadline = Instant::now() + BOOT;
    let (mut said, mut heard) = (Vec::new(), Instant::now());
    loop {
        let Err(error) = machine.agent().health(AGENT).await else {
            return Ok(());
        };
        let console = machine.channels().console.scrollback();
        if console != said {
            (said, heard) = (console, Instant::now());
        }
        if heard.elapsed() > SILENCE || Instant::now() > deadline {
            let said = String::from_utf8_lossy(&said);
            bail!("{error}; silent for {:?}, the console said: {said}", heard.elapsed());
        }
        if machine.state().borrow().phase.is_gone() {
            bail!("it is gone: {:?}", machine.state().borrow());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until the micro guest has all its drivers and does what it was told: its agent is there earlier.
pub async fn has_booted(machine: &Machine) -> Result<()> {
    has_agent(machine).await?;
    let deadline = Instant::now() + BOOT;
    let look = Exec::new("/bin/sh").args(["-c", "test -e /run/booted"]);
    while machine.agent().exec(&look, AGENT).await?.end != ExecEnd::Exited(0) {
        ensure!(Instant::now() < deadline, "the guest does not finish booting");
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// What differs from boot to boot of one guest.
pub async fn boot_id(machine: &Machine) -> Result<String> {
    let cat = Exec::new("/bin/cat").args(["/proc/sys/kernel/random/boot_id"]);
    let outcome = machine.agent().exec(&cat, AGENT).await?;
    Ok(String::from_utf8(outcome.stdout.bytes)?.trim().to_owned())
}
