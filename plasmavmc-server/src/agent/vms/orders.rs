//! Orders to machines that run: stop, reboot, reset, pause, resume; and to leave a host that is shut down.
//!
//! ```text
//!   stop:  gate (the agent answers now) --> power off is written --> the guest is asked --> gone
//!             | silent: nothing changed        | raced: no outcome, look again
//! ```
//! Must never happen: a graceful stop begun with an agent that has not just answered; an order that goes on for
//! longer than its deadline.

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::Kv;
use plasmavmc_core::code::Code;
use plasmavmc_core::reconcile::{Doing, Gate, Here, Order, Ordered, Outcome};
use plasmavmc_kvm::machine::{Machine, MachineError, Phase};
use plasmavmc_types::{AgentPolicy, AttemptId, OperationError, VmId};
use tokio::time::Instant;

use super::Vms;
use super::work::News;
use crate::chain::chain;
use crate::clock::wall_ms;
use crate::failpoint;
use crate::store::{Write, WriteError};

/// For an agent that is well.
const AGENT: Duration = Duration::from_secs(3);
/// The least that an order is given: its deadline may have been set by another host's clock.
const LEAST: Duration = Duration::from_secs(2);
/// Between two questions to a guest that may be on its way down.
const ASK_AGAIN: Duration = Duration::from_secs(2);

impl Vms {
    pub(super) fn order(&mut self, ordered: Ordered, here: &Here) {
        let vm = ordered.vm;
        let Some(machine) = self.machine_of(vm, ordered.attempt) else {
            return;
        };
        let hands = Hands {
            kv: Arc::clone(&self.parts.kv),
            machine,
            policy: agent_policy(vm, here),
        };
        let number = self.begin(vm, Doing::Order(ordered.operation));
        self.entries.entry(vm).or_default().taken = None;
        self.spawn(async move {
            let outcome = carry_out(hands, ordered).await;
            News::Ordered { vm, number, outcome }
        });
    }

    pub(super) fn leave(&mut self, vm: VmId, attempt: AttemptId, until_ms: u64, here: &Here) {
        let Some(machine) = self.machine_of(vm, attempt) else {
            return;
        };
        let policy = agent_policy(vm, here);
        let number = self.begin(vm, Doing::Leave);
        let until = Instant::now() + Duration::from_millis(until_ms.saturating_sub(wall_ms()));
        self.spawn(async move {
            let result = leave(&machine, policy, until).await;
            News::Acted { vm, number, result }
        });
    }
}

/// As it is wanted now, which may differ from when the VM was started.
fn agent_policy(vm: VmId, here: &Here) -> AgentPolicy {
    let record = here.vms.get(&vm).and_then(|vm| vm.stored.record.as_ref());
    record.map_or(AgentPolicy::Required, |record| record.value.spec().agent)
}

/// What an order is carried out with.
pub struct Hands {
    pub kv: Arc<dyn Kv>,
    pub machine: Machine,
    /// As it is wanted now, which may differ from when the VM was started.
    pub policy: AgentPolicy,
}

/// Carries out an order. Without an outcome, what is stored and what is here say how it went.
pub async fn carry_out(hands: Hands, ordered: Ordered) -> Option<Outcome> {
    let left = Duration::from_millis(ordered.deadline_ms.saturating_sub(wall_ms())).max(LEAST);
    let until = Instant::now() + left;
    let machine = &hands.machine;
    let result = match ordered.order {
        Order::Stop { gate, passed } => match pass_gate(machine, hands.policy, gate).await {
            Err(error) => Err(error),
            Ok(()) => {
                if let Some(change) = passed
                    && !write_passed(&hands, &change).await
                {
                    return None;
                }
                failpoint::STOP.around(stop(machine, gate, until)).await
            }
        },
        Order::Reboot => failpoint::REBOOT.around(machine.reboot(left)).await,
        Order::Reset => failpoint::RESET.around(machine.reset()).await,
        Order::Pause => failpoint::PAUSE.around(machine.pause()).await,
        Order::Resume => failpoint::RESUME.around(resume(machine)).await,
    };
    if result.is_err() && machine.state().borrow().phase.is_gone() {
        return None;
    }
    Some(Outcome {
        operation: ordered.operation,
        result: result.map_err(|error| failure_of(&error)),
    })
}

/// Asks a guest to power off because its host is about to be switched off. Nothing is written: the host's record tells
/// why it ended.
pub async fn leave(machine: &Machine, policy: AgentPolicy, until: Instant) -> Result<(), String> {
    let left = async {
        pass_gate(machine, policy, Gate::Ask).await?;
        failpoint::LEAVE.around(stop(machine, Gate::Ask, until)).await
    };
    match left.await {
        Err(_) if machine.state().borrow().phase.is_gone() => Ok(()),
        left => left.map_err(|error| chain(&error)),
    }
}

async fn pass_gate(machine: &Machine, policy: AgentPolicy, gate: Gate) -> Result<(), MachineError> {
    if gate == Gate::Passed || policy != AgentPolicy::Required {
        return Ok(());
    }
    let health = machine.agent().health(AGENT).await;
    health.map(drop).map_err(|source| MachineError::AgentSilent {
        action: plasmavmc_kvm::machine::Action::Stop,
        source,
    })
}

/// A guest that was held back at its start executes for the first time.
async fn resume(machine: &Machine) -> Result<(), MachineError> {
    let phase = machine.state().borrow().phase;
    match phase {
        Phase::Prepared => machine.cont().await,
        _ => machine.resume().await,
    }
}

/// Whether it is certain that the change was made.
async fn write_passed(hands: &Hands, change: &plasmavmc_core::change::Change) -> bool {
    match failpoint::POWER.around(Write::of(change, 0).commit(&*hands.kv)).await {
        Ok(_) => true,
        Err(WriteError::Raced) => false,
        Err(error) => {
            tracing::warn!(vm = %hands.machine.key().vm, error = %chain(&error), "a stop is not begun");
            false
        }
    }
}

/// A guest whose agent answered a server before this one may be on its way down: its silence is waited out.
async fn stop(machine: &Machine, gate: Gate, until: Instant) -> Result<(), MachineError> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match machine.stop(left).await {
            Err(MachineError::AgentSilent { .. }) if gate == Gate::Passed && !left.is_zero() => {
                let mut state = machine.state();
                let gone = state.wait_for(|state| state.phase.is_gone());
                if matches!(tokio::time::timeout(ASK_AGAIN.min(left), gone).await, Ok(Ok(_))) {
                    return Ok(());
                }
            }
            Err(MachineError::AgentSilent { .. }) if gate == Gate::Passed => {
                return Err(MachineError::DidNotPowerOff { within: left });
            }
            done => return done,
        }
    }
}

fn failure_of(error: &MachineError) -> OperationError {
    let (code, reason) = match error {
        MachineError::AgentSilent { .. } => (Code::FailedPrecondition, "AGENT_SILENT"),
        MachineError::DidNotPowerOff { .. } => (Code::DeadlineExceeded, "GUEST_DID_NOT_POWER_OFF"),
        MachineError::NotNow { .. } => (Code::FailedPrecondition, "NOT_POSSIBLE_NOW"),
        MachineError::Busy { .. } => (Code::Aborted, "VM_BUSY"),
        MachineError::Overtaken { .. } => (Code::Aborted, "OVERTAKEN"),
        MachineError::NotDying { .. } => (Code::Internal, "PROCESS_DOES_NOT_END"),
        MachineError::Closed => (Code::Aborted, "SERVER_STOPPING"),
        MachineError::Agent(_) => (Code::Unavailable, "AGENT_FAILED"),
        _ => (Code::Internal, "QEMU_FAILED"),
    };
    code.error(reason, chain(error))
}
