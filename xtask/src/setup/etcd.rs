//! etcd, the store that ours is measured against.
//!
//! Debian's packages are unpacked, never installed: installing would start a service.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::Administrator;
use crate::checkout::Checkout;
use crate::step;

const PACKAGES: [&str; 2] = ["etcd-server", "etcd-client"];
const PROGRAMS: [&str; 2] = ["etcd", "etcdctl"];

/// Where a program of etcd is: the user's own, or ours.
pub fn program(checkout: &Checkout, name: &str) -> Result<PathBuf> {
    let ours = folder(checkout).join("usr/bin").join(name);
    step::find_program(name)
        .or_else(|| Some(ours).filter(|path| path.is_file()))
        .with_context(|| format!("{name} is missing: run `cargo xtask setup --bench`"))
}

fn folder(checkout: &Checkout) -> PathBuf {
    checkout.tools().join("etcd")
}

pub fn ensure(checkout: &Checkout) -> Result<()> {
    if PROGRAMS.iter().all(|name| program(checkout, name).is_ok()) {
        return Ok(());
    }
    if step::find_program("apt-get").is_none() {
        bail!("etcd and etcdctl are missing and there is no apt-get: put them into your search path");
    }
    let folder = folder(checkout);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    download(&folder)?;
    unpack(&folder)?;
    for name in PROGRAMS {
        program(checkout, name)?;
    }
    Ok(())
}

fn download(folder: &Path) -> Result<()> {
    let fetch = || {
        let mut command = Command::new("apt-get");
        command.current_dir(folder).args(["download", "--quiet"]).args(PACKAGES);
        step::run("download etcd", &mut command)
    };
    let Err(first) = fetch() else {
        return Ok(());
    };
    // The lists may be missing or too old to name a package that is still on the mirror.
    let Some(administrator) = Administrator::find() else {
        return Err(first.context("`sudo apt-get update` may help; or put etcd and etcdctl into your search path"));
    };
    step::run("apt-get update", &mut administrator.apt_get(&["update", "--quiet"]))?;
    fetch()
}

fn unpack(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            step::run(
                &format!("unpack {}", path.file_name().unwrap_or_default().display()),
                Command::new("dpkg").arg("-x").arg(&path).arg(folder),
            )?;
        }
    }
    Ok(())
}
