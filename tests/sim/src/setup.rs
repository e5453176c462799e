//! What one life is played with: hosts, VMs, delays.

use plasmavmc_core::change::{Change, Part, Put};
use plasmavmc_types::{
    Address, Affinity, AgentPolicy, Dependency, DependencyReached, Disk, DiskLocation, HaPolicy, HostName, HostRecord,
    Label, Operation, OperationKind, OperationState, PoolName, RestartPolicy, Timings, VmName, VmNumber, VmRecord,
    VmRecordParts, VmSpec, VmSpecFields,
};

use crate::breaks::Breaks;
use crate::ids;

/// Milliseconds, both ends included.
pub type Range = (u64, u64);

/// The wall clock at the beginning.
pub const WALL_MS: u64 = 1_000_000_000;

#[derive(Debug, Clone)]
pub struct HostSetup {
    pub name: String,
    /// A voter that runs no VMs.
    pub witness: bool,
    pub voter: bool,
    /// A machine with a copy of this host's disk: the same id, another machine.
    pub clone_of: Option<usize>,
    pub memory_mb: u64,
    /// Local milliseconds per million real ones, in thousands: 1000000 is exact.
    pub rate_ppm: u64,
    pub wall_skew_ms: u64,
    pub shared_pool: bool,
}

impl HostSetup {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            witness: false,
            voter: true,
            clone_of: None,
            memory_mb: 8192,
            rate_ppm: 1_000_000,
            wall_skew_ms: 0,
            shared_pool: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    None,
    Shared,
    Local,
}

#[derive(Debug, Clone)]
pub struct VmSetup {
    pub name: String,
    pub memory_mb: u64,
    pub disks: Disks,
    pub ha: HaPolicy,
    pub priority: u8,
    pub restart: RestartPolicy,
    pub only_on: Vec<String>,
    pub apart_from: Vec<u64>,
    pub together_with: Vec<u64>,
    pub prefer_on: Vec<String>,
    pub prefer_apart_from: Vec<u64>,
    pub after: Option<u64>,
    pub created_ms: u64,
}

impl VmSetup {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory_mb: 1024,
            disks: Disks::None,
            ha: HaPolicy::Auto,
            priority: 100,
            restart: RestartPolicy::default(),
            only_on: Vec::new(),
            apart_from: Vec::new(),
            together_with: Vec::new(),
            prefer_on: Vec::new(),
            prefer_apart_from: Vec::new(),
            after: None,
            created_ms: 0,
        }
    }

    fn spec(&self) -> Option<VmSpec> {
        let mut fields = VmSpecFields::new(VmName::new(self.name.as_str()).ok()?, 1, self.memory_mb);
        let pool = match self.disks {
            Disks::None => None,
            Disks::Shared => Some("shared"),
            Disks::Local => Some("local"),
        };
        if let Some(pool) = pool {
            let pool = PoolName::new(pool).ok()?;
            let volume = Label::new(self.name.as_str()).ok()?;
            let location = DiskLocation::Volume { pool, volume };
            fields.disks.push(Disk::new(Label::new("root").ok()?, location, 1024));
        }
        fields.ha = self.ha;
        fields.priority = self.priority;
        fields.restart = self.restart;
        fields.agent = AgentPolicy::None;
        let hosts = |names: &[String]| {
            let names = names.iter().map(|name| HostName::new(name.as_str()));
            names.collect::<Result<Vec<_>, _>>().ok()
        };
        let vms = |numbers: &[u64]| numbers.iter().map(|number| ids::vm(*number)).collect();
        fields.affinity = Affinity {
            hosts: hosts(&self.only_on)?,
            apart_from: vms(&self.apart_from),
            together_with: vms(&self.together_with),
            prefer_hosts: hosts(&self.prefer_on)?,
            prefer_apart_from: vms(&self.prefer_apart_from),
            prefer_together_with: Vec::new(),
        };
        let until = DependencyReached::Running;
        let after = self.after.map(|number| Dependency {
            vm: ids::vm(number),
            until,
        });
        fields.depends_on = after.into_iter().collect();
        VmSpec::new(fields).ok()
    }

    /// What a client writes to create it. `number` tells it from all others.
    pub fn create(&self, number: u64, operation: u64, now_ms: u64) -> Option<Change> {
        let vmid = VmNumber::new(100 + u32::try_from(number).ok()?).ok()?;
        let record = VmRecord::from_parts(VmRecordParts {
            id: ids::vm(number),
            number: vmid,
            spec: self.spec()?,
            power: plasmavmc_types::PowerWanted::On,
            generation: plasmavmc_types::Generation::FIRST,
            deleted: false,
            created_at_ms: now_ms,
        });
        let operation = Operation {
            id: ids::operation(operation),
            kind: OperationKind::Create,
            vm: ids::vm(number),
            vm_name: VmName::new(self.name.as_str()).ok()?,
            state: OperationState::Pending,
            step: String::new(),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            deadline_ms: now_ms + 300_000,
            cancel_requested: false,
            runner: None,
        };
        let change = Change::new()
            .expect(Part::VmRecord(ids::vm(number)), 0)
            .expect(Part::Operation(operation.id), 0)
            .put(Put::VmRecord(Box::new(record.ok()?)));
        Some(change.put(Put::Operation(operation)))
    }
}

/// How long things take. Equal ends draw no number.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// What may go either way goes as the numbers fall; otherwise in one way.
    pub random: bool,
    pub net: Range,
    pub commit: Range,
    pub apply: Range,
    pub launch: Range,
    pub act: Range,
    pub control: Range,
    pub guard_late: Range,
    pub election: Range,
    /// So many of a hundred messages are late, by so much.
    pub late_percent: u64,
    pub late: Range,
    pub loss_percent: u64,
    /// After the death of a host, until the pool lets go of its locks.
    pub lock_expiry: Range,
}

impl Delays {
    pub fn fixed() -> Self {
        let exactly = |ms| (ms, ms);
        Self {
            random: false,
            net: exactly(1),
            commit: exactly(4),
            apply: exactly(2),
            launch: exactly(400),
            act: exactly(20),
            control: exactly(20),
            guard_late: exactly(0),
            election: exactly(1000),
            late_percent: 0,
            late: exactly(0),
            loss_percent: 0,
            lock_expiry: exactly(0),
        }
    }

    pub fn random() -> Self {
        Self {
            random: true,
            net: (1, 10),
            commit: (2, 30),
            apply: (1, 40),
            launch: (50, 900),
            act: (5, 120),
            control: (10, 60),
            guard_late: (0, 100),
            election: (500, 1500),
            late_percent: 2,
            late: (100, 2500),
            loss_percent: 1,
            lock_expiry: (0, 4000),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    pub hosts: Vec<HostSetup>,
    pub vms: Vec<VmSetup>,
    pub timings: Timings,
    pub delays: Delays,
    pub breaks: Breaks,
    /// How long it lives before all is healed, and how long it then has.
    pub heal_at_ms: u64,
    pub rest_within_ms: u64,
}

impl HostSetup {
    pub fn record(&self, number: u64) -> Option<HostRecord> {
        let address: Address = format!("{}:50051", self.name).parse().ok()?;
        HostRecord::new(
            ids::host(number),
            HostName::new(self.name.as_str()).ok()?,
            vec![address],
        )
        .ok()
    }
}
