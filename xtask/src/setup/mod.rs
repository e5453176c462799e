//! `setup`: finds or installs what the other commands need.
//!
//! It must never install what is there already, start a service, or touch anything outside the system's
//! package database, the Rust toolchain and the target folder. Where it may not install, it names what
//! is missing.

mod cargo_deny;
pub mod debian;
mod etcd;
mod grpcurl;
mod qemu;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;

use crate::checkout::Checkout;
use crate::step;

pub use cargo_deny::find as cargo_deny;
pub use etcd::program as etcd_program;
pub use grpcurl::find as grpcurl;

/// What somebody is about to do; decides what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Processes on loopback: Rust is enough.
    Store,
    /// Servers on loopback with VMs, and what a user calls them with.
    Demo,
    Verify,
    Test,
    Bench,
    /// QEMU, and what the guests of the tests are built with.
    Guests,
}

impl Purpose {
    fn checks_code(self) -> bool {
        matches!(self, Purpose::Verify | Purpose::Test)
    }

    fn makes_namespaces(self) -> bool {
        matches!(self, Purpose::Test | Purpose::Bench)
    }

    fn runs_guests(self) -> bool {
        matches!(self, Purpose::Test | Purpose::Guests | Purpose::Demo)
    }

    fn calls_servers(self) -> bool {
        matches!(self, Purpose::Test | Purpose::Demo)
    }

    fn compares_with_peers(self) -> bool {
        self == Purpose::Bench
    }
}

pub fn run(checkout: &Checkout, bench: bool) -> Result<ExitCode> {
    ensure(checkout, Purpose::Test)?;
    if bench {
        ensure(checkout, Purpose::Bench)?;
        ensure_libvirt()?;
    }
    step::announce("setup: everything needed is there");
    Ok(ExitCode::SUCCESS)
}

/// The peer of `bench vm`. Its packages start nothing: those that would are recommended, not needed.
pub fn ensure_libvirt() -> Result<()> {
    debian::ensure(debian::LIBVIRT)
}

/// Makes sure that everything needed is there. Says nothing and does nothing if it is.
pub fn ensure(checkout: &Checkout, purpose: Purpose) -> Result<()> {
    if purpose.makes_namespaces() {
        debian::ensure(debian::FOR_NAMESPACES)?;
    }
    if purpose.runs_guests() {
        qemu::ensure()?;
        debian::ensure(debian::FOR_GUESTS)?;
    }
    if purpose.calls_servers() {
        grpcurl::ensure(checkout)?;
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
