//! Operations, events, the store, and the tools for finding out what is wrong.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::words::parse_vm;

#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// Show what is under way, and with --all what has ended
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  plasmavmc op list\n  plasmavmc op ls --vm web --all"
    )]
    List(OpListArgs),
    /// Show one operation
    #[command(after_help = "Example:\n  plasmavmc op get 6f1c1c5e-7a52-4a55-9d8b-0e6f5a3c2b11")]
    Get {
        #[arg(value_parser = parse_op)]
        id: String,
    },
    /// Ask an operation to end; what cannot be undone is finished
    #[command(after_help = "Example:\n  plasmavmc op cancel 6f1c1c5e-7a52-4a55-9d8b-0e6f5a3c2b11")]
    Cancel {
        #[arg(value_parser = parse_op)]
        id: String,
    },
    /// Wait for the end of an operation, and end as it did
    #[command(after_help = "Example:\n  plasmavmc op wait 6f1c1c5e-7a52-4a55-9d8b-0e6f5a3c2b11 --timeout 5m")]
    Wait {
        #[arg(value_parser = parse_op)]
        id: String,
    },
}

fn parse_op(text: &str) -> Result<String, String> {
    let id = uuid::Uuid::try_parse(text);
    id.map(|id| id.to_string())
        .map_err(|_| "an operation is named by its id; see plasmavmc op list".to_owned())
}

#[derive(Debug, Args)]
pub struct OpListArgs {
    /// Only of this VM, by id, vmid or name
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub vm: Option<String>,
    /// Also those that have ended
    #[arg(short, long)]
    pub all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only what happened after this revision
    #[arg(long, value_name = "REVISION")]
    pub from: Option<u64>,
    /// Only of this VM, by id, vmid or name
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub vm: Option<String>,
    /// Only of this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Show one key, decoded where its form is known
    #[command(after_help = "Example:\n  plasmavmc kv get /cluster/config")]
    Get {
        key: String,
        /// Answer from what the asked server knows
        #[arg(long)]
        stale: bool,
    },
    /// Show the keys under a prefix
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  plasmavmc kv list / --keys-only\n  plasmavmc kv ls /vms/ -o json"
    )]
    List {
        prefix: String,
        /// Without their values
        #[arg(long)]
        keys_only: bool,
        /// Answer from what the asked server knows
        #[arg(long)]
        stale: bool,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The folder whose disk is measured: where the server keeps its store
    #[arg(long, value_name = "DIR", default_value = "/var/lib/plasmavmc")]
    pub dir: PathBuf,
    /// Leave the cluster out: look at this machine only
    #[arg(long)]
    pub local: bool,
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The file to write; plasmavmc-support-TIME.tar here if not given
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}
