//! `plasmavmc vm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::CreateArgs;
use crate::words::{parse_duration, parse_size_mb, parse_vm};

#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM, and start it
    #[command(after_help = super::spec::EXAMPLES)]
    Create(Box<CreateArgs>),
    /// Show one VM
    #[command(after_help = "Examples:\n  plasmavmc vm get web\n  plasmavmc vm get 101 -o json")]
    Get(GetArgs),
    /// Show all VMs
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  plasmavmc vm list\n  plasmavmc vm ls --state failed --host h1"
    )]
    List(ListArgs),
    /// Switch a VM on
    #[command(after_help = "Example:\n  plasmavmc vm start web")]
    Start(PowerArgs),
    /// Switch a VM off: through its agent, or with --force by pulling the plug
    #[command(
        after_help = "Examples:\n  plasmavmc vm stop web\n  plasmavmc vm stop web --within 5m\n  plasmavmc vm stop web --force"
    )]
    Stop(StopArgs),
    /// Have the guest go down and come up again, in the same process
    #[command(after_help = "Example:\n  plasmavmc vm reboot web")]
    Reboot(PowerArgs),
    /// Switch a VM off, wait until nothing of it runs, switch it on, and wait for its agent
    #[command(after_help = "Examples:\n  plasmavmc vm restart web\n  plasmavmc vm restart web --force")]
    Restart(RestartArgs),
    /// Press the reset button
    #[command(after_help = "Example:\n  plasmavmc vm reset web")]
    Reset(QuickArgs),
    /// Hold a VM still
    #[command(after_help = "Example:\n  plasmavmc vm pause web")]
    Pause(QuickArgs),
    /// Let a paused VM go on
    #[command(after_help = "Example:\n  plasmavmc vm resume web")]
    Resume(QuickArgs),
    /// Remove a VM for good
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  plasmavmc vm delete web\n  plasmavmc vm rm web --force --yes"
    )]
    Delete(DeleteArgs),
    /// Change what a VM is made of
    #[command(
        after_help = "Examples:\n  plasmavmc vm update web --memory 8G\n  plasmavmc vm update web --set agent=optional --set affinity.hosts=[h1,h2]\n  plasmavmc vm update web --set disks[0].size_mb=40G --generation 3\n  plasmavmc vm update web --file web.yaml"
    )]
    Update(UpdateArgs),
    /// A terminal on the serial port; Ctrl-] leaves it
    #[command(
        after_help = "Examples:\n  plasmavmc vm console web\n  plasmavmc vm console web </dev/null          only what it said lately\n  printf 'root\\n' | plasmavmc vm console web   type into it"
    )]
    Console(ConsoleArgs),
    /// Why a VM is as it is, and where it could run
    #[command(after_help = "Example:\n  plasmavmc vm explain web")]
    Explain(ExplainArgs),
    /// Show all VMs, and then every change
    #[command(after_help = "Examples:\n  plasmavmc vm watch\n  plasmavmc vm watch web -o json")]
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    /// Answer from what the asked server knows, even if it is cut off
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those on this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Only those in this state; may be given more than once
    #[arg(long = "state", value_name = "STATE", value_parser = parse_state)]
    pub states: Vec<i32>,
    /// Answer from what the asked server knows, even if it is cut off
    #[arg(long)]
    pub stale: bool,
    /// Also show ids, reasons and sizes
    #[arg(short, long)]
    pub wide: bool,
}

fn parse_state(text: &str) -> Result<i32, String> {
    use plasmavmc_proto::api::vm::State;
    let state = State::from_str_name(&text.to_ascii_uppercase()).filter(|state| *state != State::Unspecified);
    let all = "pending, starting, running, paused, frozen, stopping, stopped, migrating, failed, unknown";
    state.map(i32::from).ok_or_else(|| format!("{all} are allowed"))
}

#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Do not wait for the end; print the operation
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct PowerArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    #[command(flatten)]
    pub wait: WaitArgs,
    /// How long the guest has (120s if not given)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub within: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub power: PowerArgs,
    /// Pull the plug: what the guest has not written is lost
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct RestartArgs {
    #[command(flatten)]
    pub power: PowerArgs,
    /// Pull the plug instead of asking the guest
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct QuickArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    /// Also if it runs: the plug is pulled
    #[arg(long)]
    pub force: bool,
    /// Do not ask on a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Only if it was not changed since this generation
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    /// A field of the specification and its new value, in YAML; may be given more than once
    ///
    /// Fields are named as in `plasmavmc vm get VM -o yaml`, under `spec`. Empty or `null`: the default.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub sets: Vec<String>,
    /// How many processors
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// How much memory, such as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mb)]
    pub memory: Option<u64>,
    /// The whole specification, as JSON or YAML; - reads it from standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["sets", "vcpus", "memory"])]
    pub file: Option<PathBuf>,
    /// Only if it was not changed since this generation
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
}

#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// By id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: String,
    /// Do not begin with what it said before
    #[arg(long)]
    pub no_history: bool,
    /// Where standard input is no terminal: leave once it is at its end and the VM was silent for so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2s")]
    pub linger: Duration,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only this one, by id, vmid or name
    #[arg(value_parser = parse_vm)]
    pub vm: Option<String>,
    /// Only what changed after this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    pub from: u64,
    /// Leave after what is there has been shown
    #[arg(long)]
    pub once: bool,
}
