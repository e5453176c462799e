//! The micro guest: Debian's kernel and a few megabytes of initramfs, ready in seconds without KVM.
//!
//! It has what a hypervisor talks to (virtio devices, watchdog, pvpanic, the real qemu-ga) and a program,
//! `micro`, that does on command what guests do on their own in the field. Debian's cloud kernel would be
//! smaller but lacks the watchdog and pvpanic.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::kernel;
use super::modules::{Module, Modules};
use super::packages::{self, Depth};
use super::recipe::Recipe;
use crate::step;

const KERNEL_PACKAGE: &str = "linux-image-amd64";
const AGENT_PACKAGE: &str = "qemu-guest-agent";
const SHELL_PACKAGE: &str = "busybox-static";
const LIBRARY_FOLDERS: [&str; 4] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];
const LOADER: &str = "ld-linux-x86-64.so.2";

/// What the agent needs to be reached: inserted before it starts.
const EARLY_MODULES: &[&str] = &["virtio_pci", "virtio_console"];

/// The other devices. `crc32c_generic` is needed by ext4, which does not say so.
const LATE_MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "virtio_rng",
    "virtio_balloon",
    "pvpanic_mmio",
    "pvpanic_pci",
    "i6300esb",
    "button",
    "evdev",
    "crc32c_generic",
    "ext4",
];

/// Programs of ours in the guest: where, and what.
const SCRIPTS: &[(&str, &str)] = &[
    ("init", include_str!("files/micro/init")),
    ("bin/micro", include_str!("files/micro/micro")),
    ("bin/shutdown", include_str!("files/micro/shutdown")),
    ("etc/udhcpc.script", include_str!("files/micro/udhcpc.script")),
    ("etc/acpi/PWRF/00000080", include_str!("files/micro/power-button")),
];
const OS_RELEASE: &str = include_str!("files/micro/os-release");

/// What makes the kernel quick without KVM, by leaving out what a test guest has no use for.
const COMMAND_LINE: &str = "console=ttyS0 quiet nokaslr mitigations=off no5lvl tsc=reliable no_timer_check \
                            cryptomgr.notests audit=0 apparmor=0 i8042.noaux i8042.nokbd";

pub fn recipe() -> Recipe {
    let mut recipe = Recipe::new("micro");
    for (name, source) in [
        ("micro.rs", include_str!("micro.rs")),
        ("cpio.rs", include_str!("cpio.rs")),
        ("kernel.rs", include_str!("kernel.rs")),
        ("modules.rs", include_str!("modules.rs")),
    ] {
        recipe.ingredient(name, source);
    }
    recipe.ingredient("os-release", OS_RELEASE);
    for (path, content) in SCRIPTS {
        recipe.ingredient(path, content);
    }
    recipe
}

/// Builds `kernel` and `initrd` in `output`, with `scratch` for everything else.
pub fn build(scratch: &Path, output: &Path) -> Result<()> {
    let root = packages::unpacked(scratch, &package_list()?)?;
    step::announce("assemble the micro guest");
    let packed = the_kernel(&root)?;
    std::fs::copy(&packed, output.join("bzimage")).context("cannot copy the kernel")?;
    kernel::unpack(&packed, &output.join("kernel"))?;
    std::fs::write(output.join("cmdline"), COMMAND_LINE).context("cannot write the command line")?;

    let mut archive = Archive::default();
    add_shell(&mut archive, &root)?;
    add_agent(&mut archive, &root)?;
    add_modules(&mut archive, &root)?;
    for (path, content) in SCRIPTS {
        archive.program(path, *content);
    }
    archive.file("etc/os-release", OS_RELEASE);
    archive.file("etc/hostname", "micro\n");
    for folder in ["proc", "sys", "run", "tmp", "data", "root", "var/log"] {
        archive.folder(folder);
    }
    archive.link("var/run", "../run");
    // The kernel opens it for process 1 before anything is mounted.
    archive.character_device("dev/console", 5, 1);
    write_compressed(&archive.to_bytes(), &output.join("initrd"))
}

fn package_list() -> Result<Vec<String>> {
    let mut list = vec![SHELL_PACKAGE.to_owned(), AGENT_PACKAGE.to_owned()];
    // The kernel package proper, whose name has the version in it.
    list.extend(
        packages::needed_by(KERNEL_PACKAGE, Depth::Direct)?
            .into_iter()
            .filter(|name| name.starts_with("linux-image-")),
    );
    // More than the agent loads, but which of them it does is known only when they are there.
    list.extend(
        packages::needed_by(AGENT_PACKAGE, Depth::All)?
            .into_iter()
            .filter(|name| name.starts_with("lib") && !name.contains("perl")),
    );
    Ok(list)
}

pub fn the_kernel(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    std::fs::read_dir(&boot)
        .with_context(|| format!("cannot read {}", boot.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .with_context(|| format!("there is no kernel in the package {KERNEL_PACKAGE}"))
}

fn add_shell(archive: &mut Archive, root: &Path) -> Result<()> {
    let busybox = first_of(root, &["bin/busybox", "usr/bin/busybox"])
        .with_context(|| format!("the package {SHELL_PACKAGE} has no busybox"))?;
    let output = Command::new(&busybox)
        .arg("--list")
        .output()
        .with_context(|| format!("cannot run {}", busybox.display()))?;
    for applet in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.program("bin/busybox", read(&busybox)?);
    for alias in ["sbin", "usr/bin", "usr/sbin"] {
        archive.link(alias, "/bin");
    }
    Ok(())
}

fn add_agent(archive: &mut Archive, root: &Path) -> Result<()> {
    let agent = first_of(root, &["usr/sbin/qemu-ga", "usr/bin/qemu-ga"])
        .with_context(|| format!("the package {AGENT_PACKAGE} has no qemu-ga"))?;
    let folders: Vec<PathBuf> = LIBRARY_FOLDERS.iter().map(|folder| root.join(folder)).collect();
    let find = |name: &str| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    };
    let loader = find(LOADER).with_context(|| format!("{LOADER} is missing: the package libc6 lacks it"))?;
    for library in libraries(&loader, &folders, &agent)? {
        let path = find(&library)
            .with_context(|| format!("{library}, which qemu-ga needs, is in none of the packages it depends on"))?;
        archive.program(&format!("lib/x86_64-linux-gnu/{library}"), read(&path)?);
    }
    archive.program(&format!("lib64/{LOADER}"), read(&loader)?);
    archive.program("bin/qemu-ga", read(&agent)?);
    Ok(())
}

/// The libraries that a program loads, by the word of the loader that will load them.
fn libraries(loader: &Path, folders: &[PathBuf], program: &Path) -> Result<Vec<String>> {
    let search = std::env::join_paths(folders).context("a library folder has a colon in its path")?;
    let output = Command::new(loader)
        .arg("--library-path")
        .arg(search)
        .arg("--list")
        .arg(program)
        .output()
        .with_context(|| format!("cannot run {}", loader.display()))?;
    if !output.status.success() {
        bail!(
            "a library of qemu-ga is missing: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| Some(line.split_once(" => ")?.0.trim().to_owned()))
        .filter(|name| !name.contains('/') && name != LOADER)
        .collect())
}

fn add_modules(archive: &mut Archive, root: &Path) -> Result<()> {
    let folder = first_of(root, &["lib/modules", "usr/lib/modules"])
        .with_context(|| format!("the package {KERNEL_PACKAGE} has no modules"))?;
    let modules = Modules::below(&folder)?;
    let early = modules.in_order(EARLY_MODULES, &BTreeSet::new())?;
    let inserted = early.iter().map(|module| module.name.clone()).collect();
    let late = modules.in_order(LATE_MODULES, &inserted)?;
    for (list, modules) in [("etc/modules.early", early), ("etc/modules.late", late)] {
        archive.file(list, names(&modules));
        for Module { name, content } in modules {
            archive.file(&format!("lib/modules/{name}.ko"), content);
        }
    }
    Ok(())
}

fn names(modules: &[Module]) -> String {
    modules.iter().map(|module| format!("{}.ko\n", module.name)).collect()
}

/// gzip: the quickest to unpack in the guest of those that every machine has.
fn write_compressed(archive: &[u8], path: &Path) -> Result<()> {
    let plain = path.with_extension("cpio");
    std::fs::write(&plain, archive).with_context(|| format!("cannot write {}", plain.display()))?;
    let packed = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let status = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .arg(&plain)
        .stdout(packed)
        .status()
        .context("cannot run gzip")?;
    if !status.success() {
        bail!("gzip cannot pack the initramfs: {status}");
    }
    std::fs::remove_file(&plain).with_context(|| format!("cannot remove {}", plain.display()))
}

fn first_of(root: &Path, candidates: &[&str]) -> Option<PathBuf> {
    candidates
        .iter()
        .map(|candidate| root.join(candidate))
        .find(|path| path.exists())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
