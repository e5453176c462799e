//! Decisions carried out, and what came of them learned.

use std::sync::Arc;
use std::time::Duration;

use plasmavmc_core::reconcile::{AgentAction, Doing, Here, HereWrite, Why};
use plasmavmc_kvm::machine::{Machine, Phase};
use plasmavmc_types::{AgentHealth, AgentPolicy, AttemptId, Generation, Incarnation, VmId};
use tokio::time::Instant;

use super::entry::{Holding, UnderWay, fresh_attempt, size_of};
use super::observe::{observe, process_of};
use super::work::{self, Failed, News};
use super::{Vms, health};
use crate::chain::chain;
use crate::clock::wall_ms;
use crate::failpoint;
use crate::store::{Write, WriteError};

/// Before what a start left is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Vms {
    pub(super) fn act(&mut self, action: AgentAction, here: &Here) {
        match action {
            AgentAction::Write(write) => self.write(*write),
            AgentAction::Launch {
                vm,
                incarnation,
                attempt,
                generation,
                leased,
            } => self.launch(vm, attempt, generation, leased.then_some(incarnation), here),
            AgentAction::Cont { vm, attempt } => {
                if let Some(machine) = self.machine_of(vm, attempt) {
                    let number = self.begin(vm, Doing::Cont);
                    self.spawn(async move {
                        let result = work::let_loose(machine).await;
                        News::Acted { vm, number, result }
                    });
                }
            }
            AgentAction::Freeze { vm, attempt } => {
                if let Some(machine) = self.machine_of(vm, attempt) {
                    self.freeze(vm, machine);
                }
            }
            AgentAction::Thaw {
                vm,
                attempt,
                incarnation,
                epoch,
            } => {
                if let Some(machine) = self.machine_of(vm, attempt) {
                    self.thaw(vm, machine, incarnation, epoch);
                }
            }
            AgentAction::Kill { vm, attempt, why } => {
                if let Some(machine) = self.machine_of(vm, attempt) {
                    tracing::info!(%vm, %attempt, ?why, "killing it");
                    let number = self.begin(vm, Doing::Kill);
                    self.spawn(async move {
                        let result = work::kill(machine).await;
                        News::Acted { vm, number, result }
                    });
                }
            }
            AgentAction::Order(ordered) => self.order(*ordered, here),
            AgentAction::Leave { vm, attempt, until_ms } => self.leave(vm, attempt, until_ms, here),
            AgentAction::Clear { vm, attempt } => self.clear(vm, attempt),
            AgentAction::Retry { vm, at_ms } => {
                let left = Duration::from_millis(at_ms.saturating_sub(wall_ms()));
                self.entries.entry(vm).or_default();
                self.look_at(vm, Instant::now() + left);
            }
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn begin(&mut self, vm: VmId, doing: Doing) -> u64 {
        let number = self.number();
        self.entries.entry(vm).or_default().under_way = Some(UnderWay { doing, number });
        number
    }

    /// One more task, which ends with the agent. What it tells is for the loop.
    pub(super) fn spawn(&self, work: impl Future<Output = News> + Send + 'static) {
        let (news, ending) = (self.news.clone(), self.ending.clone());
        self.tasks.spawn(async move {
            let told = tokio::select! {
                () = ending.cancelled() => return,
                told = work => told,
            };
            // The loop has ended, and so has whatever this was about.
            let _ = news.send(told).await;
        });
    }

    pub(super) fn machine_of(&self, vm: VmId, attempt: AttemptId) -> Option<Machine> {
        self.entries.get(&vm)?.machine_of(attempt).cloned()
    }

    fn write(&mut self, write: HereWrite) {
        let HereWrite { vm, why, change } = write;
        let number = self.number();
        let entry = self.entries.entry(vm).or_default();
        entry.writing = Some(number);
        let step = match why {
            Why::Claim(attempt) => {
                entry.claimed = Some(attempt);
                entry.new_attempt = fresh_attempt();
                failpoint::CLAIM
            }
            Why::TakeOrder(operation) => {
                entry.taken = Some(operation);
                entry.outcome = None;
                failpoint::OPERATION
            }
            Why::FinishOrder(_) | Why::FailOrder(_) => failpoint::OPERATION,
            Why::Settle => failpoint::POWER,
            Why::Report => failpoint::STATUS,
        };
        let (kv, room) = (Arc::clone(&self.parts.kv), Arc::clone(&self.writes));
        self.spawn(async move {
            // It is never closed.
            let _room = room.acquire().await.ok();
            let committed = step.around(Write::of(&change, 0).commit(&*kv)).await;
            let result = committed.map(|committed| committed.revision);
            News::Wrote { vm, number, result }
        });
    }

    fn launch(
        &mut self,
        vm: VmId,
        attempt: AttemptId,
        generation: Generation,
        leased: Option<Incarnation>,
        here: &Here,
    ) {
        let record = here.vms.get(&vm).and_then(|vm| vm.stored.record.as_ref());
        let Some(record) = record.filter(|record| record.value.generation() == generation) else {
            return;
        };
        let spec = record.value.spec().clone();
        let number = self.begin(vm, Doing::Launch);
        let entry = self.entries.entry(vm).or_default();
        entry.claimed = None;
        entry.launch_failed = None;
        entry.size = size_of(&spec);
        entry.starts_paused = spec.start_paused;
        let (workshop, room) = (Arc::clone(&self.parts.workshop), Arc::clone(&self.launches));
        self.spawn(async move {
            let result = work::start(workshop, room, (vm, attempt, leased), spec).await;
            News::Launched { vm, number, result }
        });
    }

    /// All that a machine told has been written: it goes out of mind.
    fn clear(&mut self, vm: VmId, attempt: AttemptId) {
        let entry = self.entries.entry(vm).or_default();
        if entry
            .holding
            .as_ref()
            .is_some_and(|holding| holding.seen.attempt == attempt)
        {
            entry.holding = None;
            self.parts.consoles.remove(vm);
        }
        self.dirty.insert(vm);
    }

    /// What came of something.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Wrote { vm, number, result } => self.wrote(vm, number, result),
            News::Launched { vm, number, result } => {
                if !self.ended(vm, number) {
                    return;
                }
                match result {
                    Ok(machine) => {
                        let held_back = self.entries.entry(vm).or_default().starts_paused;
                        self.hold(vm, machine, AgentHealth::NotAsked, held_back);
                    }
                    Err(failed) => self.launch_failed(vm, failed),
                }
            }
            News::Acted { vm, number, result } => {
                if !self.ended(vm, number) {
                    return;
                }
                match result {
                    Ok(()) => self.entries.entry(vm).or_default().failures = 0,
                    Err(error) => {
                        tracing::warn!(%vm, error, "what was to be done with its machine was not done");
                        self.rest(vm);
                    }
                }
            }
            News::Ordered { vm, number, outcome } => {
                if !self.ended(vm, number) {
                    return;
                }
                let has_outcome = outcome.is_some();
                self.entries.entry(vm).or_default().outcome = outcome;
                // Something came between: the view shows it in a moment.
                if !has_outcome {
                    self.rest(vm);
                }
            }
            News::Frozen { vm, attempt } => self.note_frozen(vm, attempt),
            News::Held { vm, number, result } => self.held(vm, number, result),
            News::LookedAgain { vm, number, found } => {
                if self.ended(vm, number) {
                    self.entries.entry(vm).or_default().left_alone = None;
                    self.take(found);
                }
            }
            News::Changed { vm, attempt } => {
                if let Some(holding) = self.holding_of(vm, attempt) {
                    holding.refresh();
                    self.dirty.insert(vm);
                }
            }
            News::Agent { vm, attempt, health } => {
                if let Some(holding) = self.holding_of(vm, attempt) {
                    holding.agent = health;
                    holding.refresh();
                    self.dirty.insert(vm);
                }
            }
        }
    }

    fn launch_failed(&mut self, vm: VmId, failed: Failed) {
        let entry = self.entries.entry(vm).or_default();
        entry.launch_failed = Some(failed.failure);
        if failed.is_left {
            let text = "its start failed, and something is in its folder";
            entry.left_alone = Some(text.to_owned());
            // Most often it is the process before this one, which is just going.
            self.look_again(vm, LOOK_AGAIN);
        }
    }

    fn ended(&mut self, vm: VmId, number: u64) -> bool {
        self.dirty.insert(vm);
        let Some(entry) = self.entries.get_mut(&vm) else {
            return false;
        };
        // What was done shows at the machine before the word of its change comes: an order that is told as done
        // while the state before it is told would be a lie.
        if let Some(holding) = &mut entry.holding {
            holding.refresh();
        }
        entry.ended(number)
    }

    fn holding_of(&mut self, vm: VmId, attempt: AttemptId) -> Option<&mut Holding> {
        let holding = self.entries.get_mut(&vm)?.holding.as_mut()?;
        (holding.seen.attempt == attempt).then_some(holding)
    }

    fn wrote(&mut self, vm: VmId, number: u64, result: Result<u64, WriteError>) {
        let Some(entry) = self.entries.get_mut(&vm).filter(|entry| entry.writing == Some(number)) else {
            return;
        };
        entry.writing = None;
        self.dirty.insert(vm);
        match result {
            Ok(revision) => {
                entry.seen_revision = entry.seen_revision.max(revision);
                entry.failures = 0;
            }
            Err(WriteError::Raced) => self.rest(vm),
            Err(error) => {
                tracing::warn!(%vm, error = %chain(&error), "what happened to it is not written yet");
                // It may still arrive, and must not find a launch under way that it knows nothing of.
                entry.claimed = None;
                self.rest(vm);
            }
        }
    }

    /// A machine is this host's: it is followed from now on.
    pub(super) fn hold(&mut self, vm: VmId, machine: Machine, agent: AgentHealth, held_back: bool) {
        let attempt = machine.key().attempt;
        let pid = machine.state().borrow().pid;
        let process = process_of(pid);
        let watching = self.watch_state(vm, &machine);
        self.parts.consoles.add(vm, machine.clone());
        let seen = observe(&machine, process, agent, held_back);
        let entry = self.entries.entry(vm).or_default();
        entry.holding = Some(Holding {
            machine: Some(machine),
            seen,
            process,
            agent,
            held_back,
            watching: Some(watching),
            asking: None,
        });
        self.dirty.insert(vm);
        tracing::debug!(%vm, %attempt, pid, "it is here");
    }

    fn watch_state(&self, vm: VmId, machine: &Machine) -> tokio::task::AbortHandle {
        let (mut state, attempt, news) = (machine.state(), machine.key().attempt, self.news.clone());
        let ending = self.ending.clone();
        let watching = async move {
            while state.changed().await.is_ok() {
                let is_gone = matches!(state.borrow().phase, Phase::Gone(_));
                if news.send(News::Changed { vm, attempt }).await.is_err() || is_gone {
                    return;
                }
            }
        };
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = watching => {}
            }
        });
        task.abort_handle()
    }

    /// The agent of a VM is asked after while the VM is meant to have one.
    pub(super) fn mind_agent(&mut self, vm: VmId, policy: Option<AgentPolicy>) {
        let wanted = policy.is_some_and(|policy| policy != AgentPolicy::None);
        let Some(holding) = self.entries.get_mut(&vm).and_then(|entry| entry.holding.as_mut()) else {
            return;
        };
        match (&holding.machine, wanted, holding.asking.is_some()) {
            (Some(machine), true, false) if !machine.state().borrow().phase.is_gone() => {
                let (machine, known) = (machine.clone(), holding.agent);
                let asking = self.watch_agent(vm, &machine, known);
                if let Some(holding) = self.entries.get_mut(&vm).and_then(|entry| entry.holding.as_mut()) {
                    holding.asking = Some(asking);
                }
            }
            (_, false, true) => {
                if let Some(asking) = holding.asking.take() {
                    asking.abort();
                }
                holding.agent = AgentHealth::NotAsked;
                holding.refresh();
            }
            _ => {}
        }
    }

    fn watch_agent(&self, vm: VmId, machine: &Machine, known: AgentHealth) -> tokio::task::AbortHandle {
        let (attempt, news, ending) = (machine.key().attempt, self.news.clone(), self.ending.clone());
        let following = health::follow(machine.clone(), known, move |health| {
            let news = news.clone();
            // The loop has ended, and nobody wants to know.
            async move { drop(news.send(News::Agent { vm, attempt, health }).await) }
        });
        let task = self.tasks.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = following => {}
            }
        });
        task.abort_handle()
    }
}
