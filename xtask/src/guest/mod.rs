//! `guest-image`: the guests that tests run, built out of Debian packages and cached.
//!
//! ```text
//! target/guests/<kind>/          kernel, initrd, cmdline (what to boot it with), and `recipe`, the key it was
//!                                built for; micro: bzimage (the kernel packed, for UEFI); debian: disk.qcow2
//! target/guests/.build-XXXXXX/   a build under way; renamed when complete, swept by the next one if killed
//! target/guests/.lock            held while building: two commands never build at once
//! ```
//!
//! A folder with the name of a kind must never be incomplete, whenever this program is killed; and what is
//! cached must never need the network.

mod cpio;
mod debian;
mod kernel;
mod micro;
mod modules;
mod packages;
mod recipe;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::checkout::Checkout;
use crate::setup::{self, Purpose};
use crate::step;

const UNDER_WAY: &str = ".build-";
const RECIPE: &str = "recipe";

/// The guests there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Kernel and a small initramfs with busybox and the real qemu-ga: answers in seconds without KVM
    Micro,
    /// Debian 12 on a disk, with systemd, cloud-init, the guest agent and a SSH server (needs root to build)
    Debian,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Micro => "micro",
            Kind::Debian => "debian",
        }
    }

    fn key(self) -> String {
        match self {
            Kind::Micro => micro::recipe(),
            Kind::Debian => debian::recipe(),
        }
        .key()
    }

    fn files(self) -> &'static [&'static str] {
        match self {
            Kind::Micro => &["kernel", "bzimage", "initrd", "cmdline"],
            Kind::Debian => &["kernel", "initrd", "cmdline", "disk.qcow2"],
        }
    }

    fn build(self, scratch: &Path, output: &Path) -> Result<()> {
        match self {
            Kind::Micro => micro::build(scratch, output),
            Kind::Debian => debian::build(scratch, output),
        }
    }
}

/// Builds every guest that tests boot, unless it is cached.
pub fn ensure_all(checkout: &Checkout) -> Result<()> {
    for kind in Kind::value_variants() {
        ensure(checkout, *kind)?;
    }
    Ok(())
}

/// Builds the guest of demonstrations and benchmarks, unless it is cached.
pub fn ensure_micro(checkout: &Checkout) -> Result<()> {
    ensure(checkout, Kind::Micro).map(drop)
}

/// Builds the guest unless it is cached; the last line, on stdout, is its folder.
pub fn run(checkout: &Checkout, kind: Kind) -> Result<ExitCode> {
    let folder = ensure(checkout, kind)?;
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

fn ensure(checkout: &Checkout, kind: Kind) -> Result<PathBuf> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!(
            "guests are built for x86_64 only, and this machine is {}",
            std::env::consts::ARCH
        );
    }
    let guests = &checkout.guests();
    let folder = guests.join(kind.name());
    let key = kind.key();
    if is_built_for(&folder, &key) {
        return Ok(folder);
    }
    std::fs::create_dir_all(guests).with_context(|| format!("cannot make {}", guests.display()))?;
    let _only_builder = lock(guests)?;
    // Whoever held the lock may have built it.
    if is_built_for(&folder, &key) {
        return Ok(folder);
    }
    sweep(guests)?;
    setup::ensure(checkout, Purpose::Guests)?;
    let begun = Instant::now();
    step::announce(&format!("build the {} guest (once; it is cached)", kind.name()));
    let build = tempfile::Builder::new()
        .prefix(UNDER_WAY)
        .tempdir_in(guests)
        .with_context(|| format!("cannot make a folder in {}", guests.display()))?;
    let (scratch, output) = (build.path().join("scratch"), build.path().join("output"));
    for new in [&scratch, &output] {
        std::fs::create_dir(new).with_context(|| format!("cannot make {}", new.display()))?;
    }
    kind.build(&scratch, &output)?;
    for name in kind.files() {
        if !output.join(name).is_file() {
            bail!("the build of the {} guest made no {name}", kind.name());
        }
    }
    std::fs::write(output.join(RECIPE), &key).context("cannot write the recipe's key")?;
    put_in_place(&output, &folder, build.path())?;
    step::announce(&format!("built in {:.0} s", begun.elapsed().as_secs_f32()));
    Ok(folder)
}

/// The key is written last and moved with the rest: where it is, everything is.
fn is_built_for(folder: &Path, key: &str) -> bool {
    std::fs::read_to_string(folder.join(RECIPE)).is_ok_and(|built_for| built_for == key)
}

fn lock(guests: &Path) -> Result<File> {
    let path = guests.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        step::announce("wait for another build of guests");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Removes what killed builds left. Only with the lock held: a build under way looks the same.
fn sweep(guests: &Path) -> Result<()> {
    for entry in std::fs::read_dir(guests).with_context(|| format!("cannot read {}", guests.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNDER_WAY) {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// A folder that is not empty cannot be renamed over. Between the two renames there is no guest, which is
/// a reason to build one; at no moment is there half a guest.
fn put_in_place(output: &Path, folder: &Path, build: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::rename(folder, build.join("replaced"))
            .with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    std::fs::rename(output, folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(folder: &Path, key: &str) {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join(RECIPE), key).unwrap();
    }

    #[test]
    fn a_guest_counts_only_for_the_recipe_it_was_built_for() {
        let guests = tempfile::tempdir().unwrap();
        let folder = guests.path().join("micro");
        assert!(!is_built_for(&folder, "one"));
        complete(&folder, "one");
        assert!(is_built_for(&folder, "one"));
        assert!(!is_built_for(&folder, "two"));
    }

    #[test]
    fn a_new_guest_replaces_the_old_one_as_a_whole() {
        let guests = tempfile::tempdir().unwrap();
        let (folder, build) = (guests.path().join("micro"), guests.path().join(".build-1"));
        complete(&folder, "one");
        std::fs::write(folder.join("stale"), "").unwrap();
        std::fs::create_dir(&build).unwrap();
        complete(&build.join("output"), "two");
        put_in_place(&build.join("output"), &folder, &build).unwrap();
        assert!(is_built_for(&folder, "two"));
        assert!(!folder.join("stale").exists());
    }

    #[test]
    fn what_a_killed_build_left_is_swept_and_nothing_else() {
        let guests = tempfile::tempdir().unwrap();
        complete(&guests.path().join("micro"), "one");
        complete(&guests.path().join(".build-killed"), "");
        sweep(guests.path()).unwrap();
        assert!(guests.path().join("micro").exists());
        assert!(!guests.path().join(".build-killed").exists());
    }

    #[test]
    fn every_guest_has_a_key_of_its_own() {
        assert_ne!(Kind::Micro.key(), Kind::Debian.key());
    }
}
