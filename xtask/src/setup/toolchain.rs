//! The parts of the Rust toolchain that a minimal installation lacks.

use std::process::Command;

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use crate::step;

/// Makes sure that `cargo fmt` and `cargo clippy` run.
pub fn ensure_components(checkout: &Checkout) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if step::succeeds(&mut checkout.cargo(&[subcommand, "--version"])) {
            continue;
        }
        if step::find_program("rustup").is_none() {
            bail!("`cargo {subcommand}` does not run and there is no rustup: install {component} for your toolchain");
        }
        step::run(
            &format!("install {component}"),
            Command::new("rustup")
                .current_dir(&checkout.root)
                .args(["component", "add", component]),
        )?;
    }
    Ok(())
}
