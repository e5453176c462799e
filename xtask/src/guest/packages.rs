//! Debian packages as material: fetched and unpacked, never installed.
//!
//! Whatever release the machine has gives the packages; names that differ between releases (a kernel, a
//! library) are asked of apt. Must never need root, and never change the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::debian::Administrator;
use crate::step;

/// Fetches packages and unpacks them all into one folder below `folder`; answers with that one.
pub fn unpacked(folder: &Path, packages: &[String]) -> Result<PathBuf> {
    if step::find_program("apt-get").is_none() {
        bail!(
            "guests are made of Debian packages, and there is no apt-get here: build them on Debian 12 or 13 and copy \
             target/guests"
        );
    }
    let downloads = folder.join("packages");
    let root = folder.join("root");
    std::fs::create_dir_all(&downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
    std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    download(&downloads, packages)?;
    for entry in std::fs::read_dir(&downloads)? {
        let archive = entry?.path();
        let done = Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(&root)
            .status();
        if !done.context("cannot run dpkg-deb")?.success() {
            bail!("dpkg-deb cannot unpack {}", archive.display());
        }
    }
    Ok(root)
}

fn download(folder: &Path, packages: &[String]) -> Result<()> {
    let fetch = || {
        let mut command = Command::new("apt-get");
        // As root apt would go over to a user who cannot write here, and warn about it.
        command
            .current_dir(folder)
            .args(["download", "--quiet", "-o", "APT::Sandbox::User=root"])
            .args(packages)
            // Stdout belongs to results.
            .stdout(std::io::stderr());
        step::run(&format!("download {}", packages.join(" ")), &mut command)
    };
    let Err(first) = fetch() else {
        return Ok(());
    };
    update_lists(first)?;
    fetch()
}

/// The lists may be missing, or too old to name a package that is still on the mirror.
fn update_lists(reason: anyhow::Error) -> Result<()> {
    let Some(administrator) = Administrator::find() else {
        return Err(reason.context("`sudo apt-get update` may help"));
    };
    step::run("apt-get update", &mut administrator.apt_get(&["update", "--quiet"]))
}

/// The packages that `package` needs, directly or through others, without itself.
pub fn needed_by(package: &str, depth: Depth) -> Result<Vec<String>> {
    let found = ask_apt(package, depth)?;
    if !found.is_empty() {
        return Ok(found);
    }
    update_lists(anyhow::anyhow!("apt knows no package {package}"))?;
    let found = ask_apt(package, depth)?;
    if found.is_empty() {
        bail!("apt knows no package {package}: is there a Debian mirror in /etc/apt?");
    }
    Ok(found)
}

/// How far `needed_by` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Direct,
    All,
}

fn ask_apt(package: &str, depth: Depth) -> Result<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C").args(["depends", "--important"]);
    if depth == Depth::All {
        command.arg("--recurse");
    }
    let output = command.arg(package).output().context("cannot run apt-cache")?;
    Ok(package_names(&String::from_utf8_lossy(&output.stdout), package))
}

/// `  Depends: NAME` and `  PreDepends: NAME`; names in angle brackets are of no real package.
fn package_names(answer: &str, without: &str) -> Vec<String> {
    let mut names: Vec<String> = answer
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '|']).split_once("Depends: "))
        .map(|(_, name)| name.trim().to_owned())
        .filter(|name| !name.starts_with('<') && name != without)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::package_names;

    #[test]
    fn real_packages_are_told_from_the_rest_of_the_answer() {
        let answer = "qemu-guest-agent\n  PreDepends: init-system-helpers\n  Depends: libc6\n |Depends: libglib2.0-0\n    \
                      libglib2.0-0t64\n  Depends: <debconf-2.0>\n  Recommends: no\nlibc6\n  Depends: libc6\n";
        let names = package_names(answer, "qemu-guest-agent");
        assert_eq!(names, ["init-system-helpers", "libc6", "libglib2.0-0"]);
    }
}
