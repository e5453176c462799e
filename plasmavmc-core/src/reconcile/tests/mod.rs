//! One VM on host 1 in a situation, and the step that follows.

mod lease;
mod leave;
mod model;
mod orders;
mod starting;

use plasmavmc_types::{AgentHealth, HostId, ObservedState, OperationState, PowerWanted};

use super::*;
use crate::change::{Part, Put};
use crate::samples::{Cluster, NOW_MS, attempt, host_id, process, vm_id};
use crate::view::ClusterView;

/// The attempt that a claim gets.
const NEW: u32 = 99;

#[derive(Debug, Clone)]
struct Bench {
    cluster: Cluster,
    local: Local,
    now_ms: u64,
    is_session_lost: bool,
    lease: OwnLease,
}

impl Bench {
    /// VM 1, placed on host 1 of two, wanted on, not claimed.
    fn placed() -> Self {
        Self::of(Cluster::of_hosts(2).with_vm(1).placed(1, 1))
    }

    /// It runs, and all is written.
    fn running() -> Self {
        Self::of(
            Cluster::of_hosts(2)
                .with_vm(1)
                .placed(1, 1)
                .says(1, ObservedState::Running),
        )
        .seen(Observed::Running)
    }

    fn of(cluster: Cluster) -> Self {
        Self {
            cluster,
            local: Local::empty(attempt(NEW)),
            now_ms: NOW_MS,
            is_session_lost: false,
            lease: OwnLease::default(),
        }
    }

    fn cluster(mut self, change: impl FnOnce(Cluster) -> Cluster) -> Self {
        self.cluster = change(self.cluster);
        self
    }

    fn local(mut self, change: impl FnOnce(&mut Local)) -> Self {
        change(&mut self.local);
        self
    }

    /// A machine of attempt 1, which is the one that `says` claims.
    fn seen(self, observed: Observed) -> Self {
        self.local(|local| local.machine = Some(machine(1, observed)))
    }

    fn at(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    fn here(&self) -> Here {
        let stored = &self.cluster.view.hosts[&host_id(1)].session;
        let session = OwnSession {
            epoch: stored.as_ref().unwrap().value.epoch,
            revision: self.cluster.view.revision_of_part(&Part::Session(host_id(1))),
        };
        let session = (!self.is_session_lost).then_some(session);
        let local = [(vm_id(1), self.local.clone())].into();
        let own = (session, self.lease);
        Here::collect(&self.cluster.view, host_id(1), own, self.now_ms, local, || attempt(NEW))
    }

    fn step(&self) -> Option<AgentAction> {
        let actions = reconcile(&self.here());
        assert!(actions.len() <= 1, "{actions:#?}");
        for action in &actions {
            check_guards(&self.cluster.view, action);
        }
        actions.into_iter().next()
    }

    /// The step in short words.
    #[track_caller]
    fn check(&self, expected: &str) {
        let step = self.step();
        assert_eq!(word(step.as_ref()), expected, "{step:#?}");
    }

    /// Carries out a step that is a write, as the store would.
    #[track_caller]
    fn written(mut self, expected: &str) -> Self {
        let step = self.step();
        assert_eq!(word(step.as_ref()), expected, "{step:#?}");
        let Some(AgentAction::Write(write)) = step else {
            panic!("{step:#?}");
        };
        let revision = self.cluster.view.revision + 1;
        assert!(write.change.apply_to(&mut self.cluster.view, revision), "{write:#?}");
        match write.why {
            Why::Claim(attempt) => self.local.claimed = Some(attempt),
            Why::TakeOrder(operation) => self.local.taken = Some(operation),
            _ => {}
        }
        self
    }

    fn view(&self) -> &ClusterView {
        &self.cluster.view
    }

    fn state(&self) -> &ObservedState {
        &self.view().vms[&vm_id(1)].status.as_ref().unwrap().value.state
    }

    fn power(&self) -> PowerWanted {
        self.view().vms[&vm_id(1)].record.as_ref().unwrap().value.power()
    }

    fn operation(&self, number: u32) -> String {
        let operation = &self.view().operations[&crate::samples::operation_id(number)].value;
        match &operation.state {
            OperationState::Failed(error) => error.reason.clone(),
            state => format!("{state:?}").to_lowercase(),
        }
    }

    fn has_condition(&self, name: &str) -> bool {
        let status = &self.view().vms[&vm_id(1)].status.as_ref().unwrap().value;
        status
            .conditions
            .iter()
            .any(|condition| condition.name.as_str() == name)
    }
}

fn machine(number: u32, observed: Observed) -> Machine {
    let lives = !matches!(observed, Observed::Gone(_));
    Machine {
        attempt: attempt(number),
        observed,
        leased: false,
        process: lives.then(process),
        qemu: None,
        agent: AgentHealth::NotAsked,
        conditions: Vec::new(),
        last_words: String::new(),
    }
}

/// What is written is compared, and the right to write is.
fn check_guards(view: &ClusterView, action: &AgentAction) {
    let AgentAction::Write(write) = action else { return };
    let change = &write.change;
    assert_eq!(change.unguarded(), [], "{action:#?}");
    assert!(change.holds_in(view), "{action:#?}");
    let needed = [
        Part::Session(host_id(1)),
        Part::Placement(vm_id(1)),
        Part::Status(vm_id(1)),
    ];
    assert!(
        needed.iter().all(|part| change.expects.contains_key(part)),
        "{action:#?}"
    );
}

fn word(action: Option<&AgentAction>) -> String {
    let Some(action) = action else {
        return "nothing".to_owned();
    };
    match action {
        AgentAction::Write(write) => {
            let status = write.change.puts.iter().find_map(|put| match put {
                Put::Status(_, status) => Some(status.state.vm_state().as_str()),
                _ => None,
            });
            let why = match write.why {
                Why::Claim(_) => "claim",
                Why::Report => "report",
                Why::TakeOrder(_) => "take",
                Why::FinishOrder(_) => "finish",
                Why::FailOrder(_) => "fail",
                Why::Settle => "settle",
            };
            status.map_or(why.to_owned(), |status| format!("{why} {status}"))
        }
        AgentAction::Launch { .. } => "launch".to_owned(),
        AgentAction::Cont { .. } => "cont".to_owned(),
        AgentAction::Leave { .. } => "leave".to_owned(),
        AgentAction::Freeze { .. } => "freeze".to_owned(),
        AgentAction::Thaw { .. } => "thaw".to_owned(),
        AgentAction::Kill { why, .. } => match why {
            KillWhy::Superseded { .. } => "kill superseded".to_owned(),
            KillWhy::Deleted => "kill deleted".to_owned(),
            KillWhy::Ordered(_) => "kill ordered".to_owned(),
            KillWhy::NotWanted => "kill not wanted".to_owned(),
            KillWhy::HostDeparts => "kill host departs".to_owned(),
        },
        AgentAction::Order(ordered) => match &ordered.order {
            Order::Stop { gate: Gate::Ask, .. } => "ask and stop".to_owned(),
            Order::Stop { gate: Gate::Passed, .. } => "stop".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        },
        AgentAction::Clear { .. } => "clear".to_owned(),
        AgentAction::Retry { at_ms, .. } => format!("retry in {} ms", at_ms.saturating_sub(NOW_MS)),
    }
}

#[test]
fn a_machine_that_lost_its_vm_is_killed_with_the_proof() {
    let elsewhere = Bench::running().cluster(|cluster| cluster.placed(1, 2));
    elsewhere.check("kill superseded");
    let back = elsewhere.clone().cluster(|cluster| cluster.placed(1, 1));
    back.check("kill superseded");
    back.seen(Observed::Gone(Ended::Killed)).check("clear");
    let claimed_anew = Bench::running().cluster(|cluster| cluster.says_of(1, |fields| fields.attempt = attempt(5)));
    claimed_anew.check("kill superseded");
    Bench::running()
        .cluster(|cluster| cluster.deleted(1))
        .check("kill deleted");
    let killing = |local: &mut Local| local.doing = Some(Doing::Kill);
    elsewhere.clone().local(killing).check("nothing");
    let ordering = |local: &mut Local| local.doing = Some(Doing::Order(crate::samples::operation_id(1)));
    elsewhere.local(ordering).check("kill superseded");
}

#[test]
fn what_is_missing_proves_nothing() {
    let id = vm_id(1);
    let forget = |part: Part| {
        Bench::running().cluster(|mut cluster| {
            let vm = cluster.view.vms.get_mut(&id).unwrap();
            match part {
                Part::VmRecord(_) => vm.record = None,
                Part::Placement(_) => vm.placement = None,
                _ => vm.status = None,
            }
            cluster
        })
    };
    for part in [Part::VmRecord(id), Part::Placement(id)] {
        forget(part.clone()).check("nothing");
        forget(part).seen(Observed::Gone(Ended::Unseen)).check("clear");
    }
    forget(Part::Status(id)).check("nothing");
}

#[test]
fn an_old_view_is_not_decided_on() {
    let stale = |local: &mut Local| local.seen_revision = 1000;
    Bench::placed().local(stale).check("nothing");
    Bench::running()
        .cluster(|cluster| cluster.placed(1, 2))
        .local(stale)
        .check("nothing");
}

#[test]
fn without_a_session_nothing_is_written_or_started() {
    for bench in [
        Bench::placed(),
        Bench::running(),
        Bench::running().seen(Observed::Gone(Ended::Signal(9))),
    ] {
        let mut bench = bench;
        bench.is_session_lost = true;
        bench.check("nothing");
    }
    let mut fenced = Bench::running();
    let session = &mut fenced
        .cluster
        .view
        .hosts
        .get_mut(&host_id(1) as &HostId)
        .unwrap()
        .session;
    session.as_mut().unwrap().value = session.as_ref().unwrap().value.fenced();
    fenced
        .clone()
        .seen(Observed::Paused(plasmavmc_types::PauseCause::Asked))
        .check("nothing");
    fenced.is_session_lost = true;
    fenced.cluster(|cluster| cluster.placed(1, 2)).check("kill superseded");
}

#[test]
fn one_thing_at_a_time() {
    let writing = |local: &mut Local| local.is_writing = true;
    Bench::placed().local(writing).check("nothing");
    let launching = |local: &mut Local| local.doing = Some(Doing::Launch);
    Bench::placed().local(launching).check("nothing");
    let claimed = |local: &mut Local| {
        local.claimed = Some(attempt(1));
        local.doing = Some(Doing::Launch);
    };
    let bench = Bench::of(
        Cluster::of_hosts(1)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Starting),
    );
    bench.clone().local(claimed).check("nothing");
    bench.local(|local| local.claimed = Some(attempt(1))).check("launch");
}

#[test]
fn what_nobody_could_take_over_is_shown_and_left_alone() {
    let left = |local: &mut Local| local.left_alone = Some("its folder is locked".to_owned());
    Bench::placed().local(left).check("nothing");
    let written = Bench::of(Bench::running().cluster)
        .local(left)
        .written("report running");
    assert!(written.has_condition(LEFT_ALONE));
    written.check("nothing");
}
