//! Which order leads where.

use std::ops::Bound;
use std::os::fd::OwnedFd;

use plasmavmc_types::VmId;

use super::Guard;
use super::child::Child;
use super::clients::Asker;
use crate::wire::{Answer, Held, Key, LIST_PAGE, LeaseStatus, Order, Refusal, Status};

/// What an order led to, if it is known already.
type Outcome = Result<Option<(Answer, Option<OwnedFd>)>, Refusal>;

fn at_once(answer: Answer) -> Outcome {
    Ok(Some((answer, None)))
}

impl Guard {
    pub(super) fn serve_order(&mut self, asker: Asker, order: Order, descriptors: Vec<OwnedFd>) {
        let outcome = match order {
            Order::Status => at_once(Answer::Status(Box::new(self.status()))),
            Order::List { after } => at_once(self.list(after)),
            Order::Spawn(order) => self
                .spawn(asker, *order, &descriptors)
                .map(|held| held.map(|held| (Answer::Held(held), None))),
            Order::Kill(key) => self.kill(key).and_then(|held| at_once(Answer::Held(held))),
            Order::Collect(key) => self.collect(key).and_then(|held| at_once(Answer::Held(held))),
            Order::Pidfd(key) => self
                .copy_pidfd(key)
                .map(|(held, pidfd)| Some((Answer::Held(held), Some(pidfd)))),
            Order::Subscribe => {
                self.clients.subscribe(asker.client);
                at_once(Answer::Done)
            }
            Order::Lease {
                epoch,
                until_boottime_ms,
            } => self
                .extend_lease(epoch, until_boottime_ms)
                .and_then(|()| at_once(Answer::Done)),
            Order::Thaw { key, epoch } => self.thaw(key, epoch).and_then(|held| at_once(Answer::Held(held))),
            Order::Upgrade { program } => self.order_upgrade(asker, program),
            Order::Stop { leave_running } => self.stop(leave_running),
        };
        match outcome {
            Ok(Some((answer, descriptor))) => self.clients.answer(asker, answer, descriptor),
            Ok(None) => {}
            Err(refusal) => self.clients.answer(asker, Answer::Refused(refusal), None),
        }
    }

    pub(super) fn child(&self, key: Key) -> Result<&Child, Refusal> {
        match self.children.get(&key.vm) {
            Some(child) if child.record.key == key => Ok(child),
            other => Err(Refusal::Unknown {
                key,
                instead: other.map(|child| Box::new(child.held())),
            }),
        }
    }

    fn status(&self) -> Status {
        Status {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            upgrades: self.upgrades,
            last_upgrade_problem: self.last_upgrade_problem.clone(),
            children: self.children.len(),
            clients: self.clients.len(),
            memory_not_locked: self.standing.memory_not_locked.clone(),
            not_realtime: self.standing.not_realtime.clone(),
            stale: self.stale.clone(),
            lease: self.deadman.epoch().map(|epoch| LeaseStatus {
                epoch,
                until_boottime_ms: self.deadman.until_ms(),
            }),
            leased: self.children.values().filter(|child| child.is_leased()).count(),
            frozen: self.children.values().filter(|child| child.is_frozen()).count(),
        }
    }

    fn list(&self, after: Option<VmId>) -> Answer {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self
            .children
            .range((from, Bound::Unbounded))
            .map(|(_, child)| child.held());
        let held: Vec<Held> = rest.by_ref().take(LIST_PAGE).collect();
        let more = rest.next().is_some();
        Answer::List { held, more }
    }

    fn kill(&mut self, key: Key) -> Result<Held, Refusal> {
        let child = self.child(key)?;
        if !child.is_exited() {
            child.kill().map_err(|errno| Refusal::Failed {
                problem: format!("SIGKILL to pid {}: {errno}", child.record.pid),
            })?;
        }
        let held = child.held();
        if let Some(child) = self.children.get_mut(&key.vm) {
            child.kill_ordered = true;
        }
        Ok(held)
    }

    fn copy_pidfd(&self, key: Key) -> Result<(Held, OwnedFd), Refusal> {
        let child = self.child(key)?;
        let gone = || Refusal::Unknown {
            key,
            instead: Some(Box::new(child.held())),
        };
        let pidfd = child.pidfd().ok_or_else(gone)?.try_clone();
        let pidfd = pidfd.map_err(|error| Refusal::Failed {
            problem: format!("the pidfd of pid {}: {error}", child.record.pid),
        })?;
        Ok((child.held(), pidfd))
    }

    fn order_upgrade(&mut self, asker: Asker, program: Option<String>) -> Outcome {
        if !self.upgrade.is_idle() {
            return Err(Refusal::Upgrading);
        }
        self.begin_upgrade(program, Some(asker));
        Ok(None)
    }

    fn stop(&mut self, leave_running: bool) -> Outcome {
        let children = self.running();
        if children > 0 && !leave_running {
            return Err(Refusal::StillHolding { children });
        }
        self.ending = true;
        at_once(Answer::Done)
    }
}
