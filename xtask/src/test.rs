//! `test`: what the CI runs and what everybody runs before a push. There is no second way.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, anyhow};

use crate::checkout::{Checkout, Profile};
use crate::setup::{self, Purpose};
use crate::{guest, step, verify};

/// The packages that start processes, namespaces or VMs: all that `--quick` leaves out.
const SLOW_PACKAGES: [&str; 3] = ["plasmavmc-tests", "plasmavmc-kvm", "plasmavmc-guard"];

pub fn run(checkout: &Checkout, quick: bool) -> Result<ExitCode> {
    let purpose = if quick { Purpose::Verify } else { Purpose::Test };
    setup::ensure(checkout, purpose)?;
    let packages = selection(quick);
    std::thread::scope(|scope| {
        // Its packages are waited for while the compiler keeps the processors busy.
        let guests = (!quick).then(|| scope.spawn(|| guest::ensure_all(checkout)));
        let built = check_and_build(checkout, &packages);
        let guests = guests.map_or(Ok(()), |guests| join(guests, "the build of the guests"));
        built.and(guests)
    })?;
    if has_nextest(checkout) {
        step::run(
            "documentation examples",
            &mut prepared(checkout, &["test", "--doc", "--quiet"], &packages),
        )?;
        step::announce("all tests, with nextest");
        let mut runner = prepared(checkout, &["nextest", "run", "--no-fail-fast"], &packages);
        runner.args(["--test-threads", &at_once().to_string()]);
        finish(runner)
    } else {
        step::announce("all tests");
        finish(prepared(checkout, &["test", "--no-fail-fast"], &packages))
    }
}

fn check_and_build(checkout: &Checkout, packages: &[&str]) -> Result<()> {
    verify::check_all(checkout)?;
    // Building a test does not build the binaries of other packages, which the tests start.
    step::run(
        "build binaries and tests",
        checkout.cargo(&["build", "--bins", "--tests"]).args(packages),
    )
}

fn join(thread: ScopedJoinHandle<'_, Result<()>>, what: &str) -> Result<()> {
    thread.join().map_err(|_| anyhow!("{what} panicked"))?
}

/// Most of the long tests wait for half of their time: for guests that boot, for hosts that are given up.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get() + cores.get().div_ceil(2))
}

fn selection(quick: bool) -> Vec<&'static str> {
    let mut packages = vec!["--workspace"];
    if quick {
        packages.extend(SLOW_PACKAGES.iter().flat_map(|package| ["--exclude", package]));
    }
    packages
}

fn has_nextest(checkout: &Checkout) -> bool {
    step::succeeds(&mut checkout.cargo(&["nextest", "--version"]))
}

fn prepared(checkout: &Checkout, arguments: &[&str], packages: &[&str]) -> Command {
    let mut command = checkout.cargo(arguments);
    command
        .args(packages)
        .env("CHAINFIRE_BIN", checkout.binary(Profile::Dev, "chainfire"))
        .env("PLASMAVMC_GUARD_BIN", checkout.binary(Profile::Dev, "plasmavmc-guard"))
        .env(
            "PLASMAVMC_SERVER_BIN",
            checkout.binary(Profile::Dev, "plasmavmc-server"),
        )
        .env("PLASMAVMC_CLI_BIN", checkout.binary(Profile::Dev, "plasmavmc"))
        .env("PLASMAVMC_GUESTS", checkout.guests());
    if let Ok(grpcurl) = setup::grpcurl(checkout) {
        command.env("PLASMAVMC_GRPCURL", grpcurl);
    }
    command
}

/// Becomes the test runner, so that its summary and its exit status are the last word.
fn finish(mut runner: Command) -> Result<ExitCode> {
    let error = runner.exec();
    Err(error).with_context(|| format!("cannot run {}", runner.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::selection;

    #[test]
    fn quick_leaves_out_what_starts_processes_and_no_more() {
        assert_eq!(selection(false), ["--workspace"]);
        assert_eq!(
            selection(true).join(" "),
            "--workspace --exclude plasmavmc-tests --exclude plasmavmc-kvm --exclude plasmavmc-guard"
        );
    }
}
