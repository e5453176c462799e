//! `verify`: every check that only reads. Runs all of them, so that one run shows everything wrong.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use crate::setup::{self, Purpose};
use crate::{step, tidy};

pub fn run(checkout: &Checkout) -> Result<ExitCode> {
    setup::ensure(checkout, Purpose::Verify)?;
    check_all(checkout)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs every check and fails with the names of those that did not pass.
pub fn check_all(checkout: &Checkout) -> Result<()> {
    let checks = [
        ("format", format(checkout)),
        ("tidy", tidy::check_and_report(checkout)),
        ("dependencies", dependencies(checkout)),
        ("clippy", clippy(checkout)),
    ];
    let mut failed = Vec::new();
    for (name, outcome) in checks {
        if let Err(error) = outcome {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("verify failed: {}", failed.join(", "));
    }
    step::announce("verify: all checks passed");
    Ok(())
}

fn format(checkout: &Checkout) -> Result<()> {
    step::run(
        "cargo fmt --check (repair with `cargo fmt --all`)",
        &mut checkout.cargo(&["fmt", "--all", "--", "--check"]),
    )
}

fn clippy(checkout: &Checkout) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run("cargo clippy", &mut checkout.cargo(&arguments))
}

/// Bans, licences and sources. Advisories need a database from the network and change without us, so
/// they are no part of a check that must give the same answer tomorrow.
fn dependencies(checkout: &Checkout) -> Result<()> {
    let mut deny = Command::new(setup::cargo_deny(checkout)?);
    deny.current_dir(&checkout.root)
        .args(["--log-level", "warn", "check", "bans", "licenses", "sources"]);
    step::run("cargo deny check bans licenses sources", &mut deny)
}
