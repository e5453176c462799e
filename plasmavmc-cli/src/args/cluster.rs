//! `plasmavmc host` and `plasmavmc cluster`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::words::parse_duration;

#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Show all hosts
    #[command(visible_alias = "ls", after_help = "Example:\n  plasmavmc host list")]
    List {
        /// Answer from what the asked server knows, even if it is cut off
        #[arg(long)]
        stale: bool,
    },
    /// Show one host
    #[command(after_help = "Example:\n  plasmavmc host get h1")]
    Get {
        /// By id or name
        #[arg(value_parser = parse_host)]
        host: String,
    },
    /// Place nothing new here, and move stopped VMs away
    #[command(after_help = "Examples:\n  plasmavmc host drain h1\n  plasmavmc host drain h1 --maintenance")]
    Drain {
        /// By id or name
        #[arg(value_parser = parse_host)]
        host: String,
        /// Stay in maintenance once it is empty
        #[arg(long)]
        maintenance: bool,
    },
    /// Empty a host that is about to be switched off or rebooted, and wait until it may go
    ///
    /// Its VMs power off, after their agents have answered, and stay wanted on: they start on other hosts where they fit,
    /// and the others when this one is back. What has not powered off in time has its plug pulled. The machine itself is
    /// not switched off. All of it is over when the host has booted again, or with `plasmavmc host activate`.
    ///
    /// The unit plasmavmc-guests runs this at every shutdown of a host.
    #[command(
        after_help = "Examples:\n  plasmavmc host prepare-shutdown h1\n  plasmavmc host prepare-shutdown h1 --vms stay --within 5min\n  plasmavmc host prepare-shutdown --this-host"
    )]
    PrepareShutdown {
        /// By id or name
        #[arg(value_parser = parse_host, required_unless_present = "this_host", conflicts_with = "this_host")]
        host: Option<String>,
        /// The host of the server that is asked
        #[arg(long)]
        this_host: bool,
        /// Whether its VMs start on other hosts, or wait for this one
        #[arg(long, value_enum, default_value = "move", env = "PLASMAVMC_ON_SHUTDOWN")]
        vms: LeavingVms,
        /// How long guests may take to power off
        #[arg(long, default_value = "90s", value_parser = parse_duration)]
        within: Duration,
        /// Do not wait until no VM is left
        #[arg(long)]
        no_wait: bool,
    },
    /// Place VMs here again, also when its shutdown was prepared
    #[command(after_help = "Example:\n  plasmavmc host activate h1")]
    Activate {
        /// By id or name
        #[arg(value_parser = parse_host)]
        host: String,
    },
}

/// What becomes of the VMs of a host that is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LeavingVms {
    Move,
    Stay,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Found a cluster of one host
    #[command(after_help = "Example:\n  plasmavmc --server 10.0.0.1:50051 cluster init")]
    Init,
    /// Make a host part of a cluster
    #[command(
        after_help = "Example:\n  plasmavmc --server 10.0.0.2:50051 cluster join --via 10.0.0.1:50051 --token TOKEN"
    )]
    Join(JoinArgs),
    /// Make a token that lets a host join
    #[command(after_help = "Examples:\n  plasmavmc cluster token\n  plasmavmc cluster token --valid 10m --uses 2 -q")]
    Token(TokenArgs),
    /// How the cluster is
    #[command(after_help = "Example:\n  plasmavmc cluster status")]
    Status,
    /// Who takes part in its decisions
    #[command(after_help = "Example:\n  plasmavmc cluster members")]
    Members,
    /// Take a host out that runs nothing
    #[command(after_help = "Examples:\n  plasmavmc cluster remove h3\n  plasmavmc cluster remove h3 --dead")]
    Remove(RemoveArgs),
    /// Change how soon a silent host freezes and is given up
    #[command(
        after_help = "What is not given stays as it is. No VM is frozen or moved by the change itself.\n\nExamples:\n  \
                      plasmavmc cluster set-timings --failover-after 8s\n  \
                      plasmavmc cluster set-timings --beat 500ms --freeze-after 2500ms --failover-after 4s"
    )]
    SetTimings(TimingsArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct TimingsArgs {
    /// Between two beats of a host
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub beat: Option<Duration>,
    /// A host freezes its leased VMs so long after its last beat: at least two beats and 1.5 s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub freeze_after: Option<Duration>,
    /// A host that was not heard for so long is fenced: at least freeze-after and a quarter of it, and 1 s more than it
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub failover_after: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Servers that are in the cluster already
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', required = true)]
    pub via: Vec<String>,
    /// What `plasmavmc cluster token` printed there; - reads it from standard input
    #[arg(long, env = "PLASMAVMC_JOIN_TOKEN", hide_env_values = true)]
    pub token: String,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// How long it is good for
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    pub valid: Duration,
    /// How many hosts may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// By id or name
    #[arg(value_parser = parse_host)]
    pub host: String,
    /// It is off and will never come back
    #[arg(long)]
    pub dead: bool,
    /// Do not ask on a terminal
    #[arg(short, long)]
    pub yes: bool,
}

fn parse_host(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("no host is named: give an id or a name".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
