//! What a host reports of a VM it holds. Written only by the host that holds the current incarnation.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::invalid::Checks;
use crate::{AttemptId, Incarnation, Invalid, Label, PauseCause, QemuRunState, VmState};

const MAX_CONDITIONS: usize = 32;
/// As many as a restart policy may allow, and the one that is too many.
const MAX_CRASHES: usize = 101;
const MAX_REASON_BYTES: usize = 1024;

/// The state of a VM as its host sees it. `pending` and `unknown` are missing: a host that reports has the
/// VM, and knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ObservedState {
    /// Claimed; not executing yet.
    Starting,
    Running,
    Paused {
        cause: PauseCause,
    },
    Frozen,
    Stopping,
    /// The process is gone.
    Stopped,
    Migrating,
    Failed {
        reason: String,
    },
}

impl ObservedState {
    pub const fn vm_state(&self) -> VmState {
        match self {
            ObservedState::Starting => VmState::Starting,
            ObservedState::Running => VmState::Running,
            ObservedState::Paused { .. } => VmState::Paused,
            ObservedState::Frozen => VmState::Frozen,
            ObservedState::Stopping => VmState::Stopping,
            ObservedState::Stopped => VmState::Stopped,
            ObservedState::Migrating => VmState::Migrating,
            ObservedState::Failed { .. } => VmState::Failed,
        }
    }

    /// Whether this cannot be said without a process to point at.
    const fn needs_process(&self) -> bool {
        matches!(
            self,
            ObservedState::Running | ObservedState::Paused { .. } | ObservedState::Frozen | ObservedState::Migrating
        )
    }
}

/// A process, named so that a later one with the same pid is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuProcess {
    pub pid: u32,
    /// In clock ticks since boot, as the kernel tells it.
    pub start_time_ticks: u64,
}

/// How a QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It ended while nobody was there to be told how.
    Unseen,
}

/// The guest agent at the last look. Only an answer proves one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentHealth {
    #[default]
    NotAsked,
    Responding,
    NotResponding,
    NotInstalled,
}

/// Something about a VM that a person should know and that is no state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// For programs: `waiting-for-lock`.
    pub name: Label,
    /// For people.
    pub text: String,
}

/// The fields of a status, to be filled in freely and then checked by [`VmStatus::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmStatusFields {
    /// The placement it was written under.
    pub incarnation: Incarnation,
    /// Fixed when the host claims the VM: it may be started elsewhere once this host is fenced.
    pub leased: bool,
    pub attempt: AttemptId,
    pub state: ObservedState,
    pub process: Option<QemuProcess>,
    /// QEMU's own word, which may be finer than `state`.
    pub qemu: Option<QemuRunState>,
    #[serde(default)]
    pub agent: AgentHealth,
    pub last_exit: Option<Exit>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// When QEMU died by itself, oldest first, by the host's wall clock: what the restart policy counts.
    #[serde(default)]
    pub crashes_at_ms: Vec<u64>,
    /// The generation of the record that this host carries out; 0: none yet.
    #[serde(default)]
    pub generation: u64,
    /// When it came into this state, by the host's wall clock.
    #[serde(default)]
    pub since_ms: u64,
}

/// A checked status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "VmStatusFields", into = "VmStatusFields")]
pub struct VmStatus(VmStatusFields);

impl VmStatus {
    pub fn new(fields: VmStatusFields) -> Result<Self, Invalid> {
        let mut checks = Checks::of("VM status");
        let (state, process) = (&fields.state, &fields.process);
        checks.require(fields.incarnation >= Incarnation::FIRST, "incarnation", || {
            "is 0, but only a placed VM has a status".to_owned()
        });
        checks.require(process.is_none_or(|process| process.pid > 0), "process.pid", || {
            "is 0".to_owned()
        });
        checks.require(process.is_some() || !state.needs_process(), "process", || {
            format!("is missing, but the VM is {}", state.vm_state())
        });
        checks.require(process.is_none() || *state != ObservedState::Stopped, "process", || {
            "exists, so the VM is not stopped".to_owned()
        });
        if let ObservedState::Failed { reason } = state {
            checks.require_range("state.failed.reason bytes", reason.len(), 1..=MAX_REASON_BYTES);
        }
        checks.require_at_most("crashes_at_ms", fields.crashes_at_ms.len(), MAX_CRASHES);
        checks.require_at_most("conditions", fields.conditions.len(), MAX_CONDITIONS);
        let names = fields.conditions.iter().map(|condition| &condition.name);
        checks.require_unique(names, |index| format!("conditions[{index}].name"));
        checks.finish(Self(fields))
    }

    /// The claim on a VM that was just placed here: the first thing a host writes.
    pub fn claim(incarnation: Incarnation, leased: bool, attempt: AttemptId) -> Result<Self, Invalid> {
        Self::new(VmStatusFields {
            incarnation,
            leased,
            attempt,
            state: ObservedState::Starting,
            process: None,
            qemu: None,
            agent: AgentHealth::default(),
            last_exit: None,
            conditions: Vec::new(),
            crashes_at_ms: Vec::new(),
            generation: 0,
            since_ms: 0,
        })
    }

    /// The status with a change, checked again. The claim it belongs to stays as it is: another
    /// incarnation, lease or attempt needs a claim of its own.
    pub fn edit(&self, change: impl FnOnce(&mut VmStatusFields)) -> Result<Self, Invalid> {
        let mut fields = self.0.clone();
        change(&mut fields);
        let same_claim =
            (fields.incarnation, fields.leased, fields.attempt) == (self.0.incarnation, self.0.leased, self.0.attempt);
        if !same_claim {
            return Err(Invalid::whole(
                "VM status",
                "a change must not touch the claim it belongs to",
            ));
        }
        Self::new(fields)
    }
}

impl Deref for VmStatus {
    type Target = VmStatusFields;

    fn deref(&self) -> &VmStatusFields {
        &self.0
    }
}

impl TryFrom<VmStatusFields> for VmStatus {
    type Error = Invalid;

    fn try_from(fields: VmStatusFields) -> Result<Self, Invalid> {
        Self::new(fields)
    }
}

impl From<VmStatus> for VmStatusFields {
    fn from(status: VmStatus) -> Self {
        status.0
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PROCESS: QemuProcess = QemuProcess {
        pid: 4711,
        start_time_ticks: 12,
    };

    fn claim() -> VmStatus {
        VmStatus::claim(Incarnation::FIRST, true, AttemptId::from_uuid(Uuid::from_u128(7))).unwrap()
    }

    fn failed(reason: &str) -> ObservedState {
        ObservedState::Failed {
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn what_runs_has_a_process_and_what_is_stopped_has_none() {
        let table = [
            (ObservedState::Starting, None, true),
            (ObservedState::Starting, Some(PROCESS), true),
            (ObservedState::Running, Some(PROCESS), true),
            (ObservedState::Running, None, false),
            (ObservedState::Frozen, None, false),
            (ObservedState::Stopping, Some(PROCESS), true),
            (ObservedState::Stopped, None, true),
            (ObservedState::Stopped, Some(PROCESS), false),
            (failed("the disk is gone"), None, true),
            (failed(""), None, false),
        ];
        for (state, process, allowed) in table {
            let edited = claim().edit(|f| (f.state, f.process) = (state.clone(), process));
            assert_eq!(edited.is_ok(), allowed, "{state:?} with {process:?}");
        }
    }

    #[test]
    fn a_change_never_touches_its_claim() {
        assert!(claim().edit(|f| f.leased = false).is_err());
        assert!(claim().edit(|f| f.incarnation = Incarnation::from_raw(2)).is_err());
        assert!(claim().edit(|f| f.attempt = AttemptId::from_uuid(Uuid::nil())).is_err());
        assert!(claim().edit(|f| f.agent = AgentHealth::Responding).is_ok());
    }

    #[test]
    fn nobody_claims_what_was_never_placed() {
        let attempt = AttemptId::from_uuid(Uuid::from_u128(7));
        let error = VmStatus::claim(Incarnation::from_raw(0), true, attempt).unwrap_err();
        assert!(error.mentions("incarnation"));
    }

    #[test]
    fn what_a_status_lists_has_bounds() {
        let condition = |name: &str| Condition {
            name: Label::new(name).unwrap(),
            text: String::new(),
        };
        let check = |change: &dyn Fn(&mut VmStatusFields), field: &str| {
            let refused = claim().edit(change).unwrap_err();
            assert!(refused.mentions(field), "{refused}");
        };
        check(&|f| f.crashes_at_ms = vec![1; MAX_CRASHES + 1], "crashes_at_ms");
        check(
            &|f| f.conditions = vec![condition("crashed"), condition("crashed")],
            "conditions[1].name",
        );
        let many = || (0..=MAX_CONDITIONS).map(|n| condition(&format!("c{n}"))).collect();
        check(&|f| f.conditions = many(), "conditions");
        let full = claim().edit(|f| f.crashes_at_ms = vec![1; MAX_CRASHES]);
        assert!(full.is_ok());
    }

    #[test]
    fn a_status_of_an_earlier_version_reads_without_the_later_fields() {
        let mut json = serde_json::to_value(claim()).unwrap();
        let fields = json.as_object_mut().unwrap();
        for later in ["agent", "conditions", "crashes_at_ms", "generation", "since_ms"] {
            assert!(fields.remove(later).is_some(), "{later}");
        }
        assert_eq!(serde_json::from_value::<VmStatus>(json).unwrap(), claim());
    }

    #[test]
    fn a_status_survives_json() {
        let running = claim()
            .edit(|f| {
                f.state = ObservedState::Paused {
                    cause: PauseCause::IoError,
                };
                f.process = Some(PROCESS);
                f.qemu = Some(QemuRunState::IoError);
                f.last_exit = Some(Exit::Signal(9));
            })
            .unwrap();
        let json = serde_json::to_string(&running).unwrap();
        assert_eq!(serde_json::from_str::<VmStatus>(&json).unwrap(), running);
    }
}
