//! Measures this project beside its peers. The last line of standard output is one JSON object.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use plasmavmc_tests::bench::figures::millis;
use plasmavmc_tests::bench::lab::{Lab, Plan, Side};
use plasmavmc_tests::bench::programs;
use plasmavmc_tests::bench::reaper;
use plasmavmc_tests::bench::report::Report;
use plasmavmc_tests::bench::sections::Section;
use plasmavmc_tests::cluster::ha::failover;
use plasmavmc_tests::{bench_cluster, bench_vm};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// ChainFire beside etcd: three members each, one load generator, interleaved rounds.
    Kv(Kv),
    /// One VM beside libvirt's, and many in one process.
    Vm(bench_vm::Options),
    /// VMs of a cluster beside libvirt's, and beside a bare loop of QEMUs.
    Cluster(bench_cluster::Options),
    /// A host without power: how soon what it ran runs elsewhere.
    Failover(failover::Options),
    #[command(hide = true)]
    VmHolder(bench_vm::Hold),
    /// Ends the members of a run when it is over; started by `kv`.
    #[command(hide = true)]
    Reap { dir: PathBuf },
}

#[derive(Debug, clap::Args)]
struct Kv {
    /// Shorter rounds, fewer losses, no million keys.
    #[arg(long)]
    quick: bool,
    /// Length of the measured part of a round.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Run these sections only.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Section>,
    /// Where the stores live; must be on a disk.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Compare etcd with itself, to see what the measuring is worth: every ratio should be near 1.
    #[arg(long)]
    calibrate: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Kv(kv) => run(&kv),
        Command::Vm(options) => run_vm(&options),
        Command::Cluster(options) => run_cluster(&options),
        Command::Failover(options) => run_failover(&options),
        Command::VmHolder(hold) => bench_vm_holder(&hold),
        Command::Reap { dir } => reaper::reap(&dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run_vm(options: &bench_vm::Options) -> Result<()> {
    let figures = tokio::select! {
        figures = bench_vm::run(options) => figures?,
        // So that what runs is ended.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run_cluster(options: &bench_cluster::Options) -> Result<()> {
    let figures = tokio::select! {
        figures = bench_cluster::run(options) => figures?,
        // So that what runs is ended.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn run_failover(options: &failover::Options) -> Result<()> {
    println!("{}", serde_json::to_string(&failover::run(options)?)?);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn bench_vm_holder(hold: &bench_vm::Hold) -> Result<()> {
    bench_vm::hold(hold).await
}

/// One thread serves all clients: it spends less on a call than several would, and the stores have the
/// other processors to themselves.
#[tokio::main(flavor = "current_thread")]
async fn run(kv: &Kv) -> Result<()> {
    if kv.seconds.is_some_and(|seconds| !(0.1..=600.0).contains(&seconds)) {
        bail!("--seconds must be between 0.1 and 600");
    }
    let mut sections = if kv.only.is_empty() {
        Section::value_variants().to_vec()
    } else {
        kv.only.clone()
    };
    if kv.calibrate {
        sections.retain(|section| *section != Section::SlowDisk);
    }
    let scratch = kv.dir.clone().unwrap_or_else(programs::default_scratch);
    let lab = Lab::new(Plan::new(kv.quick, kv.seconds), &scratch, kv.calibrate)?;
    // Missing programs are told of at once.
    for side in Side::BOTH {
        programs::find(lab.product(side))?;
    }
    let mut report = Report::default();
    describe(&lab, &mut report)?;
    for section in sections {
        section.run(&lab, &mut report).await?;
    }
    drop(lab);
    println!("{}", report.to_json());
    Ok(())
}

/// What a reader must know to compare.
fn describe(lab: &Lab, report: &mut Report) -> Result<()> {
    let (sync_p50, sync_p99) = lab.sync_times()?;
    let processors = std::thread::available_parallelism()?;
    report.set_text("ours", lab.product(Side::Ours).to_string());
    report.set_text("peer", lab.product(Side::Peer).to_string());
    report.set("processors", processors.get() as f64);
    report.set("sync_p50_ms", millis(sync_p50));
    report.set("sync_p99_ms", millis(sync_p99));
    report.set("rounds", lab.plan.rounds as f64);
    report.set("round_s", lab.plan.measure.as_secs_f64());
    eprintln!(
        "{processors} processors, fdatasync of 4 KiB {:.2} ms (p99 {:.2} ms), {} rounds of {:?}",
        millis(sync_p50),
        millis(sync_p99),
        lab.plan.rounds,
        lab.plan.measure
    );
    Ok(())
}
