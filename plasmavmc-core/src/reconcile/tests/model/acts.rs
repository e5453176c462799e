//! Decisions begun, and what comes of them.

use plasmavmc_types::PauseCause;

use super::super::*;
use super::site::Work;
use super::world::World;
use crate::change::Part;
use crate::code::Code;
use crate::samples::{host_id, vm_id};

impl World {
    /// One look of a server, and what follows begun. Whether something followed.
    pub fn decide(&mut self, site: usize) -> bool {
        let (number, now_ms, fresh) = (self.sites[site].number, self.now_ms, self.fresh());
        let Some(server) = self.sites[site].server.clone() else {
            return false;
        };
        let local = [(vm_id(1), server.local.clone())].into();
        let here = Here::collect(
            &server.view,
            host_id(number),
            (server.session, OwnLease::default()),
            now_ms,
            local,
            || fresh,
        );
        let actions = reconcile(&here);
        assert_eq!(actions, reconcile(&here.clone()), "the same situation, another step");
        assert!(actions.len() <= 1, "{actions:#?}");
        let Some(action) = actions.into_iter().next() else {
            return false;
        };
        if let AgentAction::Write(write) = &action {
            assert_eq!(write.change.unguarded(), [], "{write:#?}");
            assert!(write.change.holds_in(&server.view), "{write:#?}");
            for part in [
                Part::Session(host_id(number)),
                Part::Placement(vm_id(1)),
                Part::Status(vm_id(1)),
            ] {
                assert!(write.change.expects.contains_key(&part), "{write:#?}");
            }
        }
        let goes_on = !matches!(action, AgentAction::Retry { .. });
        self.begin(site, action);
        goes_on
    }

    fn begin(&mut self, site: usize, action: AgentAction) {
        self.story.push(format!("  host {}: {}", site + 1, word(Some(&action))));
        self.check_action(site, &action);
        let fresh = self.fresh();
        let now_ms = self.now_ms;
        let mut overtaken = None;
        let here = &mut self.sites[site];
        let Some(server) = here.server.as_mut() else { return };
        let local = &mut server.local;
        match action {
            AgentAction::Write(write) => {
                match write.why {
                    Why::Claim(attempt) => {
                        local.claimed = Some(attempt);
                        local.new_attempt = fresh;
                    }
                    Why::TakeOrder(operation) => {
                        local.taken = Some(operation);
                        local.outcome = None;
                    }
                    _ => {}
                }
                Self::send(server, write.change);
            }
            AgentAction::Launch { attempt, .. } => {
                local.doing = Some(Doing::Launch);
                local.claimed = None;
                local.launch_failed = None;
                server.work = Some(Work::Launch(attempt));
            }
            AgentAction::Cont { .. } => {
                local.doing = Some(Doing::Cont);
                server.work = Some(Work::Cont);
            }
            AgentAction::Freeze { .. } | AgentAction::Thaw { .. } => unreachable!("nothing is leased here"),
            AgentAction::Kill { .. } => {
                local.doing = Some(Doing::Kill);
                overtaken = server.work.replace(Work::Kill);
            }
            AgentAction::Order(ordered) => {
                local.doing = Some(Doing::Order(ordered.operation));
                local.taken = None;
                server.work = Some(Work::Order(ordered));
            }
            AgentAction::Leave { attempt, .. } => {
                local.doing = Some(Doing::Leave);
                server.work = Some(Work::Leave(attempt));
            }
            AgentAction::Clear { .. } => {
                local.machine = None;
                here.qemu = None;
            }
            AgentAction::Retry { at_ms, .. } => server.looks_at_ms = Some(at_ms.max(now_ms + 1)),
        }
        // What was overtaken may have been about to write that its gate was passed.
        if let Some(Work::Order(ordered)) = overtaken
            && let Order::Stop {
                passed: Some(change), ..
            } = ordered.order
        {
            self.late.push(*change);
        }
    }

    /// What is begun must be right by what is really so, not only by what the server knew.
    fn check_action(&self, site: usize, action: &AgentAction) {
        let (here, stored) = (&self.sites[site], self.cluster.view.vms.get(&vm_id(1)));
        let Some(server) = &here.server else { return };
        let placement = stored
            .and_then(|vm| vm.placement.as_ref())
            .map(|placement| placement.value);
        let status = stored.and_then(|vm| vm.status.as_ref()).map(|status| &status.value);
        match action {
            AgentAction::Launch {
                attempt, incarnation, ..
            } => {
                assert_eq!(server.local.claimed, Some(*attempt), "{action:#?}: {}", self.told());
                assert_eq!(server.local.machine, None, "{action:#?}: {}", self.told());
                assert_eq!(server.local.doing, None, "{action:#?}: {}", self.told());
                let known = server.view.vms[&vm_id(1)].record.as_ref().map(|record| &record.value);
                assert!(
                    known.is_some_and(|record| !record.is_deleted()),
                    "{action:#?}: {}",
                    self.told()
                );
                if !self.was_forced {
                    assert_eq!(
                        status.map(|status| status.attempt),
                        Some(*attempt),
                        "{action:#?}: {}",
                        self.told()
                    );
                    let own = placement.filter(|placement| placement.host == host_id(here.number));
                    assert_eq!(
                        own.map(|own| own.incarnation),
                        Some(*incarnation),
                        "{action:#?}: {}",
                        self.told()
                    );
                    assert_eq!(here.living(), None, "{action:#?}: {}", self.told());
                }
            }
            AgentAction::Kill { attempt, why, .. } => self.check_kill(site, *attempt, why),
            AgentAction::Clear { .. } => assert_eq!(here.living(), None, "{action:#?}: {}", self.told()),
            _ => {}
        }
    }

    /// A kill rests on proof, or on an order.
    fn check_kill(&self, site: usize, attempt: plasmavmc_types::AttemptId, why: &KillWhy) {
        let (here, stored) = (&self.sites[site], self.cluster.view.vms.get(&vm_id(1)));
        let placement = stored
            .and_then(|vm| vm.placement.as_ref())
            .map(|placement| placement.value);
        let status = stored.and_then(|vm| vm.status.as_ref()).map(|status| &status.value);
        match why {
            KillWhy::Superseded { .. } => {
                let is_elsewhere = placement.is_none_or(|placement| placement.host != host_id(here.number));
                let is_claimed = status.is_none_or(|status| status.attempt != attempt);
                let is_newer = status
                    .zip(placement)
                    .is_some_and(|(status, at)| status.incarnation < at.incarnation);
                assert!(is_elsewhere || is_claimed || is_newer, "{why:?}: {}", self.told());
            }
            KillWhy::Deleted => {
                let record = stored.and_then(|vm| vm.record.as_ref());
                assert!(
                    record.is_none_or(|record| record.value.is_deleted()),
                    "{why:?}: {}",
                    self.told()
                );
            }
            KillWhy::Ordered(operation) => {
                let ordered = self.cluster.view.operations.get(operation);
                assert!(
                    ordered.is_some_and(|ordered| ordered.value.kind.is_forced()),
                    "{why:?}: {}",
                    self.told()
                );
            }
            KillWhy::HostDeparts => {
                let known = here
                    .server
                    .as_ref()
                    .and_then(|server| server.view.hosts.get(&host_id(here.number)));
                assert!(known.is_some_and(|host| host.departure().is_some()), "{}", self.told());
            }
            KillWhy::NotWanted => {
                let local = here.server.as_ref().map(|server| &server.local);
                let observed = local.and_then(|local| Some(local.machine.as_ref()?.observed));
                assert_eq!(observed, Some(Observed::Prepared), "{why:?}: {}", self.told());
            }
        }
    }

    /// What is done with a machine ends: at 0 as it should, else in some other way.
    pub fn work(&mut self, site: usize, how: u8) {
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        let Some(work) = server.work.take() else { return };
        server.local.doing = None;
        match work {
            Work::Launch(attempt) => self.launched(site, attempt, how),
            Work::Cont if how % 4 != 3 => self.sites[site].becomes(Observed::Running),
            Work::Kill if how % 4 != 3 => self.sites[site].becomes(Observed::Gone(Ended::Killed)),
            // It did not work, and is tried again.
            Work::Cont | Work::Kill => {}
            Work::Order(ordered) => self.ordered(site, *ordered, how),
            Work::Leave(attempt) => {
                let lives = self.sites[site].living().is_some_and(|qemu| qemu.attempt == attempt);
                if lives && how % 4 != 3 {
                    self.sites[site].becomes(Observed::Gone(Ended::Stopped));
                }
            }
        }
    }

    fn launched(&mut self, site: usize, attempt: plasmavmc_types::AttemptId, how: u8) {
        let failed = |kind| LaunchFailure {
            attempt,
            kind,
            text: "it did not start".to_owned(),
        };
        let is_locked = self.sites[site].living().is_some();
        let failure = match how % 8 {
            _ if is_locked => Some(failed(LaunchFailureKind::Waits)),
            5 => Some(failed(LaunchFailureKind::Refused)),
            6 => Some(failed(LaunchFailureKind::Waits)),
            7 => Some(failed(LaunchFailureKind::Broke)),
            _ => None,
        };
        // At 255 nobody could end what was begun.
        if failure.is_none() || how == u8::MAX {
            self.spawn(site, attempt);
        }
        let machine = self.sites[site].machine();
        let is_left = self.sites[site].living().is_some();
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        match failure {
            None => server.local.machine = machine,
            Some(failure) => {
                server.local.launch_failed = Some(failure);
                server.local.left_alone = is_left.then(|| "something has its folder".to_owned());
            }
        }
    }

    fn ordered(&mut self, site: usize, ordered: Ordered, how: u8) {
        let is_it = |qemu: &&super::site::Qemu| qemu.attempt == ordered.attempt;
        let lives = self.sites[site].living().filter(is_it).is_some();
        let result = match ordered.order {
            _ if !lives => None,
            Order::Stop { gate, passed } => self.stopped(site, gate, passed, how),
            Order::Reboot if how % 4 == 3 => Some(Err("AGENT_SILENT")),
            Order::Reboot | Order::Reset | Order::Resume => {
                self.sites[site].becomes(Observed::Running);
                Some(Ok(()))
            }
            Order::Pause => {
                self.sites[site].becomes(Observed::Paused(PauseCause::Asked));
                Some(Ok(()))
            }
        };
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        server.local.outcome = result.map(|result| Outcome {
            operation: ordered.operation,
            result: result.map_err(|reason| Code::FailedPrecondition.error(reason, "it did not work")),
        });
    }

    /// A graceful stop: the gate, what is written once it was passed, and the guest.
    fn stopped(
        &mut self,
        site: usize,
        gate: Gate,
        passed: Option<Box<crate::change::Change>>,
        how: u8,
    ) -> Option<Result<(), &'static str>> {
        if gate == Gate::Ask && how % 4 == 3 {
            return Some(Err("AGENT_SILENT"));
        }
        if let Some(change) = passed {
            let has_passed = self.apply(&change).is_some();
            let is_told = how % 16 != 12;
            if !has_passed || !is_told {
                return None;
            }
        }
        match how % 8 {
            // It powers off after all, much later.
            6 => {
                self.sites[site].becomes(Observed::Running);
                Some(Err("GUEST_DID_NOT_POWER_OFF"))
            }
            5 => {
                self.sites[site].becomes(Observed::Gone(Ended::Signal(9)));
                None
            }
            _ => {
                self.sites[site].becomes(Observed::Gone(Ended::Stopped));
                Some(Ok(()))
            }
        }
    }
}
