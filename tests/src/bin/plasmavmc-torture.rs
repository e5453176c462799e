//! Runs real members under faults and judges what their clients saw.

#![forbid(unsafe_code)]

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use plasmavmc_tests::hosts::{DiskPlan, Lab, LabPlan, Program};
use plasmavmc_tests::torture::{corrupt, kv};
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

fn run_corrupt(options: &corrupt::Options) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(corrupt::run(options))?;
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
