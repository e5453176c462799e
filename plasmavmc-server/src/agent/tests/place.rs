//! A host of a test. Whatever happens, no QEMU and no guard of the test outlives it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chainfire::kv::Kv;
use chainfire::kv::memory::MemoryKv;
use plasmavmc_core::view::{ClusterView, Stored, revision_of};
use plasmavmc_kvm::accel::Wanted;
use plasmavmc_kvm::keeper::Keeper;
use plasmavmc_kvm::machine::Host;
use plasmavmc_kvm::qemu::Qemu;
use plasmavmc_types::{
    AgentPolicy, HostId, HostName, HostRecord, ObservedState, Operation, OperationId, OperationKind, OperationState,
    Placement, PoolName, VmId, VmName, VmNumber, VmRecord, VmSpec, VmSpecFields, VmStatus,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::{AgentConfig, AgentParts, HostAgent, Pool};
use crate::clock::wall_ms;
use crate::store::{Mirror, Write, keys};

pub const SOON: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(20);

pub struct Place {
    pub folder: PathBuf,
    pub host: HostId,
    pub kv: Arc<dyn Kv>,
    pub mirror: Mirror,
    stop: CancellationToken,
}

/// The guard built beside this program.
fn guard_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PLASMAVMC_GUARD_BIN") {
        return PathBuf::from(path);
    }
    let program = std::env::current_exe().unwrap();
    let beside = program.ancestors().skip(1).take(2);
    let mut candidates = beside.map(|folder| folder.join("plasmavmc-guard"));
    candidates
        .find(|path| path.is_file())
        .expect("no `plasmavmc-guard` beside this program: `cargo xtask test` builds it, PLASMAVMC_GUARD_BIN names it")
}

/// The micro guest, if `cargo xtask guest-image micro` made it.
pub fn micro_guest() -> PathBuf {
    let folder = match std::env::var_os("PLASMAVMC_GUESTS") {
        Some(guests) => PathBuf::from(guests).join("micro"),
        None => {
            let program = std::env::current_exe().unwrap();
            let above = program
                .ancestors()
                .skip(1)
                .take(4)
                .map(|above| above.join("guests/micro"));
            above.into_iter().find(|folder| folder.is_dir()).unwrap_or_default()
        }
    };
    assert!(
        folder.join("kernel").is_file(),
        "no micro guest: `cargo xtask guest-image micro` makes it, PLASMAVMC_GUESTS names the folder that holds it"
    );
    folder
}

/// Runs a test at a place of its own.
pub fn at_a_place<F: Future<Output = ()>>(test: impl FnOnce(Arc<Place>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let place = Arc::new(Place::new().await);
        test(Arc::clone(&place)).await;
        place.stop.cancel();
    });
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("plasmavmc-agent-")
            .tempdir()
            .unwrap()
            .keep();
        std::fs::create_dir_all(folder.join("pools/default")).unwrap();
        let kv: Arc<dyn Kv> = Arc::new(MemoryKv::default());
        let stop = CancellationToken::new();
        let host = HostId::from_uuid(Uuid::new_v4());
        let record = HostRecord::new(
            host,
            HostName::new("alpha").unwrap(),
            vec!["127.0.0.1:50051".parse().unwrap()],
        );
        let mirror = Mirror::start(Arc::clone(&kv), stop.clone());
        mirror.listed(SOON).await.unwrap();
        let place = Self {
            folder,
            host,
            kv,
            mirror,
            stop,
        };
        place
            .write(
                Write::new()
                    .expect_absent(keys::host_record(host))
                    .put_host(&record.unwrap()),
            )
            .await;
        place
    }

    pub async fn agent(&self) -> HostAgent {
        self.agent_of(false, 1).await
    }

    /// With its pool marked as shared or not, in a cluster of so many voters.
    pub async fn agent_of(&self, is_shared: bool, voters: usize) -> HostAgent {
        let kvm = Host {
            vms: self.vms(),
            keeper: Keeper::new(self.folder.join("guard"), guard_binary()),
            qemu: Qemu::find(None).await.unwrap(),
            run_as: None,
            cgroup: None,
        };
        let pool = Pool {
            folder: self.pool(),
            is_shared,
        };
        let config = AgentConfig {
            pools: BTreeMap::from([(PoolName::new("default").unwrap(), pool)]),
            accelerator: Wanted::Tcg,
            ..AgentConfig::at(&self.folder)
        };
        let parts = AgentParts {
            host: self.host,
            kv: Arc::clone(&self.kv),
            mirror: self.mirror.clone(),
            kvm: Arc::new(kvm),
            config,
            voters: tokio::sync::watch::channel(voters).1,
            stop: self.stop.clone(),
        };
        HostAgent::start(parts).await.unwrap()
    }

    /// Where the runtime folders of VMs are.
    pub fn vms(&self) -> PathBuf {
        self.folder.join("run/vms")
    }

    pub fn pool(&self) -> PathBuf {
        self.folder.join("pools/default")
    }

    pub async fn write(&self, write: Write) -> u64 {
        let revision = write.commit(&*self.kv).await.unwrap().revision;
        self.mirror.reached(revision, SOON).await.unwrap();
        revision
    }

    /// A VM that is wanted on and placed here, with the operation that made it.
    pub async fn create(&self, spec: VmSpec) -> (VmId, OperationId) {
        self.create_as(VmId::from_uuid(Uuid::new_v4()), spec).await
    }

    /// As [`Self::create`], under an id that was known before.
    pub async fn create_as(&self, id: VmId, spec: VmSpec) -> (VmId, OperationId) {
        let number = self.mirror.read(|view| u32::try_from(view.numbers.len()).unwrap()) + 1;
        let record = VmRecord::create(id, VmNumber::new(number).unwrap(), spec).unwrap();
        let operation = self.operation(id, OperationKind::Create);
        let write = Write::new().create_vm(&record).create_operation(&operation);
        self.write(write).await;
        self.place_at(id, Placement::first(self.host)).await;
        (id, operation.id)
    }

    pub async fn place_at(&self, vm: VmId, placement: Placement) {
        let seen = self.vm(vm).placement.map_or(0, |placement| placement.revision);
        self.write(
            Write::new()
                .expect(keys::placement(vm), seen)
                .put_placement(vm, &placement),
        )
        .await;
    }

    fn operation(&self, vm: VmId, kind: OperationKind) -> Operation {
        let now_ms = wall_ms();
        Operation {
            id: OperationId::from_uuid(Uuid::new_v4()),
            kind,
            vm,
            vm_name: VmName::new("some").unwrap(),
            state: OperationState::Pending,
            step: String::new(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            deadline_ms: now_ms + 120_000,
            cancel_requested: false,
            runner: None,
        }
    }

    pub async fn ask(&self, vm: VmId, kind: OperationKind, within: Duration) -> OperationId {
        let mut operation = self.operation(vm, kind);
        operation.deadline_ms = wall_ms() + u64::try_from(within.as_millis()).unwrap();
        self.write(Write::new().create_operation(&operation)).await;
        operation.id
    }

    /// Changes what is wanted of a VM.
    pub async fn want(&self, vm: VmId, change: impl Fn(&VmRecord) -> VmRecord) {
        loop {
            let record = self.vm(vm).record.unwrap();
            let write = Write::new()
                .expect(keys::vm_record(vm), record.revision)
                .put_record(&change(&record.value));
            if let Ok(committed) = write.commit(&*self.kv).await {
                return self.mirror.reached(committed.revision, SOON).await.unwrap();
            }
        }
    }

    pub fn vm(&self, vm: VmId) -> plasmavmc_core::view::VmView {
        self.mirror.read(|view| view.vms.get(&vm).cloned()).unwrap_or_default()
    }

    pub fn status(&self, vm: VmId) -> Option<Stored<VmStatus>> {
        self.vm(vm).status
    }

    /// Waits until what is stored is as wanted.
    pub async fn until<T>(&self, what: &str, within: Duration, look: impl Fn(&ClusterView) -> Option<T>) -> T {
        let mut revision = self.mirror.revision();
        let wait = async {
            loop {
                revision.borrow_and_update();
                if let Some(found) = self.mirror.read(|view| look(view)) {
                    return found;
                }
                revision.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(within, wait).await {
            Ok(found) => found,
            Err(_) => panic!(
                "not {what} within {within:?}: {:#?}",
                self.mirror.read(|view| (view.vms.clone(), view.operations.clone()))
            ),
        }
    }

    pub async fn until_state(&self, vm: VmId, state: impl Fn(&ObservedState) -> bool, within: Duration) -> VmStatus {
        let look = |view: &ClusterView| {
            let status = &view.vms.get(&vm)?.status.as_ref()?.value;
            state(&status.state).then(|| status.clone())
        };
        self.until("in the wanted state", within, look).await
    }

    pub async fn until_running(&self, vm: VmId) -> VmStatus {
        self.until_state(vm, |state| *state == ObservedState::Running, SOON)
            .await
    }

    pub async fn until_ended(&self, operation: OperationId, within: Duration) -> Operation {
        let look = |view: &ClusterView| {
            let operation = &view.operations.get(&operation)?.value;
            operation.is_ended().then(|| operation.clone())
        };
        self.until("ended", within, look).await
    }

    /// Ends the session, as the controller does.
    pub async fn fence(&self) {
        let session = self.mirror.read(|view| view.hosts[&self.host].session.clone());
        let fenced = session.as_ref().unwrap().value.fenced();
        let write = Write::new().expect(keys::session(self.host), revision_of(session.as_ref()));
        self.write(write.put_session(self.host, &fenced)).await;
    }

    fn processes(&self) -> Vec<Pid> {
        let here = self.folder.to_string_lossy().into_owned();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_here = |pid: &i32| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let folder = std::fs::read_link(process.join("cwd")).unwrap_or_default();
            let own = *pid == rustix::process::getpid().as_raw_pid();
            !own && (String::from_utf8_lossy(&line).contains(&here) || folder.starts_with(&self.folder))
        };
        pids.filter(is_here).filter_map(Pid::from_raw).collect()
    }

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
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A VM without a system: as small as QEMU takes it.
pub fn small(name: &str) -> VmSpec {
    small_with(name, |_| {})
}

pub fn small_with(name: &str, change: impl FnOnce(&mut VmSpecFields)) -> VmSpec {
    let mut fields = VmSpecFields::new(VmName::new(name).unwrap(), 1, 16);
    fields.agent = AgentPolicy::None;
    change(&mut fields);
    VmSpec::new(fields).unwrap()
}

/// The micro guest, which has an agent.
pub fn micro(name: &str) -> VmSpec {
    let folder = micro_guest();
    let cmdline = std::fs::read_to_string(folder.join("cmdline")).unwrap();
    let mut fields = VmSpecFields::new(VmName::new(name).unwrap(), 1, 256);
    fields.direct_boot = Some(plasmavmc_types::DirectBoot {
        kernel: folder.join("kernel"),
        initrd: Some(folder.join("initrd")),
        cmdline: cmdline.trim().to_owned(),
    });
    VmSpec::new(fields).unwrap()
}

pub fn pid_of(status: &VmStatus) -> Pid {
    Pid::from_raw(i32::try_from(status.process.unwrap().pid).unwrap()).unwrap()
}
