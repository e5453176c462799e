//! What can be asked on the command line, and the help that teaches it.
//!
//! Every command shows an example that a test parses. A command about a VM names one: without it the command fails
//! before anything is sent.

mod cluster;
mod spec;
mod tools;
mod vm;

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::failure::EXIT_STATUSES;
use crate::words::parse_duration;

pub use cluster::{ClusterCommand, HostCommand, JoinArgs, LeavingVms, RemoveArgs, TimingsArgs, TokenArgs};
pub use spec::{BoardArgs, CreateArgs, PolicyArgs};
pub use tools::{BundleArgs, DoctorArgs, EventsArgs, KvCommand, OpCommand, OpListArgs};
pub use vm::{
    ConsoleArgs, DeleteArgs, ExplainArgs, GetArgs, ListArgs, PowerArgs, QuickArgs, RestartArgs, StopArgs, UpdateArgs,
    VmCommand, WaitArgs, WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  plasmavmc vm create web --vcpus 2 --memory 4G --disk pool=default,size=20G,from=/images/debian.qcow2 --nic user
  plasmavmc vm list
  plasmavmc vm console web
  plasmavmc vm stop web
  plasmavmc --server 10.0.0.1:50051,10.0.0.2:50051 cluster status";

/// The command line of PlasmaVMC: virtual machines on a handful of hosts
#[derive(Debug, Parser)]
#[command(
    name = "plasmavmc",
    version,
    after_help = format!("{EXAMPLES}\n\n{EXIT_STATUSES}"),
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Servers to talk to; any of a cluster will do, and the next is asked where one does not answer
    #[arg(
        short,
        long = "server",
        global = true,
        env = "PLASMAVMC_SERVER",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:50051",
        help_heading = "Global options"
    )]
    pub servers: Vec<String>,
    /// How long to wait, for an answer and for the end of what was asked (500ms, 30s, 5m)
    ///
    /// Without it an answer may take 30 seconds, and an action as long as the cluster gives it.
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration, help_heading = "Global options")]
    pub timeout: Option<Duration>,
    /// How answers are printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "table",
        help_heading = "Global options"
    )]
    pub output: Form,
    /// No colours (as NO_COLOR does)
    #[arg(long, global = true, action = ArgAction::SetTrue, help_heading = "Global options")]
    pub no_color: bool,
    /// Print nothing but what was asked for, and of VMs only their ids
    #[arg(short, long, global = true, action = ArgAction::SetTrue, help_heading = "Global options")]
    pub quiet: bool,
    /// Makes repeating a change safe: the same id is carried out once. Chosen freely if not given
    #[arg(long, global = true, value_name = "ID", value_parser = parse_request_id, help_heading = "Global options")]
    pub request_id: Option<String>,
}

fn parse_request_id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=128 => Ok(text.to_owned()),
        length => Err(format!("it has {length} bytes; 1 to 128 are allowed")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// For programs: an object, or a list of them; where there is no end (watch, events), one a line
    Json,
    /// As json, in YAML
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Virtual machines
    #[command(subcommand, after_help = "Example:\n  plasmavmc vm list")]
    Vm(VmCommand),
    /// The hosts that run them
    #[command(subcommand, after_help = "Example:\n  plasmavmc host list")]
    Host(HostCommand),
    /// The cluster they form
    #[command(subcommand, after_help = "Example:\n  plasmavmc cluster status")]
    Cluster(ClusterCommand),
    /// What takes longer than a call: look, wait, give up
    #[command(subcommand, after_help = "Example:\n  plasmavmc op list")]
    Op(OpCommand),
    /// What happened, and with -f what happens
    #[command(after_help = "Examples:\n  plasmavmc events\n  plasmavmc events -f --vm web")]
    Events(EventsArgs),
    /// Look into the store of the cluster: for finding out, not for use
    #[command(subcommand, after_help = "Example:\n  plasmavmc kv list /vms/ --keys-only")]
    Kv(KvCommand),
    /// Check this machine and the way to the cluster
    #[command(after_help = "Examples:\n  plasmavmc doctor\n  sudo plasmavmc doctor --dir /var/lib/plasmavmc")]
    Doctor(DoctorArgs),
    /// Collect what somebody who helps needs to see, without secrets, in one .tar
    #[command(after_help = "Example:\n  plasmavmc support-bundle --to /tmp/plasmavmc-support.tar")]
    SupportBundle(BundleArgs),
    /// Completions for a shell
    #[command(after_help = "Example:\n  plasmavmc completions bash > /etc/bash_completion.d/plasmavmc")]
    Completions { shell: clap_complete::Shell },
    /// Manual pages
    #[command(after_help = "Example:\n  plasmavmc man /usr/local/share/man/man1")]
    Man {
        /// The folder they go to; made if it is not there
        dir: std::path::PathBuf,
    },
}

#[cfg(test)]
mod tests;
