//! What happens to servers, hosts and the VM from outside.

use plasmavmc_types::{AgentHealth, AttemptId, HostMode, Leaving, Operation, OperationKind, Session, SessionState};

use super::super::*;
use super::site::{Qemu, Server, Work};
use super::world::World;
use crate::change::{Change, Part, Put};
use crate::lifecycle::{admit, admit_delete};
use crate::samples::{host_id, operation_id, vm_id};
use crate::view::Stored;
use crate::visible;

impl World {
    pub fn crash(&mut self, site: usize, how: u8) {
        let now_ms = self.now_ms;
        let Some(server) = self.sites[site].server.take() else {
            return;
        };
        self.sites[site].down_since_ms = now_ms;
        if let Some(sent) = server.writing.filter(|sent| sent.outcome.is_none())
            && how.is_multiple_of(2)
        {
            self.late.push(sent.change);
        }
        // What was being done may have been done.
        if how & 2 != 0 {
            match server.work {
                Some(Work::Launch(attempt)) => self.spawn(site, attempt),
                Some(Work::Cont) => self.sites[site].becomes(Observed::Running),
                Some(Work::Kill) => self.sites[site].becomes(Observed::Gone(Ended::Killed)),
                Some(Work::Leave(_)) => self.sites[site].becomes(Observed::PoweredOff),
                Some(Work::Order(ordered)) => self.half_done(site, &ordered, how),
                None => {}
            }
        }
    }

    /// An order whose server was killed in the middle.
    fn half_done(&mut self, site: usize, ordered: &Ordered, how: u8) {
        let Order::Stop { passed, .. } = &ordered.order else {
            return;
        };
        let has_passed = passed.as_ref().is_none_or(|passed| self.apply(passed).is_some());
        let Some(qemu) = self.sites[site].living().copied() else {
            return;
        };
        if has_passed && qemu.attempt == ordered.attempt {
            let next = [
                Observed::Running,
                Observed::PoweredOff,
                Observed::Gone(Ended::GuestPoweredOff),
            ];
            self.sites[site].becomes(next[usize::from(how >> 2) % next.len()]);
        }
    }

    /// A process comes to be, unless one has the VM's folder.
    pub fn spawn(&mut self, site: usize, attempt: AttemptId) {
        let site = &mut self.sites[site];
        if site.living().is_none() {
            site.qemu = Some(Qemu {
                attempt,
                observed: Observed::Prepared,
                agent: AgentHealth::NotAsked,
            });
        }
    }

    /// A server starts behind a barrier, and takes over what runs; if that is not possible, it is left alone.
    pub fn start(&mut self, site: usize, is_whole: bool) {
        let new_attempt = self.fresh();
        let stored = self.cluster.view.hosts[&host_id(self.sites[site].number)]
            .session
            .clone()
            .unwrap();
        let here = &mut self.sites[site];
        if here.server.is_some() {
            return;
        }
        let mut local = Local::empty(new_attempt);
        match here.machine() {
            Some(machine) if is_whole => local.machine = Some(machine),
            Some(_) if here.living().is_some() => local.left_alone = Some("its folder is locked".to_owned()),
            // Nobody can tell any more how it ended.
            _ => here.qemu = None,
        }
        here.server = Some(Server {
            view: self.cluster.view.clone(),
            session: stored.value.is_open().then_some(OwnSession {
                epoch: stored.value.epoch,
                revision: stored.revision,
            }),
            local,
            writing: None,
            work: None,
            looks_at_ms: None,
        });
    }

    fn put_session(&mut self, site: usize, edit: impl FnOnce(Session) -> Session) -> OwnSession {
        let revision = self.cluster.view.revision + 1;
        self.cluster.view.revision = revision;
        let host = self
            .cluster
            .view
            .hosts
            .get_mut(&host_id(self.sites[site].number))
            .unwrap();
        let session = edit(host.session.as_ref().unwrap().value);
        host.session = Some(Stored::new(session, revision));
        OwnSession {
            epoch: session.epoch,
            revision,
        }
    }

    pub fn fence(&mut self, site: usize) {
        self.put_session(site, Session::fenced);
    }

    pub fn open(&mut self, site: usize) {
        let host = &self.cluster.view.hosts[&host_id(self.sites[site].number)];
        if host.session.as_ref().unwrap().value.is_open() || self.sites[site].server.is_none() {
            return;
        }
        let opened = self.put_session(site, |session| Session {
            epoch: session.epoch.next().unwrap(),
            state: SessionState::Open,
            ..session
        });
        if let Some(server) = &mut self.sites[site].server {
            server.session = Some(opened);
        }
    }

    pub fn set_mode(&mut self, site: usize, mode: HostMode) {
        let number = self.sites[site].number;
        let cluster = std::mem::take(&mut self.cluster);
        self.cluster = cluster.mode(number, mode);
    }

    /// The host is about to be switched off.
    pub fn depart(&mut self, site: usize, leaving: Leaving) {
        let (number, until_ms) = (self.sites[site].number, self.now_ms + 60_000);
        let cluster = std::mem::take(&mut self.cluster);
        self.cluster = cluster.departing(number, leaving, until_ms);
    }

    /// What its operator took back, or it is back from.
    pub fn stay(&mut self, site: usize) {
        let host = self
            .cluster
            .view
            .hosts
            .get_mut(&host_id(self.sites[site].number))
            .unwrap();
        let record = host.record.take().unwrap().value.with_departure(None);
        self.cluster.view.revision += 1;
        host.record = Some(Stored::new(record, self.cluster.view.revision));
    }

    /// What a client asks for, as the API takes it.
    pub fn call(&mut self, kind: OperationKind, force: bool) {
        if self.was_forced && kind == OperationKind::Delete {
            return;
        }
        self.heard();
        let view = &self.cluster.view;
        let Some(vm) = view.vms.get(&vm_id(1)) else { return };
        let (open, shown) = (
            view.open_operations(vm_id(1)),
            visible::vm(view, &self.cluster.heard, vm_id(1)),
        );
        let admitted = match kind {
            OperationKind::Delete => admit_delete(force, vm, &open, &shown),
            kind => admit(kind, vm, &open, &shown),
        };
        let Ok(admission) = admitted else { return };
        self.operations += 1;
        let name = vm.name().unwrap().clone();
        let operation = admission.operation(operation_id(self.operations), kind, vm_id(1), name, self.now_ms);
        let change = admission.into_change(operation);
        assert!(self.apply(&change).is_some(), "{change:#?}");
    }

    pub fn cancel(&mut self) {
        let open = self.cluster.view.open_operations(vm_id(1));
        let Some(operation) = open.last().copied().cloned() else {
            return;
        };
        let next = Operation {
            cancel_requested: true,
            ..operation.value.clone()
        };
        self.apply(&Change::new().replace_operation(&operation, next));
    }

    pub fn force(&mut self) {
        let Some(vm) = self.cluster.view.vms.get(&vm_id(1)) else {
            return;
        };
        let is_deleted = vm.record.as_ref().is_none_or(|record| record.value.is_deleted());
        let Some(placement) = vm.placement.clone().filter(|_| !is_deleted) else {
            return;
        };
        let elsewhere = if placement.value.host == host_id(1) {
            host_id(2)
        } else {
            host_id(1)
        };
        let next = placement.value.next(elsewhere).unwrap();
        let change = Change::new()
            .expect(Part::Placement(vm_id(1)), placement.revision)
            .put(Put::Placement(vm_id(1), next));
        self.was_forced = true;
        self.apply(&change);
    }
}
