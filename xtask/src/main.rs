//! The tree's own commands: `cargo xtask <command>`.
//!
//! One place that knows how this tree is set up, checked, tested and shown, so that a person, a script
//! and the CI all run the same thing. It must never depend on another crate of the workspace (it has to
//! build when they do not), and nothing it starts may outlive it.

#![forbid(unsafe_code)]

mod absent;
mod checkout;
mod deadline;
mod demo;
mod guest;
mod package;
mod remote;
mod setup;
mod site;
mod step;
mod test;
mod tidy;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::checkout::{Checkout, Profile};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The commands of the PlasmaVMC tree",
    long_about = "The commands of the PlasmaVMC tree. Every one can be run from a fresh clone: what a command \
                  needs and does not find, it installs first (see `setup`).",
    after_help = "Start here:\n  \
                  cargo xtask demo           three servers on this machine, and a VM that outlives its server\n  \
                  cargo xtask test           everything the CI runs, in the same order\n  \
                  cargo xtask test --quick   without the tests that start processes and namespaces\n\n\
                  Exit status: 0 done, 1 failed, 2 wrong usage or not there yet."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a cluster on this machine that runs a VM
    #[command(
        long_about = "Builds the programs, starts three servers on loopback addresses, each in a folder of its own under \
                      target/demo, and orders a real VM with a guest agent. Then it kills the server of the VM's host \
                      with SIGKILL, shows that the VM runs on, starts the server again and waits until it has taken \
                      the VM over. Then it leaves the cluster up until Ctrl-C and prints what to try. Nothing remains \
                      afterwards: no server, no guard, no QEMU, no file."
    )]
    Demo {
        /// Do the same and exit: status 0 only if every step succeeded
        #[arg(long)]
        check: bool,
        /// Show the replicated store alone: three members, the leader is killed, nothing is lost
        #[arg(long)]
        store: bool,
    },
    /// Run everything the CI runs: setup, verify, all tests
    #[command(
        long_about = "Runs `setup`, then `verify`, then builds all binaries and runs all tests: with cargo-nextest where \
                      it is installed (`cargo test` for the documentation examples), else with `cargo test`. The last \
                      lines are the test runner's own summary.\n\n\
                      Tests that start processes find the binary under test in CHAINFIRE_BIN, which this command sets."
    )]
    Test {
        /// Leave out the package plasmavmc-tests: no namespaces, no processes, seconds instead of minutes
        #[arg(long)]
        quick: bool,
    },
    /// Check without changing a file: format, clippy, tidy, licences and sources of dependencies
    Verify,
    /// Check the rules of this tree that no compiler knows
    #[command(long_about = "Checks the rules of this tree that no compiler knows:\n  \
                      layers     which crate may depend on which (ARCHITECTURE.md)\n  \
                      purity     no I/O, clock, randomness or hash order in plasmavmc-core and plasmavmc-types\n  \
                      sizes      files over 400 lines and functions over 70 may only shrink (xtask/sizes.toml)\n  \
                      leftovers  no unfinished marks, debug macros or ignored tests\n\n\
                      `cargo test -p xtask` runs the same checks.")]
    Tidy {
        /// Rewrite xtask/sizes.toml with today's sizes; the difference shows up in review
        #[arg(long)]
        bless: bool,
    },
    /// Compare with a peer on this machine; the last line is one JSON object
    #[command(after_help = "Kinds: kv, vm, cluster, failover\nNot there yet: guest, apply\n\n\
                            `cargo xtask bench kv --help` lists the options of a kind.")]
    Bench(Forwarded),
    /// Break things on purpose and check that nothing was lost; the last line is one JSON object
    #[command(
        after_help = "Kinds: kv, corrupt, follower, adopt, channel, api, failpoints, comeback, ha\n\n\
                            `cargo xtask torture kv --help` lists the options of a kind."
    )]
    Torture(Forwarded),
    /// Pack what is installed on a host: a Debian package and a tarball, in target/package
    Package {
        /// Pack the debug build that is there, for tests
        #[arg(long)]
        debug: bool,
    },
    /// Install what the other commands need and do not find
    #[command(
        long_about = "Looks for what the other commands need and installs what is missing: Debian packages with apt-get \
                      (through sudo where you are not root), rustfmt and clippy with rustup, cargo-deny into \
                      target/tools. Where it may not install, it names what to install and exits 1."
    )]
    Setup {
        /// Also fetch the peers that `bench` compares with (unpacked into target/tools, never installed)
        #[arg(long)]
        bench: bool,
    },
    /// Play clusters in virtual time; the last line is one JSON object
    #[command(
        after_help = "Examples:\n  cargo xtask sim --seeds 20000\n  cargo xtask sim --seed 7 --trace\n  \
                            cargo xtask sim --seeds 20000 --break no-guard\n  cargo xtask sim breaks\n  cargo xtask sim plan"
    )]
    Sim(Arguments),
    /// Play scenario files, or folders of them; the last line is one JSON object
    #[command(after_help = "tests/scenarios/README.md describes the format.\n\nExamples:\n  \
                            cargo xtask scenario tests/scenarios\n  cargo xtask scenario --log MY.scenario")]
    Scenario(Arguments),
    /// Build a guest for the tests out of Debian packages, or find it cached
    #[command(
        long_about = "Builds a guest under target/guests/KIND out of Debian packages, which are unpacked and never \
                      installed. What is built is cached: the same command then works at once and offline. The last \
                      line is the folder, which has the files `kernel` and `initrd`."
    )]
    GuestImage {
        /// Which one
        kind: guest::Kind,
    },
}

/// A kind and what its own binary makes of the rest.
#[derive(clap::Args)]
struct Forwarded {
    /// Which one, and its options, which are passed on untouched
    // One list, so that `--help` after the kind belongs to the kind.
    #[arg(value_names = ["KIND", "OPTIONS"], num_args = 1.., required = true)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    kind_and_options: Vec<OsString>,
}

impl Forwarded {
    fn split(&self) -> (String, &[OsString]) {
        match self.kind_and_options.split_first() {
            Some((kind, options)) => (kind.to_string_lossy().into_owned(), options),
            None => (String::new(), &[]),
        }
    }
}

/// What is passed on untouched.
#[derive(clap::Args)]
struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let checkout = Checkout::find()?;
    match command {
        Command::Demo { check, store: true } => demo::store::run(&checkout, check),
        Command::Demo { check, store: false } => demo::run(&checkout, check),
        Command::Test { quick } => test::run(&checkout, quick),
        Command::Verify => verify::run(&checkout),
        Command::Tidy { bless } => tidy::run(&checkout, bless),
        Command::Bench(forwarded) => {
            let (kind, options) = forwarded.split();
            remote::bench(&checkout, &kind, options)
        }
        Command::Torture(forwarded) => {
            let (kind, options) = forwarded.split();
            remote::torture(&checkout, &kind, options)
        }
        Command::Package { debug } => package::run(&checkout, if debug { Profile::Dev } else { Profile::Release }),
        Command::Setup { bench } => setup::run(&checkout, bench),
        Command::Sim(arguments) => remote::sim(&checkout, &arguments.options),
        Command::Scenario(arguments) => remote::scenario(&checkout, &arguments.options),
        Command::GuestImage { kind } => guest::run(&checkout, kind),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_a_bench_are_passed_on_untouched() {
        let cli = Cli::try_parse_from(["xtask", "bench", "kv", "--quick", "--help", "-n", "64"]).unwrap();
        let Command::Bench(forwarded) = cli.command else {
            panic!("not parsed as bench");
        };
        let (kind, options) = forwarded.split();
        assert_eq!(kind, "kv");
        assert_eq!(options, ["--quick", "--help", "-n", "64"]);
    }

    #[test]
    fn help_before_the_kind_is_ours() {
        for command in ["bench", "torture"] {
            let help = Cli::try_parse_from(["xtask", command, "--help"])
                .err()
                .map(|error| error.kind());
            assert_eq!(help, Some(ErrorKind::DisplayHelp), "{command}");
            let bare = Cli::try_parse_from(["xtask", command]).err().map(|error| error.kind());
            assert_eq!(bare, Some(ErrorKind::MissingRequiredArgument), "{command}");
        }
    }
}
