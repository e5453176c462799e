//! One host: what is true of it, whatever anybody believes.
//!
//! ```text
//!   power -- boot -- server (dies alone; is the member of the store, the agent, and perhaps the controller)
//!                 -- guard  (dies alone: its leased QEMUs are stopped by that)
//!                 -- QEMUs  (outlive both)
//! ```
//! Must never happen: a QEMU that says something of itself that is not so.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_core::elders::Elders;
use plasmavmc_core::reconcile::{Doing, Ended, Holding, LaunchFailure, Local, Observed, Outcome};
use plasmavmc_core::terms::Granted;
use plasmavmc_types::{AttemptId, BootId, Epoch, HostId, Incarnation, InstanceNonce, OperationId, PauseCause, VmId};

use plasmavmc_guard::deadman::Deadman;

/// A clock that runs at its own rate and stands anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub offset_ms: u64,
    pub rate_ppm: u64,
}

impl Clock {
    pub fn at(self, now_ms: u64) -> u64 {
        self.offset_ms + now_ms * self.rate_ppm / 1_000_000
    }

    /// How long really passes while this clock goes on by so much. At least so long.
    pub fn real(self, local_ms: u64) -> u64 {
        (local_ms * 1_000_000).div_ceil(self.rate_ppm.max(1))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Prelaunch,
    Running,
    Paused(PauseCause),
    /// Its guest has powered off; it holds its locks.
    Shutdown,
    Gone(Ended),
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qemu {
    pub attempt: AttemptId,
    pub incarnation: Incarnation,
    pub leased: bool,
    pub run: Run,
    /// State T: only a guard's SIGCONT ends it.
    pub stopped: bool,
    /// The server asked it to hold still because of the lease.
    pub freeze_mark: bool,
    /// It has a disk on the shared pool, and its lock.
    pub shared: bool,
    pub pid: u32,
}

impl Qemu {
    pub fn lives(&self) -> bool {
        !matches!(self.run, Run::Gone(_))
    }

    pub fn executes(&self) -> bool {
        self.run == Run::Running && !self.stopped
    }

    /// As the agent sees it.
    pub fn observed(&self) -> Observed {
        match self.run {
            Run::Gone(how) => Observed::Gone(how),
            _ if self.stopped => Observed::Frozen,
            Run::Prelaunch => Observed::Prepared,
            Run::Running => Observed::Running,
            Run::Paused(_) if self.freeze_mark => Observed::Frozen,
            Run::Paused(cause) => Observed::Paused(cause),
            Run::Shutdown => Observed::PoweredOff,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Guard {
    pub life: u64,
    pub deadman: Deadman,
    /// Whose QEMUs it holds by the lease.
    pub leased: BTreeSet<VmId>,
    pub ticking: bool,
}

/// An open session of this instance, as the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub epoch: Epoch,
    pub revision: u64,
}

/// The task that opens and beats.
#[derive(Debug, Clone, Default)]
pub struct Heart {
    pub held: Option<Held>,
    pub sequence: u64,
    /// The number of the beat, the opening or the look whose answer is awaited.
    pub awaits: Option<u64>,
    /// The beat that stands still, and since when by this clock.
    pub quiet: Option<(u64, u64)>,
    /// What its beats have granted in this session.
    pub granted: Granted,
    /// The time between beats under which the last one counted.
    pub pace_ms: Option<u64>,
    /// Until when the lease lasts, as this process knows.
    pub until_ms: u64,
    /// The session that it is of.
    pub lease_epoch: Option<Epoch>,
    /// What was applied when the last beat counted, and when the last one of the session before did.
    pub known_index: usize,
    pub index_before: usize,
}

/// What is under way with a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Launch {
        attempt: AttemptId,
        incarnation: Incarnation,
        leased: bool,
        shared: bool,
    },
    Cont {
        attempt: AttemptId,
    },
    Kill {
        attempt: AttemptId,
    },
    Order(Box<plasmavmc_core::reconcile::Ordered>),
    Leave,
    Clear,
}

/// What a server knows of one VM.
#[derive(Debug, Clone)]
pub struct Entry {
    pub has_machine: Option<AttemptId>,
    pub doing: Option<(Doing, u64)>,
    pub work: Option<Work>,
    pub holding: Option<(Holding, u64)>,
    pub thawing: Option<(Incarnation, Epoch, AttemptId)>,
    pub writing: Option<u64>,
    pub claimed: Option<AttemptId>,
    pub launch_failed: Option<LaunchFailure>,
    pub taken: Option<OperationId>,
    pub outcome: Option<Outcome>,
    pub new_attempt: AttemptId,
    pub seen_revision: u64,
    pub rests_until: u64,
    pub failures: u32,
}

impl Entry {
    pub fn new(new_attempt: AttemptId) -> Self {
        let empty = Local::empty(new_attempt);
        Self {
            has_machine: None,
            doing: None,
            work: None,
            holding: None,
            thawing: None,
            writing: None,
            claimed: empty.claimed,
            launch_failed: None,
            taken: None,
            outcome: None,
            new_attempt,
            seen_revision: 0,
            rests_until: 0,
            failures: 0,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.has_machine.is_none() && self.doing.is_none() && self.writing.is_none() && self.holding.is_none()
    }
}

/// The process `plasmavmc-server`.
#[derive(Debug, Clone)]
pub struct Server {
    pub life: u64,
    /// In real time.
    pub began_ms: u64,
    /// The revision since which it has heard of every commit, and when it knew, by its clock.
    pub listens: Option<(u64, u64)>,
    /// What others say of that, while it leads.
    pub elders: Elders,
    /// What ran here is taken over and the view is up to date.
    pub ready: bool,
    /// The index of the last commit that it has applied, and up to where it has been sent.
    pub applied: usize,
    pub apply_until: usize,
    pub heard: BTreeMap<HostId, u64>,
    pub last_applied_ms: u64,
    pub flowing_since_ms: u64,
    pub quorum_ms: Option<u64>,
    /// The term in which it believes to lead, and since when.
    pub leads: Option<(u64, u64)>,
    pub heart: Heart,
    pub entries: BTreeMap<VmId, Entry>,
    pub looks_at: Option<u64>,
    /// The round of the controller, and how many answers it waits for.
    pub round: u64,
    pub round_waits: usize,
    pub in_round: bool,
    /// When it looks next; something has changed since it looked.
    pub controls_at: Option<u64>,
    pub control_due: bool,
}

#[derive(Debug, Clone)]
pub struct Site {
    pub index: usize,
    pub host: HostId,
    pub name: String,
    pub witness: bool,
    pub voter: bool,
    pub is_clone: bool,
    pub memory_mb: u64,
    pub shared_pool: bool,
    pub wall_skew_ms: u64,
    pub powered: bool,
    pub paused: bool,
    pub clock: Clock,
    pub instance: InstanceNonce,
    pub boot: BootId,
    /// Earlier boots of this machine.
    pub past: Vec<(InstanceNonce, BootId)>,
    pub server: Option<Server>,
    pub guard: Option<Guard>,
    pub qemus: BTreeMap<VmId, Qemu>,
    /// What the member has applied and keeps on its disk.
    pub applied: usize,
    /// When a leader was last heard of, in real time.
    pub leader_heard_ms: u64,
    pub patience_ms: u64,
    /// Its disk: every commit that it leads takes so much longer.
    pub slow_ms: u64,
    /// Applying takes so much longer.
    pub lag_ms: u64,
    pub read_only: bool,
}

impl Site {
    pub fn is_up(&self) -> bool {
        self.powered && !self.paused && self.server.is_some()
    }

    pub fn server_of(&mut self, life: u64) -> Option<&mut Server> {
        self.server.as_mut().filter(|server| server.life == life)
    }

    pub fn executes(&self, vm: VmId) -> bool {
        self.powered && !self.paused && self.qemus.get(&vm).is_some_and(Qemu::executes)
    }

    pub fn living(&self, vm: VmId) -> Option<&Qemu> {
        self.qemus.get(&vm).filter(|qemu| qemu.lives())
    }
}
