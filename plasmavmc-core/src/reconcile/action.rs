//! What a host is to do.

use plasmavmc_types::{AttemptId, Epoch, Generation, Incarnation, OperationId, VmId};

use crate::change::Change;

/// One thing to do. For one VM there is at most one write and one action on its machine at a time, and both may
/// run beside those of other VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAction {
    /// Make this transaction. If it is raced, look again.
    Write(Box<HereWrite>),
    /// Start QEMU, with its guest held still. Only after [`Why::Claim`] of this attempt was seen in the view.
    Launch {
        vm: VmId,
        incarnation: Incarnation,
        attempt: AttemptId,
        /// Of the record whose specification is to be used.
        generation: Generation,
        /// As the claim says: the guard holds it by the lease of this host from the beginning.
        leased: bool,
    },
    /// Let the guest execute. If QEMU does not do it, kill that machine: it counts as a crash.
    Cont { vm: VmId, attempt: AttemptId },
    /// Hold the guest still, clocks and all: the lease is about to end. It does not wait for QEMU's answer; the guard
    /// stops the process at the deadline in any case.
    Freeze { vm: VmId, attempt: AttemptId },
    /// Let a frozen guest go on, if two things are proven when it is done: a linearizable read, sent after a beat of
    /// this epoch was acknowledged, shows it placed on this host under this incarnation; and the guard finds the
    /// deadline ahead.
    Thaw {
        vm: VmId,
        attempt: AttemptId,
        incarnation: Incarnation,
        epoch: Epoch,
    },
    /// Pull the plug, whatever else is done with the machine: [`super::Doing::Kill`] takes its place.
    Kill { vm: VmId, attempt: AttemptId, why: KillWhy },
    /// Carry out an order at a machine that runs. It ends with an outcome, or with the process gone.
    Order(Box<Ordered>),
    /// Ask the guest to power off, as a graceful stop does, since this host is about to be switched off. It stays wanted
    /// on. What does not work is tried again; at `until_ms`, by the wall clock, it is killed.
    Leave {
        vm: VmId,
        attempt: AttemptId,
        until_ms: u64,
    },
    /// Let go of a machine that is gone, and clear away what is left of it: all that it told has been written.
    Clear { vm: VmId, attempt: AttemptId },
    /// Look again at this time, if nothing happens before.
    Retry { vm: VmId, at_ms: u64 },
}

impl AgentAction {
    pub fn vm(&self) -> VmId {
        match self {
            AgentAction::Write(write) => write.vm,
            AgentAction::Order(ordered) => ordered.vm,
            AgentAction::Launch { vm, .. }
            | AgentAction::Cont { vm, .. }
            | AgentAction::Freeze { vm, .. }
            | AgentAction::Thaw { vm, .. }
            | AgentAction::Kill { vm, .. }
            | AgentAction::Leave { vm, .. }
            | AgentAction::Clear { vm, .. }
            | AgentAction::Retry { vm, .. } => *vm,
        }
    }
}

/// A transaction of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereWrite {
    pub vm: VmId,
    pub why: Why,
    /// Compares the session, the placement, the status, and whatever else it writes.
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The VM is this host's to start. [`super::Local::claimed`] becomes this attempt.
    Claim(AttemptId),
    /// What is seen is written down; operations that end with it are ended in it.
    Report,
    /// The operation is this host's now. [`super::Local::taken`] becomes it.
    TakeOrder(OperationId),
    FinishOrder(OperationId),
    FailOrder(OperationId),
    /// Something is put right that was left half done: the power that is wanted after a stop that failed.
    Settle,
}

/// Why a machine is killed. Nothing else kills one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillWhy {
    /// A higher claim or placement: it is no longer this machine's VM.
    Superseded { proof: String },
    /// A tombstone.
    Deleted,
    /// A client said so.
    Ordered(OperationId),
    /// It is wanted off, or its host is about to be switched off, and its guest has never executed.
    NotWanted,
    /// This host is about to be switched off, and its guest cannot power off, or has not in time.
    HostDeparts,
}

/// An order at a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    pub vm: VmId,
    pub operation: OperationId,
    pub attempt: AttemptId,
    pub order: Order,
    /// By the wall clock. Then the outcome is a failure.
    pub deadline_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// First the gate (unless it was passed): ask the guest's agent as the VM's policy says; if it is silent, the
    /// outcome is `AGENT_SILENT` and nothing has changed. Then make `passed`; if that is raced, end without an
    /// outcome. Then ask the guest to power off.
    Stop {
        gate: Gate,
        passed: Option<Box<Change>>,
    },
    Reboot,
    Reset,
    Pause,
    Resume,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Ask,
    /// The agent answered a server that ran here before: its silence now may be the guest going down.
    Passed,
}
