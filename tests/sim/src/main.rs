//! `plasmavmc-sim`: lives of clusters in virtual time, from seeds or from files.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use plasmavmc_sim::breaks::Break;
use plasmavmc_sim::{run, scale, scenario};

#[derive(Parser)]
#[command(about = "Plays PlasmaVMC clusters in virtual time and checks what must never happen")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play many seeds; the last line is one JSON object
    Run {
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Take a rule away, and see whether it is noticed
        #[arg(long = "break", value_name = "NAME")]
        breaks: Option<String>,
        /// Play this seed alone
        #[arg(long)]
        seed: Option<u64>,
        /// Tell everything that happens in it
        #[arg(long, requires = "seed")]
        trace: bool,
        /// 200 seeds
        #[arg(long)]
        quick: bool,
    },
    /// Take away each rule in turn, and print what noticed it
    Breaks {
        /// At most so many seeds for each
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
    },
    /// How long the controller thinks when a twentieth of all hosts fails at once, against the size of the cluster
    Plan {
        /// Hosts of the largest cluster, each with twenty VMs
        #[arg(long, default_value_t = 1000)]
        hosts: u32,
    },
    /// Play files, or folders of files
    Scenario {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print the log, whatever is expected
        #[arg(long)]
        log: bool,
        /// Write what happened into the files as what is expected: read it afterwards
        #[arg(long)]
        write: bool,
    },
}

fn main() -> ExitCode {
    let is_well = match Args::parse().command {
        Command::Run {
            seeds,
            from,
            breaks,
            seed,
            trace,
            quick,
        } => {
            let broken = match breaks.as_deref().map(|word| (word, Break::named(word))) {
                Some((word, None)) => {
                    let names: Vec<&str> = Break::ALL.iter().map(|it| it.word()).collect();
                    eprintln!("there is no break {word}; there are: {}", names.join(", "));
                    return ExitCode::FAILURE;
                }
                Some((_, broken)) => broken,
                None => None,
            };
            match seed {
                Some(seed) => run::one(seed, broken, trace),
                None => run::many(from, if quick { 200 } else { seeds }, broken),
            }
        }
        Command::Breaks { seeds } => run::all_breaks(seeds),
        Command::Plan { hosts } => scale::print(hosts),
        Command::Scenario { paths, log, write } => scenario::play_all(&paths, log, write),
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
