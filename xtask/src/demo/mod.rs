//! `demo`: three servers on this machine, a real VM with a guest agent, and a server that is killed under it.
//!
//! Uses the program `plasmavmc` the way a user would. Whatever happens, no server, no guard, no QEMU and no file
//! of the demo remains: all go when [`Servers`] is dropped, or when this program is killed.

mod cli;
mod server;
pub mod store;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::checkout::{Checkout, Profile};
use crate::deadline::Interrupt;
use crate::setup::{self, Purpose};
use crate::{guest, step};
use cli::{Cli, Vm};
use server::Servers;

const VM: &str = "demo";
const BOOTS_WITHIN: Duration = Duration::from_secs(180);
const ADOPTED_WITHIN: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    pub server: PathBuf,
    pub guard: PathBuf,
    pub cli: PathBuf,
}

impl Programs {
    /// Builds them, unless the environment names all of them, as it does for tests.
    pub fn build(checkout: &Checkout) -> Result<Self> {
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        let [server, guard, cli] = ["SERVER", "GUARD", "CLI"].map(|name| named(&format!("PLASMAVMC_{name}_BIN")));
        if let (Some(server), Some(guard), Some(cli)) = (server, guard, cli) {
            return Ok(Self { server, guard, cli });
        }
        let packages = ["-p", "plasmavmc-server", "-p", "plasmavmc-guard", "-p", "plasmavmc-cli"];
        step::run(
            "build server, guard and command line",
            checkout.cargo(&["build", "--bins"]).args(packages),
        )?;
        let binary = |name| checkout.binary(Profile::Dev, name);
        Ok(Self {
            server: binary("plasmavmc-server"),
            guard: binary("plasmavmc-guard"),
            cli: binary("plasmavmc"),
        })
    }
}

pub fn run(checkout: &Checkout, check: bool) -> Result<ExitCode> {
    setup::ensure(checkout, Purpose::Demo)?;
    guest::ensure_micro(checkout)?;
    let programs = Programs::build(checkout)?;
    let interrupt = Interrupt::install()?;
    let mut servers = Servers::new(programs, interrupt.clone(), &checkout.target.join("demo"))?;
    if let Err(error) = play(checkout, &mut servers, &interrupt) {
        if !interrupt.is_set() {
            eprintln!("{}", servers.last_words());
        }
        return Err(error);
    }
    if check {
        println!("demo: every step succeeded");
        return Ok(ExitCode::SUCCESS);
    }
    invite(checkout, &servers);
    // Servers may be killed and started again here: that is what the runbooks do.
    while let Some(news) = interrupt.await_interrupt(|| servers.newly_ended()) {
        println!("\n{news}");
    }
    println!("\nStopping; nothing of the demo remains.");
    Ok(ExitCode::SUCCESS)
}

fn play(checkout: &Checkout, servers: &mut Servers, interrupt: &Interrupt) -> Result<()> {
    println!("1. Three servers start on this machine and form a cluster.");
    servers.form()?;
    let cli = servers.cli();
    println!("{}", cli.table(&["host", "list"])?);

    println!("2. A VM is ordered: a small Linux with a guest agent.");
    let begun = Instant::now();
    create(checkout, &cli)?;
    let vm = cli.vm(VM)?;
    ensure!(vm.state == "running", "the VM is {}", vm.state);
    println!(
        "   It runs on {} after {:.2} s.",
        vm.host,
        begun.elapsed().as_secs_f64()
    );
    let vm = await_agent(&cli, interrupt)?;
    println!("   Its agent answers after {:.2} s.", begun.elapsed().as_secs_f64());
    println!("{}", cli.table(&["vm", "list"])?);

    println!("3. The server of {} dies: kill -9. The VM does not notice.", vm.host);
    let killed = servers.kill(&vm.host)?;
    let seen = interrupt.await_condition("another server to answer", ADOPTED_WITHIN, || cli.vm(VM))?;
    println!(
        "   {:.2} s later the others answer for it; its QEMU, process {}, {}.",
        killed.elapsed().as_secs_f64(),
        seen.pid,
        if runs(&vm) { "runs on" } else { "is gone" }
    );
    ensure!(runs(&vm), "the QEMU of the VM ended with its server");

    println!("4. {} starts again and takes over what it finds.", vm.host);
    let started = servers.restart(&vm.host)?;
    servers.await_alive(3)?;
    // It obeys: what the store says of it may still be from before.
    cli.table(&["vm", "pause", VM])?;
    cli.table(&["vm", "resume", VM])?;
    println!(
        "   After {:.2} s the VM obeys it: it was paused and resumed.",
        started.elapsed().as_secs_f64()
    );
    let again = await_agent(&cli, interrupt)?;
    println!("   Its agent answers after {:.2} s.", started.elapsed().as_secs_f64());
    ensure!(
        again.pid == vm.pid && again.id == vm.id,
        "it is another process: {again:?} was {vm:?}"
    );
    println!("{}", cli.table(&["vm", "list"])?);
    Ok(())
}

fn create(checkout: &Checkout, cli: &Cli) -> Result<()> {
    let guest = checkout.guests().join("micro");
    let file = |name: &str| guest.join(name).display().to_string();
    let cmdline = std::fs::read_to_string(guest.join("cmdline")).context("reading the guest's command line")?;
    let arguments = [
        "vm",
        "create",
        VM,
        "--vcpus",
        "1",
        "--memory",
        "256M",
        "--kernel",
        &file("kernel"),
        "--initrd",
        &file("initrd"),
        "--cmdline",
        cmdline.trim(),
    ];
    cli.table(&arguments).map(drop)
}

fn await_agent(cli: &Cli, interrupt: &Interrupt) -> Result<Vm> {
    interrupt.await_condition("the guest agent to answer", BOOTS_WITHIN, || {
        let vm = cli.vm(VM)?;
        ensure!(vm.state == "running" && vm.agent == "responding", "{vm:?}");
        Ok(vm)
    })
}

/// As an operator would look: `pgrep -f "qemu.*$VM_ID"`.
fn runs(vm: &Vm) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", vm.pid)).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&vm.id)
}

fn invite(checkout: &Checkout, servers: &Servers) {
    let cli = servers.cli();
    let program = cli.program().display();
    println!("The cluster stays up until Ctrl-C. In another terminal:\n");
    println!("  export PLASMAVMC_SERVER={}", servers.addresses());
    println!("  alias plasmavmc={program}");
    println!("  plasmavmc vm list");
    println!("  plasmavmc vm console {VM}             # Ctrl-] leaves");
    println!("  plasmavmc vm stop {VM}                # through its agent");
    println!("  plasmavmc vm start {VM}");
    println!("  plasmavmc vm explain {VM}             # what was decided, and why");
    println!("  plasmavmc events -f");
    println!("  kill -9 $(pgrep -f \"qemu.*$(plasmavmc vm get {VM} -q)\")   # and look again");
    if let Ok(grpcurl) = setup::grpcurl(checkout) {
        println!(
            "  {} -plaintext {} plasmavmc.VmService/ListVms",
            grpcurl.display(),
            servers.first_address()
        );
    }
    println!("\nLogs and state are in {}.", servers.folder().display());
}
