//! What runs on this host when the agent starts, and what cannot be taken over.
//!
//! First what runs is taken over, so that consoles and events are not missed for longer than they must; then the
//! view is brought up to what was acknowledged before now, since a server before this one may have written it.
//! Only then is anything decided.

use std::time::Duration;

use chainfire::kv::Consistency;
use plasmavmc_core::reconcile::Doing;
use plasmavmc_kvm::adopt::{self, Inheritance};
use plasmavmc_types::{AgentHealth, AttemptId, ObservedState, VmId};

use super::Vms;
use super::entry::{Holding, size_of};
use super::observe::ended_unseen;
use super::work::News;
use crate::chain::chain;
use crate::failpoint;
use crate::store::keys;

const TRY_AGAIN: Duration = Duration::from_millis(500);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

impl Vms {
    pub(super) async fn take_over_and_catch_up(&mut self) {
        let kvm = self.parts.workshop.kvm.clone();
        let mut complained = false;
        let inheritance = loop {
            match failpoint::INHERIT.around(adopt::inherit(&kvm)).await {
                Ok(inheritance) => break inheritance,
                Err(error) if !complained => {
                    complained = true;
                    tracing::warn!(error = %chain(&error), "what runs on this host is not known yet; nothing is started");
                }
                Err(_) => {}
            }
            tokio::time::sleep(TRY_AGAIN).await;
        };
        let found = (
            inheritance.machines.len(),
            inheritance.ended.len(),
            inheritance.left_alone.len(),
        );
        tracing::info!(
            running = found.0,
            ended = found.1,
            left_alone = found.2,
            "what was here is taken over"
        );
        self.catch_up().await;
        self.take(inheritance);
    }

    /// Until the view shows all that was acknowledged before now.
    async fn catch_up(&self) {
        let key = keys::session(self.parts.host);
        loop {
            match self.parts.kv.get(key.clone(), Consistency::Linearizable).await {
                Ok(answer) => match self.parts.mirror.reached(answer.revision, CATCH_UP_WITHIN).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "this server is behind"),
                },
                Err(error) => tracing::debug!(%error, "the store does not answer yet"),
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    pub(super) fn take(&mut self, inheritance: Inheritance) {
        for machine in inheritance.machines {
            let key = machine.key();
            let agent = self.agent_told_before(key.vm, key.attempt);
            let held_back = self.is_held_back(key.vm, key.attempt);
            self.hold(key.vm, machine, agent, held_back);
            self.size_from_view(key.vm);
        }
        for ended in inheritance.ended {
            let (vm, attempt) = (ended.key.vm, ended.key.attempt);
            tracing::info!(%vm, %attempt, exit = ?ended.exit, "it ended while no server ran here");
            self.entries.entry(vm).or_default().holding = Some(Holding {
                machine: None,
                seen: ended_unseen(attempt, ended.exit, &ended.last_words),
                process: None,
                agent: AgentHealth::NotAsked,
                held_back: false,
                watching: None,
                asking: None,
            });
        }
        for (vm, why) in inheritance.left_alone {
            tracing::warn!(%vm, why, "something of it is left alone");
            self.entries.entry(vm).or_default().left_alone = Some(why);
        }
        let strangers = inheritance.strangers.iter();
        let told = strangers.map(|path| format!("{} lies among the runtime folders and is none", path.display()));
        self.strangers.extend(told);
        self.mark_all();
    }

    /// A guest that has run on has the agent that the server before this one knew.
    fn agent_told_before(&self, vm: VmId, attempt: AttemptId) -> AgentHealth {
        self.parts.mirror.read(|view| {
            let status = view.vms.get(&vm).and_then(|vm| vm.status.as_ref());
            let same = status.filter(|status| status.value.attempt == attempt);
            same.map_or(AgentHealth::NotAsked, |status| status.value.agent)
        })
    }

    /// A guest that has not executed yet stays paused if that was written of it, or is what its start was to do.
    fn is_held_back(&self, vm: VmId, attempt: AttemptId) -> bool {
        self.parts.mirror.read(|view| {
            let Some(vm) = view.vms.get(&vm) else { return false };
            let status = vm.status.as_ref().map(|status| &status.value);
            match status
                .filter(|status| status.attempt == attempt)
                .map(|status| &status.state)
            {
                Some(ObservedState::Paused { .. }) => true,
                Some(ObservedState::Starting) => vm
                    .record
                    .as_ref()
                    .is_some_and(|record| record.value.spec().start_paused),
                _ => false,
            }
        })
    }

    fn size_from_view(&mut self, vm: VmId) {
        let size = self.parts.mirror.read(|view| {
            let record = view.vms.get(&vm).and_then(|vm| vm.record.as_ref());
            record.map(|record| size_of(record.value.spec()))
        });
        self.entries.entry(vm).or_default().size = size.unwrap_or_default();
    }

    /// What could not be taken over may be gone by now, or may be taken over now.
    pub(super) fn look_at_left_alone(&mut self) {
        let left: Vec<VmId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.left_alone.is_some())
            .map(|(vm, _)| *vm)
            .collect();
        for vm in left {
            let is_busy = self.entries.get(&vm).is_some_and(|entry| entry.under_way.is_some());
            if is_busy {
                continue;
            }
            self.look_again(vm, Duration::ZERO);
        }
    }

    /// Looks after a while whether it is gone, or can be taken over. Nothing else is done with it meanwhile.
    pub(super) fn look_again(&mut self, vm: VmId, after: Duration) {
        let number = self.begin(vm, Doing::Clear);
        let kvm = self.parts.workshop.kvm.clone();
        self.spawn(async move {
            tokio::time::sleep(after).await;
            let found = match adopt::inherit_one(&kvm, vm).await {
                Ok(found) => found,
                Err(error) => Inheritance {
                    left_alone: [(vm, chain(&error))].into(),
                    ..Inheritance::default()
                },
            };
            News::LookedAgain { vm, number, found }
        });
    }
}
