//! The command line. Its help is the first page of the manual that most people read.

use std::path::PathBuf;

/// Runs virtual machines on this host, as one of a cluster whose hosts watch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Parser)]
#[command(name = "plasmavmc-server", version, after_long_help = LESSON)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings file [default: server.toml in --dir, else /etc/plasmavmc/server.toml, if there is one]
    #[arg(long, env = "PLASMAVMC_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Keep everything in this one folder, and need no other: several servers then fit on one machine
    #[arg(long, env = "PLASMAVMC_DIR", value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,

    /// Found a new cluster of this host, if it belongs to none
    #[arg(long, env = "PLASMAVMC_INIT", conflicts_with = "join")]
    pub init: bool,
    /// Join the cluster of these servers, if this host belongs to none (needs --token)
    #[arg(
        long,
        env = "PLASMAVMC_JOIN",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        requires = "token"
    )]
    pub join: Vec<String>,
    /// What `plasmavmc cluster token` printed on a server of that cluster
    #[arg(long, env = "PLASMAVMC_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Be a witness, if it belongs to no cluster yet: it votes and can lead, and runs no VMs, so that two hosts can lose
    /// one and go on. It needs no QEMU: --join FIRST:PORT --token TOKEN --witness
    #[arg(long, env = "PLASMAVMC_WITNESS", conflicts_with = "init")]
    pub witness: bool,
    /// Check the settings, say what is wrong with them, and end
    #[arg(long)]
    pub check_config: bool,

    /// Where clients call [default: 127.0.0.1:50051]
    #[arg(long, env = "PLASMAVMC_LISTEN", value_name = "HOST:PORT", help_heading = "Network")]
    pub listen: Option<String>,
    /// Where the other servers call [default: 127.0.0.1:50052]
    #[arg(
        long,
        env = "PLASMAVMC_CLUSTER_LISTEN",
        value_name = "HOST:PORT",
        help_heading = "Network"
    )]
    pub cluster_listen: Option<String>,
    /// Where clients reach this server [default: where it listens]
    #[arg(
        long,
        env = "PLASMAVMC_ADVERTISE",
        value_name = "HOST:PORT",
        help_heading = "Network"
    )]
    pub advertise: Option<String>,
    /// Where the other servers reach this one [default: where it listens]
    #[arg(
        long,
        env = "PLASMAVMC_CLUSTER_ADVERTISE",
        value_name = "HOST:PORT",
        help_heading = "Network"
    )]
    pub cluster_advertise: Option<String>,
    /// What this host is called in the cluster [default: its host name]
    #[arg(long, env = "PLASMAVMC_NAME", value_name = "NAME", help_heading = "Network")]
    pub name: Option<String>,
    /// Listen beyond this machine although nothing is encrypted and nobody has to log in
    #[arg(
        long = "insecure-i-accept-that-anyone-on-this-network-controls-my-vms",
        env = "PLASMAVMC_INSECURE_I_ACCEPT_THAT_ANYONE_ON_THIS_NETWORK_CONTROLS_MY_VMS",
        help_heading = "Network"
    )]
    pub insecure: bool,

    /// Folder of what ends with a boot; sockets and logs of VMs are in DIR/vms/ID
    #[arg(
        long,
        env = "PLASMAVMC_RUN_DIR",
        value_name = "DIR",
        help_heading = "Virtual machines"
    )]
    pub run_dir: Option<PathBuf>,
    /// The QEMU to run [default: qemu-system-x86_64, wherever it is]
    #[arg(
        long,
        env = "PLASMAVMC_QEMU",
        value_name = "PROGRAM",
        help_heading = "Virtual machines"
    )]
    pub qemu: Option<PathBuf>,
    /// The guard, which keeps QEMUs while this program restarts [default: plasmavmc-guard beside it]
    #[arg(
        long,
        env = "PLASMAVMC_GUARD",
        value_name = "PROGRAM",
        help_heading = "Virtual machines"
    )]
    pub guard: Option<PathBuf>,
    /// auto (a small guest shows whether KVM works), kvm or tcg
    #[arg(
        long,
        env = "PLASMAVMC_ACCEL",
        value_name = "WHICH",
        help_heading = "Virtual machines"
    )]
    pub accel: Option<String>,
    /// Memory that VMs do not get
    #[arg(
        long,
        env = "PLASMAVMC_RESERVE_MEMORY_MB",
        value_name = "MIB",
        help_heading = "Virtual machines"
    )]
    pub reserve_memory_mb: Option<u64>,
    /// Processors that VMs do not get
    #[arg(
        long,
        env = "PLASMAVMC_RESERVE_VCPUS",
        value_name = "N",
        help_heading = "Virtual machines"
    )]
    pub reserve_vcpus: Option<u32>,
    /// User that QEMU runs as, where this program is root
    #[arg(
        long,
        env = "PLASMAVMC_RUN_AS",
        value_name = "USER",
        help_heading = "Virtual machines"
    )]
    pub run_as: Option<String>,

    /// What to log: error, warn, info, debug, trace, or such a level for each part [default: info]
    #[arg(long, env = "PLASMAVMC_LOG", value_name = "FILTER", help_heading = "Log")]
    pub log: Option<String>,
    /// Log JSON, one object a line
    #[arg(long, env = "PLASMAVMC_LOG_JSON", help_heading = "Log")]
    pub log_json: bool,
}

/// What is done instead of running a server.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Go on with this one member as a new cluster, when the majority of the old one is lost for good
    #[command(after_help = RECOVER_LESSON)]
    Recover(RecoverFlags),
    /// Kill every QEMU of this host at once: the last thing before it is switched off
    #[command(after_help = END_LESSON)]
    EndVms,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct RecoverFlags {
    /// Begin with what a backup knows (of 'chainfire snapshot save'), in a folder that belongs to no cluster
    #[arg(long, value_name = "FILE")]
    pub backup: Option<PathBuf>,
    /// Do it; without this it is only said what would be done
    #[arg(long = "i-accept-that-what-only-the-lost-members-knew-is-lost")]
    pub accept: bool,
}

const END_LESSON: &str = "\
The unit plasmavmc-guests does this at every shutdown, after guests were given the time to power off. Let them do so
first: plasmavmc host prepare-shutdown --this-host. A server that runs here starts again what is wanted, unless that was
done:

  plasmavmc-server end-vms --dir ~/vms";

const RECOVER_LESSON: &str = "\
Its server must be stopped. Start it with the addresses it has always had, in server.toml or as flags before the word:

  plasmavmc-server recover --dir ~/vms
  plasmavmc-server --cluster-listen 10.0.0.1:50052 recover --backup store.backup --dir ~/vms";

const LESSON: &str = "\
A first cluster, on one machine, without root:

  plasmavmc-server --dir ~/vms --init
  plasmavmc vm create test-vm --vcpus 1 --memory 512M
  plasmavmc vm list

Any gRPC client works as well, and needs no .proto file:

  grpcurl -plaintext -d '{\"name\":\"test-vm\",\"vcpus\":1,\"memory_mb\":512}' \\
      localhost:50051 plasmavmc.VmService/CreateVm

A second host joins with a token that a server of the cluster gives out:

  plasmavmc cluster token                       (on the first host)
  plasmavmc-server --join first:50051 --token TOKEN --listen 10.0.0.2:50051 --cluster-listen 10.0.0.2:50052

Two hosts need a third vote, or losing one stops both. Any small machine gives it, without QEMU:

  plasmavmc-server --witness --join first:50051 --token TOKEN --listen 10.0.0.3:50051 --cluster-listen 10.0.0.3:50052

A server that belongs to a cluster goes on with it: --init and --join are then ignored, so that the same
command line can start it every time. Every flag can also be given as the variable shown with it; flags
count more than variables, and those more than the file:

  [server]
  listen = \"127.0.0.1:50051\"
  cluster_listen = \"127.0.0.1:50052\"
  name = \"alpha\"
  witness = false

  [vms]
  accel = \"auto\"
  reserve_memory_mb = 1024

  [[pool]]
  name = \"default\"
  kind = \"dir\"                  # or \"shared\": the same folder on every host
  path = \"/var/lib/plasmavmc/pools/default\"

  [[network]]
  name = \"lan\"
  bridge = \"br0\"

  [log]
  filter = \"info\"
  json = false

Killing or restarting this program stops no VM: they run on, and are found again.";
