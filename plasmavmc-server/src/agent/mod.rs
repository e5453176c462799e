//! This host: its session and beats, its VMs, its consoles.
//!
//! ```text
//!   instance, session    which life of this host this is, and its right to write
//!   beat                 "I was here", and what this host has (facts)
//!   lease                until when leased VMs may execute, told to the guard with every beat that counted
//!   vms                  the loop: what is stored and what is here -> core::reconcile -> QEMU and transactions
//!   prepare, pools, taps what a VM needs before its QEMU is started
//!   probe                whether a pool that is said to be shared is
//!   claims               who starts a leased VM, said beside its disks
//!   console              the serial ports of the VMs here
//! ```
//! Must never: write without the session, start what it has not claimed, or end a QEMU because the server ends.

pub mod beat;
mod claims;
mod console;
pub mod facts;
pub mod instance;
mod lease;
mod pools;
mod prepare;
mod probe;
pub mod session;
mod taps;
#[cfg(test)]
mod tests;
mod vms;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chainfire::kv::Kv;
use plasmavmc_kvm::accel;
use plasmavmc_kvm::machine::SharedHost;
use plasmavmc_kvm::refused::Refused;
use plasmavmc_types::{BridgeName, HostId, Label, PoolName};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use beat::BeatState;
pub use console::{Attached, ConsoleError, ConsoleHub, Keyboard};
pub use facts::CapacityRule;
pub use pools::Pool;

use crate::store::Mirror;
use beat::Heart;
use claims::Claimant;
use facts::Inventory;
use instance::{Instance, InstanceError};
use lease::Leash;
use prepare::Workshop;
use probe::Probes;
use session::Opener;
use vms::{Books, Vms};

/// How this host is set up.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where what belongs to this host is kept: the firmware variables of its VMs, what was found out about it.
    pub state: PathBuf,
    /// The file that holds the instance nonce.
    pub instance: PathBuf,
    pub pools: BTreeMap<PoolName, Pool>,
    /// The bridge on this host of each network of the cluster that it is on.
    pub networks: BTreeMap<Label, BridgeName>,
    pub accelerator: accel::Wanted,
    /// Looked for as a shell would, if absent.
    pub qemu_img: Option<PathBuf>,
    pub capacity: CapacityRule,
    /// QEMUs started at the same time; 0: two for each processor.
    pub launches: usize,
}

impl AgentConfig {
    /// With the default for everything, in one folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let state = folder.into();
        Self {
            instance: state.join("instance"),
            state,
            pools: BTreeMap::new(),
            networks: BTreeMap::new(),
            accelerator: accel::Wanted::default(),
            qemu_img: None,
            capacity: CapacityRule::default(),
            launches: 0,
        }
    }

    fn launches_at_once(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.launches {
            0 => cpus().saturating_mul(2).max(2),
            launches => launches,
        }
    }
}

/// What the agent is made of.
#[derive(Debug)]
pub struct AgentParts {
    pub host: HostId,
    pub kv: Arc<dyn Kv>,
    pub mirror: Mirror,
    pub kvm: SharedHost,
    pub config: AgentConfig,
    /// How many members of the store vote, as far as this one knows.
    pub voters: watch::Receiver<usize>,
    pub stop: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("this host cannot run VMs")]
    Refused(#[from] Refused),
    #[error("this host cannot tell which instance of itself it is")]
    Instance(#[from] InstanceError),
}

/// The agent of this host. Stop it; QEMUs run on.
#[derive(Debug)]
pub struct HostAgent {
    consoles: ConsoleHub,
    contact: watch::Receiver<BeatState>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl HostAgent {
    /// Starts. What runs on this host is taken over behind this call, as soon as the guard answers; VMs are
    /// decided on as soon as the store does.
    pub async fn start(parts: AgentParts) -> Result<Self, AgentError> {
        let AgentParts {
            host,
            kv,
            mirror,
            kvm,
            config,
            voters,
            stop,
        } = parts;
        let stop = stop.child_token();
        let instance = Instance::load(&config.instance, instance::boot_id()?, instance::machine())?;
        let capacity = config.capacity.own();
        let claimant = Claimant {
            host,
            instance: instance.clone(),
        };
        let workshop = Arc::new(Workshop::open(kvm, config, claimant).await?);
        let (books, books_seen) = watch::channel(Books::default());
        let probes = Probes::new(host, instance.life.nonce, workshop.pools());
        let mut inventory = Inventory::new(Arc::clone(&workshop), probes, mirror.clone(), books_seen);
        let (load, load_seen) = watch::channel(inventory.first().await);
        let (contact, contact_seen) = watch::channel(BeatState::default());
        let (is_punctual, is_punctual_seen) = watch::channel(false);
        let heart = Heart {
            opener: Opener {
                host,
                instance,
                kv: Arc::clone(&kv),
                mirror: mirror.clone(),
            },
            mirror: mirror.clone(),
            capacity,
            load: load_seen,
            state: contact,
            is_punctual: is_punctual_seen,
            stop: stop.clone(),
        };
        let consoles = ConsoleHub::default();
        let (vms, told) = Vms::new(vms::Parts {
            host,
            kv,
            mirror,
            workshop: Arc::clone(&workshop),
            contact: contact_seen.clone(),
            voters,
            books,
            consoles: consoles.clone(),
            stop: stop.clone(),
        });
        let leash = Leash {
            kvm: workshop.kvm.clone(),
            contact: contact_seen.clone(),
            told: vms.teller(),
            is_punctual,
            stop: stop.clone(),
        };
        let tasks = vec![
            tokio::spawn(leash.run()),
            tokio::spawn(heart.run()),
            tokio::spawn(inventory.keep(load, stop.clone())),
            tokio::spawn(vms.run(told)),
        ];
        Ok(Self {
            consoles,
            contact: contact_seen,
            stop,
            tasks,
        })
    }

    /// The consoles of the VMs on this host.
    pub fn consoles(&self) -> ConsoleHub {
        self.consoles.clone()
    }

    /// The contact of this host with the cluster: what leases are reckoned from.
    pub fn contact(&self) -> watch::Receiver<BeatState> {
        self.contact.clone()
    }

    /// Ends all that it does and lets go of the VMs, which run on.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A panic in it has been reported by the runtime.
            let _ = task.await;
        }
    }
}
