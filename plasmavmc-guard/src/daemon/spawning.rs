//! From a spawn order to a running child: the guard's part of what [`crate::launch`] describes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use plasmavmc_types::VmId;

use super::child::{Child, State};
use super::clients::Asker;
use super::{Guard, MOST_CHILDREN};
use crate::launch::{self, Failure, PATIENCE, Prepared, Progress, Started};
use crate::records::{self, KeptLease, Record};
use crate::wire::{Answer, Held, Phase, Refusal, SpawnOrder};
use crate::{identity, journal};

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Launch {
            step: failure.step,
            errno: failure.errno,
            problem: failure.problem,
        }
    }
}

impl Guard {
    /// `Ok` with a child that this very order started before; `Ok(None)` when it is answered later.
    pub(super) fn spawn(
        &mut self,
        asker: Asker,
        order: SpawnOrder,
        descriptors: &[OwnedFd],
    ) -> Result<Option<Held>, Refusal> {
        let vm = order.key.vm;
        if let Some(held) = self.children.get(&vm).map(Child::held) {
            let same = held.key == order.key && matches!(held.phase, Phase::Running | Phase::Adopted);
            return if same {
                Ok(Some(held))
            } else {
                Err(Refusal::Busy(Box::new(held)))
            };
        }
        if self.children.len() >= MOST_CHILDREN {
            return Err(Refusal::Full { limit: MOST_CHILDREN });
        }
        let mut problems = order.problems();
        if descriptors.len() != order.descriptors_expected() {
            problems.push(format!(
                "{} descriptors came with an order for {}",
                descriptors.len(),
                order.descriptors_expected()
            ));
        }
        if !problems.is_empty() {
            return Err(Refusal::Invalid { problems });
        }
        if order.lease.is_some() {
            self.require_lease()?;
        }
        let key = order.key;
        let lease = order.lease.clone().map(KeptLease::from);
        // The program as it runs now, also when another lies at its path by now.
        let itself = Path::new("/proc/self/exe");
        let Started { pid, pidfd, launch } = launch::start(itself, order, descriptors, self.limits, Instant::now())?;
        let pid = pid.as_raw_nonzero().get();
        let (start_ticks, state) = match identity::start_ticks(pid) {
            Ok(start_ticks) => (start_ticks, State::Preparing { pidfd, launch, asker }),
            // Dropping the launch ends it; it is reaped like any that failed.
            Err(error) => {
                let problem = format!("its start time: {error}");
                let refusal = Refusal::Records { problem };
                let asker = Some(asker);
                (0, State::Ending { pidfd, refusal, asker })
            }
        };
        let mut record = Record::new(&self.boot_id, key, pid, start_ticks);
        record.lease = lease;
        let child = Child {
            record,
            state,
            kill_ordered: false,
            superseded: false,
        };
        self.children.insert(vm, child);
        Ok(None)
    }

    /// The launcher of a child said something, or ended.
    pub(super) fn advance_launch(&mut self, vm: VmId) {
        let Some(child) = self.children.get(&vm) else { return };
        let Some(launch) = child.launch() else { return };
        let registered = matches!(child.state, State::Registered { .. });
        match launch.progress() {
            Progress::Waiting => {}
            Progress::Prepared(prepared) if !registered => self.register(vm, prepared),
            Progress::Prepared(_) => {}
            Progress::Failed(failure) => self.end_launch(vm, failure.into()),
            Progress::Closed if registered => self.begin_running(vm),
            Progress::Closed => {
                // How, is known when it is reaped.
                let problem = String::new();
                self.end_launch(vm, Refusal::LaunchDied { problem });
            }
        }
    }

    /// Writes the record, and only then lets the launcher go on.
    fn register(&mut self, vm: VmId, prepared: Prepared) {
        let Some(mut child) = self.children.remove(&vm) else {
            return;
        };
        child.record.notes = prepared.notes;
        child.record.cgroup = prepared.cgroup;
        let written = records::write(&child.record).map_err(|error| Refusal::Records {
            problem: error.to_string(),
        });
        // The lease may have run out while the launcher worked; what must not execute is not begun.
        let permitted = written.and_then(|()| match child.is_leased() {
            true => self.require_lease(),
            false => Ok(()),
        });
        let going = permitted.and_then(|()| match child.launch() {
            Some(launch) => launch.go().map_err(Refusal::from),
            None => Ok(()),
        });
        child.state = match child.state {
            State::Preparing { pidfd, launch, asker } => State::Registered { pidfd, launch, asker },
            other => other,
        };
        self.children.insert(vm, child);
        if let Err(refusal) = going {
            self.end_launch(vm, refusal);
        }
    }

    fn begin_running(&mut self, vm: VmId) {
        let Some(mut child) = self.children.remove(&vm) else {
            return;
        };
        let mut started = None;
        child.state = match child.state {
            State::Registered { pidfd, asker, .. } => {
                started = Some(asker);
                State::Running { pidfd }
            }
            other => other,
        };
        let held = child.held();
        self.children.insert(vm, child);
        if let Some(asker) = started {
            self.clients.answer(asker, Answer::Held(held), None);
        }
    }

    /// Kills a launcher; the order is answered when it is gone.
    fn end_launch(&mut self, vm: VmId, refusal: Refusal) {
        let Some(mut child) = self.children.remove(&vm) else {
            return;
        };
        if let Err(errno) = child.kill() {
            journal::say(&format!("the launcher of VM {vm} could not be killed: {errno}"));
        }
        child.state = match child.state {
            State::Preparing { pidfd, asker, .. } | State::Registered { pidfd, asker, .. } => {
                // One that does not even hear SIGKILL, in a call to a dead mount, is not waited for.
                let slow = matches!(refusal, Refusal::LaunchTimeout { .. });
                if slow {
                    self.clients.answer(asker, Answer::Refused(refusal.clone()), None);
                }
                let asker = (!slow).then_some(asker);
                State::Ending { pidfd, refusal, asker }
            }
            other => other,
        };
        self.children.insert(vm, child);
    }

    pub(super) fn end_slow_launches(&mut self, now: Instant) {
        let slow = |child: &Child| child.launch().is_some_and(|launch| launch.deadline <= now);
        let slow: Vec<VmId> = self
            .children
            .iter()
            .filter(|(_, child)| slow(child))
            .map(|(vm, _)| *vm)
            .collect();
        for vm in slow {
            let after_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
            self.end_launch(vm, Refusal::LaunchTimeout { after_ms });
        }
    }
}
