//! `setup`: finds or installs what the other commands need.
//!
//! It must never install what is there already, start a service, or touch anything outside the system's
//! package database, the Rust toolchain and the target folder. Where it may not install, it names what
//! is missing.

mod cargo_deny;
mod debian;
mod etcd;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::step;

pub use cargo_deny::find as cargo_deny;
pub use etcd::program as etcd_program;

/// What somebody is about to do; decides what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Processes on loopback: Rust is enough.
    Demo,
    Verify,
    Test,
    Bench,
}

impl Purpose {
    fn checks_code(self) -> bool {
        matches!(self, Purpose::Verify | Purpose::Test)
    }

    fn makes_namespaces(self) -> bool {
        matches!(self, Purpose::Test | Purpose::Bench)
    }

    fn compares_with_peers(self) -> bool {
        self == Purpose::Bench
    }
}

pub fn run(checkout: &Checkout, bench: bool) -> Result<ExitCode> {
    ensure(checkout, Purpose::Test)?;
    if bench {
        ensure(checkout, Purpose::Bench)?;
    }
    step::announce("setup: everything needed is there");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that everything needed is there. Says nothing and does nothing if it is.
pub fn ensure(checkout: &Checkout, purpose: Purpose) -> Result<()> {
    if purpose.makes_namespaces() {
        debian::ensure(debian::FOR_NAMESPACES)?;
    }
    if purpose.checks_code() {
        toolchain::ensure_components(checkout)?;
        cargo_deny::ensure(checkout)?;
    }
    if purpose.compares_with_peers() {
        etcd::ensure(checkout)?;
    }
    Ok(())
}
