//! The debian guest: what people really run, with systemd, cloud-init, the guest agent and a SSH server.
//!
//! debootstrap makes the tree and `mkfs.ext4 -d` the file system, so no loop device is needed. debootstrap
//! mounts things inside the tree; it runs in namespaces of its own that end with it or with us, or a build
//! that was killed would leave a `/proc` in a folder that the next one removes. Must never leave a mount.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::recipe::Recipe;
use crate::step;

const SUITE: &str = "bookworm";
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "udev",
    "dbus",
    "cloud-init",
    // Provides what python3-cryptography needs under a virtual name, which debootstrap does not resolve.
    "python3-cffi-backend",
    "qemu-guest-agent",
    "openssh-server",
    "netplan.io",
    "iproute2",
    "e2fsprogs",
    "linux-image-cloud-amd64",
];
/// Sparse; what is not used takes no room in the qcow2 file.
const DISK_SIZE: &str = "3G";
const LABEL: &str = "plasma-root";
const COMMAND_LINE: &str =
    "root=LABEL=plasma-root ro console=ttyS0 quiet nokaslr mitigations=off no5lvl tsc=reliable no_timer_check";

/// Files of ours in the tree: where, and what.
const FILES: &[(&str, &str)] = &[
    (
        "etc/cloud/cloud.cfg.d/90_plasmavmc.cfg",
        include_str!("files/debian-datasource.cfg"),
    ),
    ("etc/fstab", "LABEL=plasma-root / ext4 errors=remount-ro 0 1\n"),
    ("etc/hostname", "debian\n"),
    // Empty: each VM makes its own at its first boot.
    ("etc/machine-id", ""),
];

/// What must differ between VMs made of this disk, or is of no use in it.
const REMOVED: &[&str] = &["var/cache/apt", "var/lib/apt/lists", "var/lib/cloud", "etc/resolv.conf"];

pub fn recipe() -> Recipe {
    let mut recipe = Recipe::new("debian");
    recipe.ingredient("debian.rs", include_str!("debian.rs"));
    for (path, content) in FILES {
        recipe.ingredient(path, content);
    }
    recipe
}

/// Builds the disk, its kernel and its initrd in `output`, with `scratch` for everything else.
pub fn build(scratch: &Path, output: &Path) -> Result<()> {
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        bail!("the debian guest is built in a chroot, which needs root: run `sudo -E cargo xtask guest-image debian`");
    }
    let root = scratch.join("root");
    bootstrap(&root)?;
    step::announce("prepare the tree");
    for (path, content) in FILES {
        write(&root.join(path), content)?;
    }
    for path in REMOVED {
        remove(&root.join(path))?;
    }
    remove_host_keys(&root.join("etc/ssh"))?;

    let boot = root.join("boot");
    // Left packed: the cloud kernel is packed for speed, not for size.
    copy(&newest(&boot, "vmlinuz-")?, &output.join("kernel"))?;
    copy(&newest(&boot, "initrd.img-")?, &output.join("initrd"))?;
    write(&output.join("cmdline"), COMMAND_LINE)?;
    make_disk(scratch, &root, &output.join("disk.qcow2"))
}

fn bootstrap(root: &Path) -> Result<()> {
    let mirror = mirror()?;
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .args(["--mount-proc", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(SUITE)
        .arg(root)
        .arg(&mirror)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Stdout belongs to results.
        .stdout(std::io::stderr());
    step::run(
        &format!("debootstrap {SUITE} from {mirror} (about a minute and a half)"),
        &mut command,
    )
    .context("is the mirror within reach? The reason stands at the end of debootstrap's own output")
}

/// Where this machine itself gets Debian's packages from.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Label: Debian",
        ])
        .output()
        .context("asking apt-get for its mirrors")?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = listed.lines().find(|line| !line.trim().is_empty());
    let mirror = first.context("apt knows no mirror of Debian: run `apt-get update`, or add one to its sources")?;
    Ok(mirror.trim().to_owned())
}

fn make_disk(scratch: &Path, root: &Path, disk: &Path) -> Result<()> {
    let raw = scratch.join("disk.raw");
    step::run(
        "make the file system",
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", LABEL, "-d"])
            .arg(root)
            .arg(&raw)
            .arg(DISK_SIZE),
    )?;
    step::run(
        "make the disk",
        Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2"])
            .arg(&raw)
            .arg(disk),
    )
}

fn newest(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .max()
        .with_context(|| format!("linux-image-cloud-amd64 brought no {prefix}* into {}", folder.display()))
}

fn remove_host_keys(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file, a link or a whole folder, if it is there. Never what a link leads to.
fn remove(path: &Path) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else {
        return Ok(());
    };
    let removed = if found.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
