//! What this process knows of one VM, and nobody else does.

use std::collections::BTreeMap;

use plasmavmc_core::reconcile::{Doing, Holding as Lease, LaunchFailure, Local, Machine as Seen, Outcome};
use plasmavmc_kvm::machine::Machine;
use plasmavmc_types::{AgentHealth, AttemptId, OperationId, QemuProcess, Usage, VmSpec};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::observe::observe;

/// A machine on this host, or what is known of one that ended before anybody looked.
#[derive(Debug)]
pub struct Holding {
    pub machine: Option<Machine>,
    pub seen: Seen,
    pub process: Option<QemuProcess>,
    pub agent: AgentHealth,
    /// Its guest is to stay paused until it is resumed for the first time.
    pub held_back: bool,
    /// Who watches what it is.
    pub watching: Option<AbortHandle>,
    /// Who asks after its agent.
    pub asking: Option<AbortHandle>,
}

impl Holding {
    /// Looks again.
    pub fn refresh(&mut self) {
        if let Some(machine) = &self.machine {
            self.seen = observe(machine, self.process, self.agent, self.held_back);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let followers = [&self.watching, &self.asking];
        followers.into_iter().flatten().for_each(AbortHandle::abort);
    }
}

/// Something under way, told from what came before it by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    pub doing: Doing,
    pub number: u64,
}

#[derive(Debug)]
pub struct Entry {
    pub holding: Option<Holding>,
    pub left_alone: Option<String>,
    pub under_way: Option<UnderWay>,
    /// It is being frozen or thawed, beside whatever else is done with it.
    pub lease_work: Option<(Lease, u64)>,
    /// The number of the transaction on its way.
    pub writing: Option<u64>,
    pub claimed: Option<AttemptId>,
    /// The attempt that was launched last is to stay paused until it is resumed.
    pub starts_paused: bool,
    pub launch_failed: Option<LaunchFailure>,
    pub taken: Option<OperationId>,
    pub outcome: Option<Outcome>,
    pub new_attempt: AttemptId,
    pub seen_revision: u64,
    /// Nothing is stored of it.
    pub is_orphan: bool,
    /// What it takes of the host while it lives.
    pub size: Usage,
    /// When to look again though nothing happens.
    pub due: Option<Instant>,
    /// Not before this: what was tried last did not work.
    pub rests_until: Option<Instant>,
    /// How often in a row it did not.
    pub failures: u32,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            holding: None,
            left_alone: None,
            under_way: None,
            lease_work: None,
            writing: None,
            claimed: None,
            starts_paused: false,
            launch_failed: None,
            taken: None,
            outcome: None,
            new_attempt: fresh_attempt(),
            seen_revision: 0,
            is_orphan: false,
            size: Usage::default(),
            due: None,
            rests_until: None,
            failures: 0,
        }
    }
}

pub fn fresh_attempt() -> AttemptId {
    AttemptId::from_uuid(Uuid::new_v4())
}

impl Entry {
    /// As decisions see it.
    pub fn local(&self) -> Local {
        Local {
            machine: self.holding.as_ref().map(|holding| holding.seen.clone()),
            left_alone: self.left_alone.clone(),
            doing: self.under_way.map(|under_way| under_way.doing),
            holding: self.lease_work.map(|(holding, _)| holding),
            is_writing: self.writing.is_some(),
            claimed: self.claimed,
            launch_failed: self.launch_failed.clone(),
            taken: self.taken,
            outcome: self.outcome.clone(),
            new_attempt: self.new_attempt,
            seen_revision: self.seen_revision,
        }
    }

    /// Whether nothing of the VM is here, so that what is stored says everything.
    pub fn is_idle(&self) -> bool {
        self.holding.is_none() && self.left_alone.is_none() && self.under_way.is_none() && self.writing.is_none()
    }

    /// The machine of an attempt.
    pub fn machine_of(&self, attempt: AttemptId) -> Option<&Machine> {
        let machine = self.holding.as_ref()?.machine.as_ref()?;
        (machine.key().attempt == attempt).then_some(machine)
    }

    /// Something with this number came to its end. False if it was overtaken.
    pub fn ended(&mut self, number: u64) -> bool {
        let is_it = self.under_way.is_some_and(|under_way| under_way.number == number);
        if is_it {
            self.under_way = None;
        }
        is_it
    }
}

/// What a VM of this specification takes.
pub fn size_of(spec: &VmSpec) -> Usage {
    Usage {
        vms: 1,
        vcpus: spec.vcpus,
        memory_mb: spec.memory_mb,
    }
}

/// What all machines that live take together.
pub fn usage_of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Usage {
    let living = entries.filter(|entry| entry.holding.as_ref().is_some_and(|holding| holding.machine.is_some()));
    living.fold(Usage::default(), |sum, entry| Usage {
        vms: sum.vms.saturating_add(1),
        vcpus: sum.vcpus.saturating_add(entry.size.vcpus),
        memory_mb: sum.memory_mb.saturating_add(entry.size.memory_mb),
    })
}

pub type Entries = BTreeMap<plasmavmc_types::VmId, Entry>;
