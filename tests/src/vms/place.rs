//! Where VMs of a test live. Whatever happens, no QEMU and no guard of the test outlives it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_guard::wire::Owner;
use plasmavmc_kvm::argv::{Accelerator, HostFacts, UefiFirmwares};
use plasmavmc_kvm::keeper::Keeper;
use plasmavmc_kvm::machine::{Host, Machine, StartPlan, launch};
use plasmavmc_kvm::qemu::Qemu;
use plasmavmc_types::{AttemptId, VmId, VmSpec};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// Names the folder with the guests, if they are not beside the tests.
pub const GUESTS_ENV: &str = "PLASMAVMC_GUESTS";
const GUARD_ENV: &str = "PLASMAVMC_GUARD_BIN";
const END: Duration = Duration::from_secs(20);

/// A folder that `cargo xtask guest-image NAME` made.
pub fn guest(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os(GUESTS_ENV) {
        Some(guests) => PathBuf::from(guests).join(name),
        None => {
            let program = std::env::current_exe()?;
            let candidates = program
                .ancestors()
                .skip(1)
                .take(4)
                .map(|above| above.join("guests").join(name));
            let found = candidates.into_iter().find(|folder| folder.is_dir());
            found.unwrap_or_else(|| PathBuf::from("target/guests").join(name))
        }
    };
    ensure!(
        folder.join("kernel").is_file() && folder.join("initrd").is_file(),
        "no guest in {}: build it with `cargo xtask guest-image {name}`, or name the folder that holds {name}/ in \
         {GUESTS_ENV}",
        folder.display()
    );
    Ok(folder.canonicalize()?)
}

/// The guard built beside this program.
pub fn guard_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(GUARD_ENV) {
        return Ok(PathBuf::from(path));
    }
    let program = std::env::current_exe()?;
    let beside = program.ancestors().skip(1).take(2);
    let mut candidates = beside.map(|folder| folder.join("plasmavmc-guard"));
    candidates
        .find(|path| path.is_file())
        .context("no `plasmavmc-guard` beside this program: `cargo xtask test` builds it")
}

/// A host for VMs.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    host: Arc<Host>,
    is_owned: bool,
}

impl Place {
    pub async fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("plasmavmc-vms-").tempdir()?.keep();
        let mut place = Self::at(&folder).await?;
        place.is_owned = true;
        Ok(place)
    }

    /// A place whose QEMUs run as this user. They may go through its folder, and see nothing in it.
    pub async fn of_user(owner: Owner) -> Result<Self> {
        let mut place = Self::new().await?;
        std::fs::set_permissions(&place.folder, PermissionsExt::from_mode(0o711))?;
        let host = Arc::get_mut(&mut place.host).context("the host is shared already")?;
        host.run_as = Some(owner);
        Ok(place)
    }

    /// A place that somebody else made, and ends.
    pub async fn at(folder: &Path) -> Result<Self> {
        let host = Host {
            vms: folder.join("vms"),
            keeper: Keeper::new(folder.join("guard"), guard_binary()?),
            qemu: Qemu::find(None).await?,
            run_as: None,
            cgroup: None,
        };
        Ok(Self {
            folder: folder.to_owned(),
            host: Arc::new(host),
            is_owned: false,
        })
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn guard_folder(&self) -> PathBuf {
        self.folder.join("guard")
    }

    /// A plan with a new attempt. Guests of tests run under TCG: what they show does not depend on it.
    pub fn plan(&self, id: VmId, spec: VmSpec) -> StartPlan {
        StartPlan {
            id,
            attempt: AttemptId::from_uuid(Uuid::new_v4()),
            spec,
            facts: HostFacts {
                qemu: self.host.qemu.version(),
                accelerator: Accelerator::Tcg,
                uefi: UefiFirmwares::installed(),
            },
            placed: plasmavmc_kvm::argv::Placed::default(),
            taps: Default::default(),
            lease: None,
        }
    }

    /// Starts a VM whose guest does not execute yet.
    pub async fn launch(&self, spec: VmSpec) -> Result<Machine> {
        let id = VmId::from_uuid(Uuid::new_v4());
        Ok(launch(&self.host, self.plan(id, spec)).await?)
    }

    /// Processes whose command line or working folder leads here, or whose open folder does.
    pub fn processes(&self) -> Vec<Pid> {
        let here = self.folder.to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_here = |pid: &i32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let cwd = std::fs::read_link(process.join("cwd")).unwrap_or_default();
            let own = *pid == rustix::process::getpid().as_raw_pid();
            !own && (String::from_utf8_lossy(&line).contains(&here) || cwd.starts_with(&self.folder))
        };
        pids.filter(is_here).filter_map(Pid::from_raw).collect()
    }

    /// Every QEMU that belongs here.
    pub fn qemus(&self) -> Vec<Pid> {
        let is_qemu = |pid: &Pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
        };
        self.processes().into_iter().filter(is_qemu).collect()
    }
}

impl Drop for Place {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot await; bounded by its deadline")]
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let deadline = Instant::now() + END;
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in left {
                // An error means that it has ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}
