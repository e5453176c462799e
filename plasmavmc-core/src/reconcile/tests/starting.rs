use plasmavmc_types::{Dependency, DependencyReached, HostMode, OperationKind, PauseCause, RestartPolicy};

use super::*;

#[test]
fn from_placed_to_running() {
    let claimed = Bench::placed()
        .cluster(|cluster| cluster.with_operation(1, 1, OperationKind::Create))
        .written("claim starting");
    claimed.check("launch");
    let launched = claimed.local(|local| {
        local.claimed = None;
        local.machine = Some(machine(NEW, Observed::Prepared));
    });
    launched.check("cont");
    let runs = launched.local(|local| local.machine = Some(machine(NEW, Observed::Running)));
    let told = runs.written("report running");
    told.check("nothing");
    assert_eq!(told.operation(1), "done");
}

#[test]
fn a_claim_of_a_server_that_died_is_made_anew() {
    let stale = Bench::of(
        Cluster::of_hosts(1)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Starting),
    );
    stale.written("claim starting").check("launch");
}

#[test]
fn what_is_not_wanted_on_is_never_started() {
    let off = Bench::placed()
        .cluster(|cluster| cluster.off(1))
        .written("claim stopped");
    off.check("nothing");
    let deleted = Bench::placed()
        .cluster(|cluster| cluster.deleted(1))
        .written("claim stopped");
    deleted.check("nothing");
    let claimed = |cluster: Cluster| cluster.says(1, ObservedState::Starting).off(1);
    Bench::placed()
        .cluster(claimed)
        .local(|local| local.claimed = Some(attempt(1)))
        .written("report stopped")
        .check("nothing");
    let prepared = Bench::placed().cluster(claimed).seen(Observed::Prepared);
    prepared.check("kill not wanted");
}

#[test]
fn what_was_inherited_is_told_of_truly() {
    // The server died after the launch; QEMU was never told to go on.
    let claimed = Bench::of(
        Cluster::of_hosts(1)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Starting),
    );
    claimed.clone().seen(Observed::Prepared).check("cont");
    claimed
        .seen(Observed::Running)
        .written("report running")
        .check("nothing");
    let cause = PauseCause::IoError;
    Bench::running()
        .seen(Observed::Paused(cause))
        .written("report paused")
        .check("nothing");
    Bench::running()
        .seen(Observed::Unreachable)
        .written("report running")
        .check("nothing");
}

#[test]
fn a_crash_is_counted_and_followed_by_pauses_and_then_by_the_end() {
    let mut bench = Bench::running();
    for pause_ms in [1000, 2000, 4000] {
        bench = bench
            .local(|local| {
                let machine = local.machine.as_mut().unwrap();
                (machine.observed, machine.process) = (Observed::Gone(Ended::Signal(11)), None);
                machine.last_words = "it hurts".to_owned();
            })
            .written("report starting");
        assert!(bench.has_condition(CRASHED));
        bench.check("clear");
        bench = bench.local(|local| local.machine = None);
        bench.check(&format!("retry in {pause_ms} ms"));
        let attempt = bench.local.new_attempt;
        bench = bench.at(NOW_MS + pause_ms).written("claim starting").at(NOW_MS);
        assert!(!bench.has_condition(CRASHED));
        bench = bench.local(|local| {
            local.claimed = None;
            local.machine = Some(Machine {
                attempt,
                ..machine(1, Observed::Running)
            });
            local.new_attempt = crate::samples::attempt(100 + u32::try_from(pause_ms).unwrap());
        });
        bench = bench.written("report running");
    }
    let gone = Observed::Gone(Ended::Signal(11));
    let failed = bench
        .cluster(|cluster| cluster.with_operation(1, 1, OperationKind::Start))
        .local(|local| local.machine.as_mut().unwrap().observed = gone)
        .local(|local| local.machine.as_mut().unwrap().last_words = "it hurts".to_owned())
        .written("report failed");
    let ObservedState::Failed { reason } = failed.state() else {
        panic!("{:?}", failed.state());
    };
    assert!(
        reason.contains("4 times") && reason.contains("signal 11") && reason.contains("it hurts"),
        "{reason}"
    );
    assert_eq!(failed.operation(1), "VM_FAILED");
    let over = failed.local(|local| local.machine = None);
    over.check("nothing");
    // A start makes a new generation, and forgets the crashes.
    let again = over.cluster(|cluster| cluster.on(1)).written("claim starting");
    let status = &again.view().vms[&vm_id(1)].status.as_ref().unwrap().value;
    assert!(status.crashes_at_ms.is_empty());
    // What is wanted off is no longer failed either.
    Bench::of(again.cluster.off(1).says_of(1, |fields| {
        fields.state = ObservedState::Failed { reason: "x".to_owned() };
    }))
    .written("report stopped");
}

#[test]
fn never_restart_means_failed_at_once() {
    let never = |cluster: Cluster| {
        cluster.change(1, |record| {
            let spec = record
                .spec()
                .edit(|fields| fields.restart = RestartPolicy::Never)
                .unwrap();
            record.with_spec(spec).unwrap()
        })
    };
    Bench::running()
        .cluster(never)
        .seen(Observed::Gone(Ended::Exited(1)))
        .written("report failed")
        .check("clear");
}

#[test]
fn a_guest_that_powers_itself_off_is_wanted_off() {
    let off = Bench::running()
        .seen(Observed::Gone(Ended::GuestPoweredOff))
        .written("report stopped");
    assert_eq!(off.power(), PowerWanted::Off);
    off.check("clear");
    off.local(|local| local.machine = None).check("nothing");
}

#[test]
fn a_process_that_vanished_with_its_host_counts_as_a_crash() {
    let gone = Bench::of(Bench::running().cluster).written("report starting");
    assert!(gone.has_condition(CRASHED));
    gone.at(NOW_MS + 1000).check("claim starting");
}

#[test]
fn a_launch_that_came_to_nothing_is_told_by_its_kind() {
    let failure = |kind: LaunchFailureKind| {
        Bench::of(
            Cluster::of_hosts(1)
                .with_vm(1)
                .placed(1, 1)
                .says(1, ObservedState::Starting),
        )
        .local(|local| {
            local.launch_failed = Some(LaunchFailure {
                attempt: attempt(1),
                kind,
                text: "no such disk".to_owned(),
            });
        })
    };
    failure(LaunchFailureKind::Refused)
        .written("report failed")
        .check("nothing");
    failure(LaunchFailureKind::Broke)
        .written("report starting")
        .check("retry in 1000 ms");
    let waits = failure(LaunchFailureKind::Waits).written("report starting");
    waits.check("retry in 500 ms");
    let again = waits.at(NOW_MS + 500).written("claim starting");
    let status = &again.view().vms[&vm_id(1)].status.as_ref().unwrap().value;
    assert!(status.crashes_at_ms.is_empty());
}

#[test]
fn what_depends_on_another_waits_here_too() {
    let needs = |fields: &mut plasmavmc_types::VmSpecFields| {
        let until = DependencyReached::Running;
        fields.depends_on = vec![Dependency { vm: vm_id(2), until }];
    };
    let cluster = Cluster::of_hosts(1)
        .with_vm_of(1, needs)
        .with_vm(2)
        .placed(1, 1)
        .placed(2, 1);
    let here = |cluster: Cluster| {
        let steps = reconcile(&Bench::of(cluster).here());
        let first = steps.into_iter().find(|step| step.vm() == vm_id(1));
        word(first.as_ref())
    };
    assert_eq!(here(cluster.clone()), "retry in 1000 ms");
    assert_eq!(
        here(cluster.clone().says(1, ObservedState::Stopped)),
        "retry in 1000 ms"
    );
    assert_eq!(here(cluster.says(2, ObservedState::Running)), "claim starting");
}

#[test]
fn a_host_that_is_emptied_starts_nothing_that_is_stopped() {
    let stopped = Bench::of(
        Cluster::of_hosts(2)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Stopped),
    );
    stopped.check("claim starting");
    stopped
        .cluster(|cluster| cluster.mode(1, HostMode::Draining))
        .check("nothing");
    // What crashes while it runs there is restarted there.
    Bench::running()
        .cluster(|cluster| cluster.mode(1, HostMode::Draining))
        .seen(Observed::Gone(Ended::Signal(9)))
        .written("report starting")
        .local(|local| local.machine = None)
        .at(NOW_MS + 1000)
        .check("claim starting");
}

#[test]
fn deletion_ends_with_the_word_that_nothing_runs() {
    let deleted = Bench::running().cluster(|cluster| cluster.deleted(1));
    deleted.check("kill deleted");
    deleted
        .seen(Observed::Gone(Ended::Killed))
        .written("report stopped")
        .check("clear");
}

#[test]
fn however_many_wait_for_a_start_a_transaction_takes_what_it_can() {
    let ask = |bench: Bench, number| bench.cluster(|cluster| cluster.with_operation(number, 1, OperationKind::Start));
    let says = |cluster: Cluster| cluster.says(1, ObservedState::Starting);
    let bench = (1..=300).fold(Bench::placed().cluster(says).seen(Observed::Running), ask);
    let Some(AgentAction::Write(write)) = bench.step() else {
        panic!("nothing is written");
    };
    assert!(write.change.expects.len() + write.change.puts.len() <= 512);
    bench.written("report running").check("nothing");
}
