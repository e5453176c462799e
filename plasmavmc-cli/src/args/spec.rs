//! The flags of `plasmavmc vm create`: one for everything that is often chosen, a file for the rest.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use plasmavmc_proto::api::{AgentPolicy, Dependency, Display, HaPolicy, Nic, RestartPolicy};

use super::WaitArgs;
use crate::words::parse_vm;
use crate::words::{DiskWords, parse_dependency, parse_disk, parse_duration, parse_nic, parse_restart, parse_size_mb};

pub const EXAMPLES: &str = "\
Examples:
  plasmavmc vm create web --vcpus 2 --memory 4G --disk path=/srv/web.qcow2,size=20G --nic bridge=br0
  plasmavmc vm create db --vcpus 4 --memory 8G --disk pool=default,size=50G,from=/images/debian.qcow2 --nic user
  plasmavmc vm create tiny --vcpus 1 --memory 512M --kernel /boot/vmlinuz --initrd /boot/initrd.img --agent none
  plasmavmc vm create web --file web.yaml --vmid 101 --stopped

--disk is a list of:
  path=/FILE              a file or block device of the host, or
  pool=POOL[,volume=V]    a volume of a pool (NAME-diskN if not named)
  size=SIZE               10G, 512M; needed
  from=/IMAGE             make it a clone of this image (or of POOL:VOLUME); from-format=qcow2|raw
  name= format=qcow2|raw bus=virtio-blk|virtio-scsi|sata readonly serial=
  cache=none|writeback|writethrough|directsync|unsafe aio=threads|native|io-uring discard=unmap|ignore

--nic is a list of:
  user                    the outside world through QEMU: no privileges, no way in, or
  bridge=BRIDGE           a bridge of the host, or
  network=NETWORK         a network of the cluster
  mac= model=virtio|e1000 queues= name=

A file has the fields of `plasmavmc vm get VM -o yaml` under `spec`; flags go over it.";

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Unique in the cluster; may stand in the file instead
    pub name: Option<String>,
    /// How many processors
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// How much memory, such as 512M or 4G
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size_mb)]
    pub memory: Option<u64>,
    /// A disk, such as pool=default,size=10G; may be given more than once
    #[arg(short, long = "disk", value_name = "SPEC", value_parser = parse_disk)]
    pub disks: Vec<DiskWords>,
    /// A network card, such as user or bridge=br0; may be given more than once
    #[arg(short, long = "nic", value_name = "SPEC", value_parser = parse_nic)]
    pub nics: Vec<Nic>,
    /// An ISO image in a CD-ROM drive; may be given more than once
    #[arg(long = "cdrom", value_name = "/ISO", value_parser = parse_file_of_host)]
    pub cdroms: Vec<String>,
    /// The specification as JSON or YAML; - reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A number to call it by; chosen by the cluster if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub vmid: Option<u32>,
    /// Leave it switched off
    #[arg(long)]
    pub stopped: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
    #[command(flatten)]
    pub board: BoardArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Board and boot")]
pub struct BoardArgs {
    /// A kernel of the host to boot instead of a disk
    #[arg(long, value_name = "/FILE", value_parser = parse_file_of_host)]
    pub kernel: Option<String>,
    /// Its initial file system
    #[arg(long, value_name = "/FILE", requires = "kernel", value_parser = parse_file_of_host)]
    pub initrd: Option<String>,
    /// Its command line
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub cmdline: Option<String>,
    /// UEFI instead of a BIOS
    #[arg(long)]
    pub uefi: bool,
    /// UEFI that boots signed systems only
    #[arg(long)]
    pub secure_boot: bool,
    /// q35, pc, or a version of one, such as pc-q35-7.2
    #[arg(long, value_name = "TYPE")]
    pub machine: Option<String>,
    /// A CPU model of QEMU; the best the host offers if not given
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// How many sockets the processors are spread over
    #[arg(long, value_name = "N")]
    pub sockets: Option<u32>,
    /// Disks, CD-ROMs and cards by name, first tried first
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub boot_order: Vec<String>,
    /// Whether there is a screen
    #[arg(long, value_enum)]
    pub display: Option<DisplayWord>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Policies")]
pub struct PolicyArgs {
    /// Whether stopping and rebooting needs the agent in the guest (required if not given)
    #[arg(long, value_enum)]
    pub agent: Option<AgentWord>,
    /// Whether it starts elsewhere when its host is lost (auto if not given)
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "on")]
    pub ha: Option<HaWord>,
    /// 0 to 255, higher goes first (100 if not given)
    #[arg(long, value_name = "N")]
    pub priority: Option<u32>,
    /// When it crashes: never, or tries within a time (3/10m if not given)
    #[arg(long, value_name = "POLICY", value_parser = parse_restart)]
    pub restart: Option<RestartPolicy>,
    /// A VM that has to be there first: db, db:ready or db:running; may be given more than once
    #[arg(long, value_name = "VM", value_parser = parse_dependency)]
    pub depends_on: Vec<Dependency>,
    /// How long to wait once they are there
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub start_delay: Option<Duration>,
    /// Leave the guest paused at every start, before its first instruction, until `vm resume`
    #[arg(long)]
    pub start_paused: bool,
    /// Run on this host only; may be given more than once
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Never on one host with this VM; may be given more than once
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub apart_from: Vec<String>,
    /// On one host with this VM; may be given more than once
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub together_with: Vec<String>,
    /// Rather on this host, if it fits there; may be given more than once
    #[arg(long, value_name = "HOST")]
    pub prefer_host: Vec<String>,
    /// Rather on another host than this VM; may be given more than once
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub prefer_apart_from: Vec<String>,
    /// Rather on one host with this VM; may be given more than once
    #[arg(long, value_name = "VM", value_parser = parse_vm)]
    pub prefer_together_with: Vec<String>,
}

fn parse_file_of_host(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("a host reads it, so it needs an absolute path".to_owned())
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $word:ident is $policy:ident { $($(#[$value_doc:meta])* $value:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum $word {
            $($(#[$value_doc])* $value,)*
        }

        impl From<$word> for i32 {
            fn from(word: $word) -> i32 {
                match word {
                    $($word::$value => $policy::$value.into(),)*
                }
            }
        }
    };
}

words!(AgentWord is AgentPolicy {
    /// A graceful action begins only if the agent has just answered
    Required,
    /// Through the agent if it answers, else by the ACPI button
    Optional,
    /// There is no agent: by the ACPI button
    None,
});
words!(HaWord is HaPolicy {
    /// Where the cluster and the disks allow it
    Auto,
    /// Refused where they do not
    On,
    Off,
});
words!(DisplayWord is Display {
    /// A screen, over VNC
    Vnc,
    /// The serial console only
    None,
});
