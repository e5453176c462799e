//! Commands whose work is done by a binary of the package plasmavmc-tests, built in release mode.
//!
//! We become that binary: its exit status and the last line of its stdout, one JSON object, are ours.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::checkout::{Checkout, Profile};
use crate::setup::{self, Purpose};
use crate::{absent, guest, step};

pub fn bench(checkout: &Checkout, kind: &str, options: &[OsString]) -> Result<ExitCode> {
    match kind {
        "kv" => become_binary(checkout, Purpose::Bench, "plasmavmc-bench", kind, options),
        "vm" | "cluster" => {
            setup::ensure(checkout, Purpose::Guests)?;
            setup::ensure_libvirt()?;
            become_binary(checkout, Purpose::Test, "plasmavmc-bench", kind, options)
        }
        "failover" => {
            guest::ensure_micro(checkout)?;
            become_binary(checkout, Purpose::Test, "plasmavmc-bench", kind, options)
        }
        "guest" => Ok(absent::refuse("bench guest", absent::GUESTS)),
        "apply" => Ok(absent::refuse("bench apply", absent::DECLARATIVE)),
        _ => Ok(unknown("bench", kind, "kv, vm, cluster, failover")),
    }
}

pub fn torture(checkout: &Checkout, kind: &str, options: &[OsString]) -> Result<ExitCode> {
    match kind {
        "adopt" | "channel" | "failpoints" => {
            guest::ensure_micro(checkout)?;
            become_binary(checkout, Purpose::Test, "plasmavmc-torture", kind, options)
        }
        "kv" | "corrupt" | "follower" | "api" | "comeback" | "ha" => {
            become_binary(checkout, Purpose::Test, "plasmavmc-torture", kind, options)
        }
        _ => Ok(unknown(
            "torture",
            kind,
            "kv, corrupt, follower, adopt, channel, api, failpoints, comeback, ha",
        )),
    }
}

/// `breaks` and `plan` are commands of their own there; everything else are options of a run.
pub fn sim(checkout: &Checkout, options: &[OsString]) -> Result<ExitCode> {
    let is_command = options
        .first()
        .is_some_and(|first| first == "breaks" || first == "plan");
    let command = if is_command { None } else { Some("run") };
    become_simulator(checkout, command, options)
}

pub fn scenario(checkout: &Checkout, options: &[OsString]) -> Result<ExitCode> {
    become_simulator(checkout, Some("scenario"), options)
}

fn become_simulator(checkout: &Checkout, command: Option<&str>, options: &[OsString]) -> Result<ExitCode> {
    let build = ["build", "--release", "-p", "plasmavmc-sim", "--bins"];
    step::run("build in release mode", &mut checkout.cargo(&build))?;
    let path = checkout.binary(Profile::Release, "plasmavmc-sim");
    let error = Command::new(&path).args(command).args(options).exec();
    Err(error).with_context(|| format!("cannot run {}", path.display()))
}

fn unknown(command: &str, kind: &str, known: &str) -> ExitCode {
    eprintln!("error: `cargo xtask {command}` knows no `{kind}`; there is: {known}");
    ExitCode::from(2)
}

fn become_binary(
    checkout: &Checkout,
    purpose: Purpose,
    binary: &str,
    kind: &str,
    options: &[OsString],
) -> Result<ExitCode> {
    setup::ensure(checkout, purpose)?;
    let build = [
        "build",
        "--release",
        "-p",
        "chainfire",
        "-p",
        "plasmavmc-guard",
        "-p",
        "plasmavmc-server",
        "-p",
        "plasmavmc-cli",
        "-p",
        "plasmavmc-tests",
        "--bins",
    ];
    step::run("build in release mode", &mut checkout.cargo(&build))?;

    let path = checkout.binary(Profile::Release, binary);
    let mut command = Command::new(&path);
    command
        .arg(kind)
        .args(options)
        .current_dir(&checkout.root)
        .env("CHAINFIRE_BIN", checkout.binary(Profile::Release, "chainfire"))
        .env(
            "PLASMAVMC_GUARD_BIN",
            checkout.binary(Profile::Release, "plasmavmc-guard"),
        )
        .env(
            "PLASMAVMC_SERVER_BIN",
            checkout.binary(Profile::Release, "plasmavmc-server"),
        )
        .env("PLASMAVMC_CLI_BIN", checkout.binary(Profile::Release, "plasmavmc"))
        .env("PLASMAVMC_GUESTS", checkout.guests());
    if purpose == Purpose::Bench {
        command
            .env("ETCD_BIN", setup::etcd_program(checkout, "etcd")?)
            .env("ETCDCTL_BIN", setup::etcd_program(checkout, "etcdctl")?);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", path.display()))
}
