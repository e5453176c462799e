//! What a VM needs on this host before its QEMU is started: its images, its firmware's variables, its taps.
//!
//! ```text
//!   spec --> pools say where --> claimed, if leased --> missing volumes are made --> preflight: everything that is
//!                                (beside its disks)     (empty, or a linked clone)   wrong, at once
//!                                                                            --> firmware's variables --> plan
//! ```
//! Must never happen: a disk made over one that exists; a file outside of a pool made because a
//! specification names it; a VM started although something about it was refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_guard::wire::Lease;
use plasmavmc_kvm::accel;
use plasmavmc_kvm::argv::{HostFacts, Placed, UefiFirmwares, cpu_model};
use plasmavmc_kvm::image::{ImageError, QemuImg, keep_uefi_vars};
use plasmavmc_kvm::machine::{Host, MachineError, StartPlan};
use plasmavmc_kvm::preflight::{self, HostFiles, Programs};
use plasmavmc_kvm::refused::{Reason, Refused};
use plasmavmc_types::{AttemptId, Disk, DiskLocation, Firmware, Incarnation, VmId, VmSpec};
use tokio::sync::Semaphore;

use crate::failpoint;

use super::AgentConfig;
use super::claims::{self, ClaimError, Claimant};
use super::pools::Pools;
use super::taps::{TapsError, open_taps};

/// Nobody waits longer for storage that hangs, only to clear away.
const FORGET_WITHIN: Duration = Duration::from_secs(2);

/// What has to be known of a host to start VMs on it.
#[derive(Debug)]
pub struct Workshop {
    pub kvm: Arc<Host>,
    pub config: AgentConfig,
    pools: Pools,
    /// Held by whoever looks whether the pools are there: a look at storage that hangs is not joined by others.
    pub pools_look: Arc<Semaphore>,
    qemu_img: QemuImg,
    uefi: UefiFirmwares,
    claimant: Arc<Claimant>,
}

/// Why a VM cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody has to change something first: trying again changes nothing.
    #[error("{}", sentence(.0))]
    Refused(Vec<Refused>),
    #[error(transparent)]
    Accelerator(#[from] accel::Refusal),
    #[error(transparent)]
    Taps(#[from] TapsError),
    #[error("it cannot be claimed")]
    Claim(#[source] ClaimError),
    #[error("its disks cannot be made ready: {0}")]
    Image(ImageError),
    #[error("the accelerator cannot be tried: {0}")]
    Trial(#[from] accel::TrialError),
    #[error("what it needs was not ready within {} s", .within.as_secs())]
    NotReady { within: Duration },
    #[error(transparent)]
    Machine(MachineError),
}

impl StartError {
    /// Whether another try, with nothing changed, would end the same way.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(refusals) => !refusals.iter().any(may_pass),
            Self::Accelerator(_) => true,
            Self::Taps(error) => error.is_final(),
            Self::Claim(error) => error.is_final(),
            Self::Image(_) | Self::Trial(_) | Self::NotReady { .. } => false,
            Self::Machine(error) => matches!(error, MachineError::Refused(_) | MachineError::Invalid(_)),
        }
    }
}

/// A refusal that goes away by itself: another host's QEMU that is still ending, a server that is slow.
fn may_pass(refused: &Refused) -> bool {
    matches!(
        refused.reason,
        Reason::InUse { .. } | Reason::StorageHangs { .. } | Reason::ProgramFailed { .. }
    )
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Refused(refused) => Self::Refused(vec![refused]),
            other => Self::Image(other),
        }
    }
}

impl From<MachineError> for StartError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Refused(refused) => Self::Refused(vec![refused]),
            other => Self::Machine(other),
        }
    }
}

fn sentence(refusals: &[Refused]) -> String {
    let texts: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    texts.join(" ")
}

impl Workshop {
    pub async fn open(kvm: Arc<Host>, config: AgentConfig, claimant: Claimant) -> Result<Self, Refused> {
        let qemu_img = QemuImg::find(config.qemu_img.as_deref()).await?;
        Ok(Self {
            pools: Pools::new(config.pools.clone()),
            pools_look: Arc::new(Semaphore::new(1)),
            uefi: UefiFirmwares::installed(),
            kvm,
            config,
            qemu_img,
            claimant: Arc::new(claimant),
        })
    }

    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Which accelerator this host has for a VM of the usual kind, with the reason.
    pub async fn accelerator_for(&self, spec: &VmSpec) -> Result<accel::Verdict, StartError> {
        let kvm = plasmavmc_kvm::argv::Accelerator::Kvm;
        let question = accel::Question {
            program: self.kvm.qemu.program(),
            machine: spec.machine.as_str(),
            cpu: cpu_model(spec, kvm),
        };
        let memory = self.config.state.join("accelerator.json");
        match accel::probe(self.config.accelerator, question, &memory).await {
            Ok(verdict) => Ok(verdict),
            Err(accel::AccelError::Refused(refused)) => Err(refused.into()),
            Err(accel::AccelError::Trial(error)) => Err(error.into()),
        }
    }

    /// Makes ready what the VM needs. Nothing runs yet.
    pub async fn plan(
        &self,
        id: VmId,
        attempt: AttemptId,
        leased: Option<Incarnation>,
        spec: &VmSpec,
    ) -> Result<StartPlan, StartError> {
        let facts = HostFacts {
            qemu: self.kvm.qemu.version(),
            accelerator: self.accelerator_for(spec).await?.accelerator,
            uefi: self.uefi.clone(),
        };
        let mut placed = Placed {
            images: self.pools.place(spec),
            ..Placed::default()
        };
        // Before any disk is touched: it is what makes another host let go of them.
        let lease = match leased {
            Some(incarnation) => Some(self.claim(id, incarnation, spec).await?),
            None => None,
        };
        self.make_missing_disks(spec, &facts, &placed).await?;
        placed.images = self.check(spec, &facts, &placed).await?;
        if let Firmware::Uefi { secure_boot } = spec.firmware
            && let Some(firmware) = self.uefi.for_boot(secure_boot)
        {
            let copy = self.uefi_vars_of(id);
            make_folder(&copy)?;
            keep_uefi_vars(firmware, &copy).await?;
            placed.uefi_vars = Some(copy);
        }
        let taps = open_taps(spec, id, &self.config.networks)?;
        Ok(StartPlan {
            id,
            attempt,
            spec: spec.clone(),
            facts,
            placed,
            taps,
            lease,
        })
    }

    /// On a thread that may hang with its storage; whoever started the VM does not wait for ever.
    async fn claim(&self, id: VmId, incarnation: Incarnation, spec: &VmSpec) -> Result<Lease, StartError> {
        let (claimant, pools) = (Arc::clone(&self.claimant), self.pools.shared_below(spec));
        let claim = tokio::task::spawn_blocking(move || claimant.claim(&pools, id, incarnation));
        let claims = claim.await.map_err(|stopped| {
            let (what, path) = ("claim it below", self.config.state.clone());
            let source = stopped.into();
            StartError::Claim(ClaimError::Io { what, path, source })
        })?;
        let claims = claims.map_err(StartError::Claim)?;
        Ok(Lease { incarnation, claims })
    }

    async fn check(
        &self,
        spec: &VmSpec,
        facts: &HostFacts,
        placed: &Placed,
    ) -> Result<Vec<plasmavmc_kvm::argv::PlacedImage>, StartError> {
        let programs = Programs {
            qemu: &self.kvm.qemu,
            qemu_img: &self.qemu_img,
        };
        let checked = preflight::check(spec, programs, facts, HostFiles::own(), placed).await;
        checked.map_err(StartError::Refused)
    }

    /// Makes the volumes that are not there yet, once nothing else speaks against the VM.
    async fn make_missing_disks(&self, spec: &VmSpec, facts: &HostFacts, placed: &Placed) -> Result<(), StartError> {
        let mut missing: Vec<(usize, &Disk)> = Vec::new();
        for (index, disk) in spec.disks.iter().enumerate() {
            if is_volume(disk) && is_missing(disk, placed).await {
                missing.push((index, disk));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let rest = spec.edit(|fields| {
            fields
                .boot_order
                .retain(|name| !missing.iter().any(|(_, disk)| disk.name == *name));
            fields
                .disks
                .retain(|disk| !missing.iter().any(|(_, gone)| gone.name == disk.name));
        });
        let rest = rest.map_err(|invalid| StartError::Machine(MachineError::Invalid(invalid)))?;
        self.check(&rest, facts, placed).await?;
        for (index, disk) in missing {
            failpoint::DISK.around(self.make_disk(index, disk, placed)).await?;
        }
        Ok(())
    }

    async fn make_disk(&self, index: usize, disk: &Disk, placed: &Placed) -> Result<(), StartError> {
        let field = format!("disks[{index}]");
        let location = format!("{field}.location");
        let (path, _) = placed
            .resolve(&location, &disk.location)
            .map_err(|refused| StartError::Refused(vec![refused]))?;
        let made = match disk.backing.first() {
            Some(image) => {
                let below = format!("{field}.backing[0].location");
                let (base, _) = placed
                    .resolve(&below, &image.location)
                    .map_err(|refused| StartError::Refused(vec![refused]))?;
                let base = (base, image.format);
                self.qemu_img
                    .clone_linked(&location, path, base, Some(disk.size_mb))
                    .await
            }
            None => self.qemu_img.create(&location, path, disk.format, disk.size_mb).await,
        };
        match made {
            // Another attempt was faster; preflight sees whether it is the right one.
            Err(ImageError::Refused(Refused {
                reason: Reason::Exists { .. },
                ..
            })) => Ok(()),
            made => Ok(made?),
        }
    }

    /// The VM's own copy of its firmware's variables. It holds the guest's boot entries, so it outlives each
    /// start; a VM that was deleted leaves none behind.
    pub fn uefi_vars_of(&self, id: VmId) -> PathBuf {
        self.config.state.join("uefi").join(format!("{id}.fd"))
    }

    /// Removes what was kept for a VM besides its disks.
    pub async fn forget(&self, id: VmId) {
        let vars = self.uefi_vars_of(id);
        match tokio::fs::remove_file(&vars).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %vars.display(), %error, "the variables of a deleted VM stay behind");
            }
            _ => {}
        }
        let pools = self.pools.shared().map(|(_, folder)| folder.to_owned());
        let pools: Vec<PathBuf> = pools.collect();
        let forgets = tokio::task::spawn_blocking(move || {
            for pool in pools {
                if let Err(error) = claims::forget(&pool, id) {
                    tracing::warn!(pool = %pool.display(), vm = %id, %error, "the claims of a deleted VM stay behind");
                }
            }
        });
        if tokio::time::timeout(FORGET_WITHIN, forgets).await.is_err() {
            tracing::warn!(vm = %id, "the claims of a deleted VM go when the storage of its pools answers");
        }
    }
}

/// On a thread that may hang with its storage; whoever started the VM does not wait for ever.
async fn is_missing(disk: &Disk, placed: &Placed) -> bool {
    let Some(image) = placed.images.iter().find(|image| image.location == disk.location) else {
        return false;
    };
    let look = tokio::fs::symlink_metadata(&image.path).await;
    matches!(look, Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

fn is_volume(disk: &Disk) -> bool {
    matches!(disk.location, DiskLocation::Volume { .. }) && !disk.read_only
}

fn make_folder(file: &Path) -> Result<(), StartError> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|source| {
        StartError::Image(ImageError::Io {
            what: "create",
            path: folder.to_owned(),
            source,
        })
    })
}
