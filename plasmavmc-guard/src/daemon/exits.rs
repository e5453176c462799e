//! What happens when a process ends, and when its end was taken note of.

use plasmavmc_types::VmId;

use super::Guard;
use super::child::State;
use crate::journal::say;
use crate::wire::{Answer, Event, Exit, Held, Key, Refusal};
use crate::{cgroup, records};

impl Guard {
    /// The pidfd of a child became readable.
    pub(super) fn notice_exit(&mut self, vm: VmId) {
        let Some(child) = self.children.get(&vm) else { return };
        match &child.state {
            // Its socket closed too, and says how far it came. What it said before is not lost.
            State::Preparing { .. } | State::Registered { .. } => self.advance_launch(vm),
            State::Ending { .. } => self.finish_ending(vm),
            State::Running { .. } | State::Adopted { .. } => self.record_exit(vm),
            State::Exited => {}
        }
    }

    fn record_exit(&mut self, vm: VmId) {
        let Some(child) = self.children.get_mut(&vm) else {
            return;
        };
        let Some(reason) = child.take_exit_reason() else {
            return;
        };
        child.record.exit = Some(Exit::now(reason));
        child.set_frozen(false);
        child.state = State::Exited;
        // So that a guard after this one still knows. Without it that one calls the record stale.
        if let Err(error) = records::write(&child.record) {
            say(&format!("the exit of VM {vm} could not be recorded: {error}"));
        }
        let held = child.held();
        self.clients.publish(&Event::Exited(held));
    }

    /// Answers the order for a launch that failed, once nothing is left of it.
    fn finish_ending(&mut self, vm: VmId) {
        let Some(child) = self.children.get_mut(&vm) else {
            return;
        };
        let Some(reason) = child.take_exit_reason() else {
            return;
        };
        if let State::Ending {
            refusal: Refusal::LaunchDied { problem },
            ..
        } = &mut child.state
        {
            *problem = format!("{reason:?}");
        }
        self.forget(vm);
    }

    pub(super) fn collect(&mut self, key: Key) -> Result<Held, Refusal> {
        let child = self.child(key)?;
        let held = child.held();
        if !child.is_exited() {
            return Err(Refusal::StillRunning(Box::new(held)));
        }
        records::remove(key.vm).map_err(|error| Refusal::Records {
            problem: error.to_string(),
        })?;
        self.forget(key.vm);
        Ok(held)
    }

    /// Drops a child that is gone, with all that was made for it.
    fn forget(&mut self, vm: VmId) {
        let Some(child) = self.children.remove(&vm) else {
            return;
        };
        if let Some(mark) = &child.record.cgroup {
            cgroup::remove_if_empty(mark);
        }
        if let State::Ending { refusal, asker, .. } = child.state {
            if let Err(error) = records::remove(vm) {
                say(&format!("the record of VM {vm} could not be removed: {error}"));
            }
            if let Some(asker) = asker {
                self.clients.answer(asker, Answer::Refused(refusal), None);
            }
        }
    }
}
