use plasmavmc_types::{AgentPolicy, Epoch, Operation, OperationKind, PauseCause};

use super::*;
use crate::code::Code;
use crate::samples::operation_id;

const STOP: OperationKind = OperationKind::Stop { force: false };
const PULL: OperationKind = OperationKind::Stop { force: true };
const RESTART: OperationKind = OperationKind::Restart { force: false };

impl Bench {
    /// Operation 1 at VM 1.
    fn ordered(self, kind: OperationKind) -> Self {
        self.cluster(|cluster| cluster.with_operation(1, 1, kind))
    }

    /// Operation 1 as a server before this one left it.
    fn left(self, kind: OperationKind) -> Self {
        self.cluster(|cluster| cluster.with_operation_of(1, 1, kind, taken))
    }

    fn doing(self) -> Self {
        self.local(|local| local.doing = Some(Doing::Order(operation_id(1))))
    }

    fn ended(self, result: Result<(), &str>) -> Self {
        let result = result.map_err(|reason| Code::FailedPrecondition.error(reason, "it did not work"));
        self.local(|local| {
            local.doing = None;
            local.outcome = Some(Outcome {
                operation: operation_id(1),
                result,
            });
        })
    }

    /// The transaction that a graceful order makes once the agent has answered.
    fn passed(mut self) -> Self {
        let Some(AgentAction::Order(ordered)) = self.step() else {
            panic!("no order");
        };
        let Order::Stop {
            passed: Some(change), ..
        } = &ordered.order
        else {
            panic!("{ordered:#?}");
        };
        assert_eq!(change.unguarded(), []);
        let revision = self.cluster.view.revision + 1;
        assert!(change.apply_to(&mut self.cluster.view, revision));
        self.doing()
    }

    fn gone(self, how: Ended) -> Self {
        self.local(|local| local.doing = None).seen(Observed::Gone(how))
    }

    fn cleared(self) -> Self {
        self.check("clear");
        self.local(|local| local.machine = None)
    }
}

fn taken(operation: &mut Operation) {
    operation.state = OperationState::Running;
    operation.runner = Some((host_id(1), Epoch::FIRST));
}

fn agentless(cluster: Cluster) -> Cluster {
    cluster.change(1, |record| {
        let spec = record.spec().edit(|fields| fields.agent = AgentPolicy::None).unwrap();
        record.with_spec(spec).unwrap()
    })
}

#[test]
fn a_graceful_stop_goes_through_its_gate() {
    let taken = Bench::running().ordered(STOP).written("take");
    assert_eq!(taken.power(), PowerWanted::On);
    taken.check("ask and stop");
    let passed = taken.clone().passed();
    assert_eq!(passed.power(), PowerWanted::Off);
    passed.check("nothing");
    let stopping = passed.seen(Observed::Stopping).written("report stopping");
    let over = stopping.gone(Ended::Stopped).written("report stopped");
    assert_eq!((over.operation(1).as_str(), over.power()), ("done", PowerWanted::Off));
    over.cleared().check("nothing");

    let silent = taken.ended(Err("AGENT_SILENT")).written("fail");
    assert_eq!(
        (silent.operation(1).as_str(), silent.power()),
        ("AGENT_SILENT", PowerWanted::On)
    );
    silent.check("nothing");
}

#[test]
fn a_graceful_stop_that_hangs_changes_nothing() {
    let hung = Bench::running()
        .ordered(STOP)
        .written("take")
        .passed()
        .ended(Err("GUEST_DID_NOT_POWER_OFF"));
    let failed = hung.written("fail");
    assert_eq!(
        (failed.operation(1).as_str(), failed.power()),
        ("GUEST_DID_NOT_POWER_OFF", PowerWanted::On)
    );
    // It does so after all: as it was asked.
    let late = failed
        .local(|local| local.outcome = None)
        .gone(Ended::Stopped)
        .written("report stopped");
    assert_eq!(late.power(), PowerWanted::Off);
}

#[test]
fn a_stop_goes_on_under_the_next_server() {
    let before = Bench::running().left(STOP);
    before.check("ask and stop");
    let after = before.clone().cluster(|cluster| cluster.off(1));
    after.check("stop");
    after.at(NOW_MS + 60_000).written("fail");
    let gone = before
        .cluster(|cluster| cluster.off(1))
        .gone(Ended::Unseen)
        .written("report stopped");
    assert_eq!(gone.operation(1), "done");
}

#[test]
fn a_stop_given_up_while_no_server_was_here_leaves_it_on() {
    let settled = Bench::running().cluster(|cluster| cluster.off(1)).written("settle");
    assert_eq!(settled.power(), PowerWanted::On);
    settled.check("nothing");
}

#[test]
fn pulling_the_plug_overtakes_what_is_under_way() {
    let pulled = Bench::running().ordered(PULL).written("take");
    assert_eq!(pulled.power(), PowerWanted::Off);
    pulled.check("kill ordered");
    let over = pulled.gone(Ended::Killed).written("report stopped");
    assert_eq!(over.operation(1), "done");

    let rebooting = Bench::running().left(OperationKind::Reboot).doing();
    let pulled = rebooting
        .cluster(|cluster| cluster.with_operation(2, 1, PULL))
        .written("take");
    pulled.check("kill ordered");
    let over = pulled.gone(Ended::Killed).written("report stopped");
    assert_eq!(over.operation(2), "done");
    let failed = over.written("fail");
    assert_eq!(failed.operation(1), "OVERTAKEN");
    failed.cleared().check("nothing");
}

#[test]
fn stopping_what_has_no_process_is_done_at_once() {
    let crashed = Bench::running()
        .gone(Ended::Signal(9))
        .written("report starting")
        .cleared();
    let stopped = crashed.ordered(STOP).written("finish");
    assert_eq!(
        (stopped.operation(1).as_str(), stopped.power()),
        ("done", PowerWanted::Off)
    );
    stopped.written("report stopped").check("nothing");
    Bench::placed()
        .ordered(STOP)
        .written("finish")
        .written("claim stopped")
        .check("nothing");
    let launching = Bench::of(
        Cluster::of_hosts(1)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Starting),
    )
    .ordered(STOP)
    .local(|local| local.doing = Some(Doing::Launch));
    launching.check("nothing");
    launching.ordered(PULL).check("take");
}

#[test]
fn a_restart_stops_and_starts_and_waits_for_the_agent() {
    let taken = Bench::running().ordered(RESTART).written("take running");
    taken.check("ask and stop");
    let going = taken.passed();
    assert_eq!(going.power(), PowerWanted::On);
    let stopped = going.gone(Ended::Stopped).written("report stopped");
    assert_eq!(stopped.operation(1), "running");
    let claimed = stopped.cleared().written("claim starting");
    claimed.check("launch");
    let runs = claimed.local(|local| {
        local.claimed = None;
        local.machine = Some(machine(NEW, Observed::Running));
    });
    let told = runs.written("report running").written("report");
    told.check("nothing");
    let answers = told.clone().local(|local| {
        local.machine.as_mut().unwrap().agent = AgentHealth::Responding;
    });
    assert_eq!(answers.written("report running").written("finish").operation(1), "done");
    let late = told.at(NOW_MS + 60_000).written("fail");
    assert_eq!(
        (late.operation(1).as_str(), late.power()),
        ("AGENT_SILENT", PowerWanted::On)
    );
}

#[test]
fn a_restart_goes_on_under_the_next_server_wherever_it_was() {
    let taken = Bench::running().ordered(RESTART).written("take running");
    let next = |bench: &Bench| Bench::of(bench.cluster.clone());
    next(&taken).seen(Observed::Running).check("ask and stop");
    let going = taken.passed();
    next(&going).seen(Observed::Running).check("stop");
    // The process was never seen to end: it was to be stopped anyway.
    let stopped = next(&going).written("report stopped");
    let claimed = next(&stopped).written("claim starting");
    let anew = next(&claimed).cluster(agentless).written("claim starting");
    anew.check("launch");
    let runs = anew.local(|local| local.machine = Some(machine(NEW, Observed::Running)));
    assert_eq!(runs.written("report running").written("finish").operation(1), "done");
}

#[test]
fn a_restart_is_finished_even_where_nothing_else_is_started() {
    let stopped = Bench::of(
        Cluster::of_hosts(2)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Stopped),
    );
    let draining = stopped.cluster(|cluster| cluster.mode(1, plasmavmc_types::HostMode::Draining));
    draining.check("nothing");
    draining.left(RESTART).check("claim starting");
}

#[test]
fn a_forced_restart_pulls_the_plug_once() {
    let kind = OperationKind::Restart { force: true };
    let taken = Bench::running()
        .cluster(agentless)
        .ordered(kind)
        .written("take running");
    taken.check("kill ordered");
    let claimed = taken
        .gone(Ended::Killed)
        .written("report stopped")
        .cleared()
        .written("claim starting");
    let runs = claimed.local(|local| local.machine = Some(machine(NEW, Observed::Running)));
    let told = runs.written("report running").written("finish");
    assert_eq!(told.operation(1), "done");
}

#[test]
fn a_guest_that_goes_down_after_its_restart_was_given_up_is_started_again() {
    let going = Bench::running().ordered(RESTART).written("take running").passed();
    let failed = going.ended(Err("GUEST_DID_NOT_POWER_OFF")).written("fail running");
    let late = failed
        .local(|local| local.outcome = None)
        .gone(Ended::Stopped)
        .written("report stopped");
    assert_eq!(late.power(), PowerWanted::On);
    late.cleared().check("claim starting");
}

#[test]
fn a_reboot_is_not_repeated_by_the_next_server() {
    let taken = Bench::running().ordered(OperationKind::Reboot).written("take running");
    taken.check("reboot");
    let done = taken.clone().ended(Ok(())).written("finish running");
    assert_eq!(done.operation(1), "done");
    let next = Bench::of(taken.cluster.clone()).seen(Observed::Running);
    let failed = next.written("fail");
    assert_eq!(failed.operation(1), "SERVER_RESTARTED");
    // Its guest powered off, and nobody was there to start it again.
    let off = Bench::of(taken.cluster)
        .gone(Ended::GuestPoweredOff)
        .written("report stopped");
    assert_eq!(off.power(), PowerWanted::On);
    off.cleared().check("claim starting");
}

#[test]
fn pauses_resumes_and_resets() {
    let pausing = Bench::running().ordered(OperationKind::Pause).written("take");
    pausing.check("pause");
    let paused = pausing
        .ended(Ok(()))
        .seen(Observed::Paused(PauseCause::Asked))
        .written("report paused");
    assert_eq!(paused.written("finish").operation(1), "done");
    // What can be repeated is.
    Bench::running().left(OperationKind::Pause).check("pause");
    Bench::running().left(OperationKind::Resume).check("finish");
    let lost = Bench::running().left(OperationKind::Reset).written("fail");
    assert_eq!(lost.operation(1), "SERVER_RESTARTED");
    let own = |local: &mut Local| local.taken = Some(operation_id(1));
    Bench::running().left(OperationKind::Reset).local(own).check("reset");
}

#[test]
fn what_makes_no_sense_here_is_refused_here_too() {
    let stopped = || {
        Bench::of(
            Cluster::of_hosts(1)
                .with_vm(1)
                .off(1)
                .placed(1, 1)
                .says(1, ObservedState::Stopped),
        )
    };
    assert_eq!(
        stopped().ordered(OperationKind::Reset).written("fail").operation(1),
        "VM_NOT_RUNNING"
    );
    assert_eq!(stopped().ordered(STOP).written("finish").operation(1), "done");
    let cause = PauseCause::Asked;
    let paused = Bench::of(
        Cluster::of_hosts(1)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Paused { cause }),
    )
    .seen(Observed::Paused(cause));
    assert_eq!(paused.clone().ordered(STOP).written("fail").operation(1), "VM_PAUSED");
    assert_eq!(
        paused.ordered(OperationKind::Pause).written("finish").operation(1),
        "done"
    );
    let late = |operation: &mut Operation| operation.deadline_ms = NOW_MS;
    let late = Bench::running().cluster(|cluster| cluster.with_operation_of(1, 1, STOP, late));
    assert_eq!(late.written("fail").operation(1), "NOT_BEGUN");
    let elsewhere = |operation: &mut Operation| {
        taken(operation);
        operation.runner = Some((host_id(2), Epoch::FIRST));
    };
    let moved = Bench::running().cluster(|cluster| cluster.with_operation_of(1, 1, STOP, elsewhere));
    assert_eq!(moved.written("fail").operation(1), "HOST_CHANGED");
}
