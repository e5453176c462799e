//! What the server is told: flags over environment over file over defaults.
//!
//! ```text
//!   flags      the command line; every flag also has a variable, PLASMAVMC_*
//!   file       server.toml, read so that every mistake in it is told at once, with its line
//!   resolve    the three merged and checked into a [`Config`]
//!   transport  how connections are protected: the one place that decides it
//!   owner      the user that QEMU runs as
//! ```
//! Must never: let a server listen beyond this machine without protection unless its operator said so in
//! full words, or start with a setting it does not understand.

mod file;
mod flags;
mod name;
mod owner;
mod resolve;
mod transport;

use std::fmt;
use std::path::PathBuf;

use plasmavmc_guard::wire::Owner;
use plasmavmc_kvm::accel::Wanted;
use plasmavmc_types::{Address, BridgeName, HostName, Label, PoolName};

pub use file::PoolKind;
pub use flags::{Command, Flags, RecoverFlags};
pub use transport::TransportSecurity;

/// Everything that was wrong, each with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let things = if self.0.len() == 1 {
            "one setting is"
        } else {
            "some settings are"
        };
        write!(f, "{things} wrong:")?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// All settings of a server, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub listen: String,
    pub cluster_listen: String,
    /// Where clients reach this server; the address it listens on if absent.
    pub advertise: Option<Address>,
    /// Where the other servers reach it.
    pub cluster_advertise: Address,
    /// What this host is to be called, if somebody said so.
    pub name: Option<HostName>,
    pub transport_security: TransportSecurity,
    pub folders: Folders,
    pub vms: VmSettings,
    pub pools: Vec<PoolSettings>,
    pub networks: Vec<NetworkSettings>,
    pub log: LogSettings,
    pub beginning: Beginning,
    /// Whether it is to join as a witness. One that belongs to a cluster stays what it is.
    pub witness: bool,
}

/// Where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// What must survive a reboot.
    pub state: PathBuf,
    /// The replicated store, inside `state`.
    pub chainfire: PathBuf,
    /// What ends with the boot: one folder below `vms` for each VM.
    pub run: PathBuf,
    pub vms: PathBuf,
    pub guard: PathBuf,
    /// The file that tells one boot of this host from another.
    pub instance: PathBuf,
}

impl Folders {
    /// Whether a place in a cluster was taken with them.
    pub fn is_member(&self) -> bool {
        self.chainfire.join("identity.json").exists()
    }
}

/// How VMs are run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSettings {
    /// QEMU; looked for if absent.
    pub qemu: Option<PathBuf>,
    /// The guard; the one beside this program if absent.
    pub guard: Option<PathBuf>,
    pub accel: Wanted,
    /// What VMs do not get.
    pub reserve_memory_mb: u64,
    pub reserve_vcpus: u32,
    /// How many vCPUs one processor is taken to carry.
    pub vcpus_per_cpu: u32,
    /// How much of the memory that is not reserved may be promised to VMs.
    pub memory_percent: u32,
    pub run_as: Option<Owner>,
    /// The cgroup (version 2) below which each VM gets its own.
    pub cgroup: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    pub name: PoolName,
    pub kind: PoolKind,
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    pub name: Label,
    pub bridge: BridgeName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    pub json: bool,
}

/// What a server does that belongs to no cluster. One that belongs to one goes on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// Waits for `plasmavmc cluster init` or `cluster join`.
    Wait,
    Init,
    Join {
        via: Vec<Address>,
        token: String,
    },
}

impl Config {
    /// What a host is called that was given no name: as its system calls it, as far as that can be.
    pub fn usual_name() -> String {
        name::own_name()
    }

    /// The settings that these flags (and the variables behind them) and the file lead to.
    pub fn load(flags: &Flags) -> Result<Self, ConfigErrors> {
        resolve::load(flags)
    }
}

#[cfg(test)]
mod tests;
