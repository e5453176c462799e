//! Runs real members under faults and judges what their clients saw.

#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use plasmavmc_tests::channel_torture as channel;
use plasmavmc_tests::cluster::{self, Failpoints, comeback, ha, race};
use plasmavmc_tests::hosts::{DiskPlan, Lab, LabPlan, Program};
use plasmavmc_tests::torture::{adopt, corrupt, follower, kv};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Runs real members under faults and judges what their clients saw")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Faults of hosts, networks and disks, under random clients.
    Kv(kv::Options),
    /// Damaged files of one member.
    Corrupt(corrupt::Options),
    /// Followers that go and come back, which nobody may notice.
    Follower(follower::Options),
    /// Owners of VMs, and guards, that die at any moment, and who comes after them.
    Adopt(adopt::Options),
    /// Channels into a real guest, abused.
    Channel(channel::Options),
    /// Clients that race on everything, and a model that judges every answer.
    Api(race::Options),
    /// A server that dies at every step of what it does.
    Failpoints(Failpoints),
    /// Hosts that die, are cut off and come back, at random: nothing runs twice, everything runs again.
    Ha(ha::torture::Options),
    /// Servers and QEMUs that are killed: how soon what is said is true again.
    Comeback(comeback::Options),
    #[command(hide = true)]
    VmOwner(adopt::At),
    #[command(hide = true)]
    VmHeir(adopt::At),
    /// Build an empty lab, say where its hosts are, and hold it until the input ends.
    Lab {
        #[arg(long, default_value_t = 3)]
        hosts: usize,
        #[arg(long, default_value_t = 64)]
        disk_mib: u32,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Kv(options) => kv::run(&options).and_then(|report| print(&report, report.is_success())),
        Command::Corrupt(options) => run_corrupt(&options),
        Command::Follower(options) => follower::run(&options).and_then(|report| print(&report, report.is_success())),
        Command::Adopt(options) => {
            block_on(adopt::run(&options)).and_then(|report| print(&report, report.is_success()))
        }
        Command::Channel(options) => {
            block_on(channel::run(&options)).and_then(|report| print(&report, report.is_success()))
        }
        Command::Api(options) => block_on(race::run(&options)).and_then(|report| print(&report, report.is_success())),
        Command::Failpoints(options) => {
            block_on(cluster::run_failpoints(&options)).and_then(|report| print(&report, report.is_success()))
        }
        Command::Ha(options) => ha::torture::run(&options).and_then(|report| print(&report, report.is_success())),
        Command::Comeback(options) => {
            block_on(comeback::run(&options)).and_then(|report| print(&report, report.is_success()))
        }
        Command::VmOwner(at) => block_on(adopt::run_owner(&at)).map(|()| true),
        Command::VmHeir(at) => block_on(adopt::run_heir(&at)).map(|()| true),
        Command::Lab { hosts, disk_mib } => hold_lab(hosts, disk_mib).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("plasmavmc-torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The last line of output is the result.
fn print(report: &impl Serialize, success: bool) -> anyhow::Result<bool> {
    println!("{}", serde_json::to_string(report)?);
    Ok(success)
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new()?.block_on(future)
}

fn run_corrupt(options: &corrupt::Options) -> anyhow::Result<bool> {
    let report = block_on(corrupt::run(options))?;
    print(&report, report.is_success())
}

fn hold_lab(hosts: usize, disk_mib: u32) -> anyhow::Result<()> {
    let lab = Lab::build(LabPlan {
        hosts,
        disk: DiskPlan::Limited { mib: disk_mib },
    })?;
    for host in lab.hosts() {
        // Something of its own session on each, so that who looks sees that it ends with the lab.
        host.spawn(&Program::new("setsid").args(["--fork", "sleep", "infinity"]))?;
    }
    let processes: Vec<u32> = lab.hosts().iter().flat_map(|host| host.processes()).collect();
    println!(
        "{}",
        serde_json::json!({ "folder": lab.folder(), "processes": processes })
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
