//! A host that is about to be switched off.

use plasmavmc_types::{Leaving, OperationKind, PauseCause};

use super::*;

const UNTIL_MS: u64 = NOW_MS + 60_000;

impl Bench {
    fn departing(self) -> Self {
        self.cluster(|cluster| cluster.departing(1, Leaving::Move, UNTIL_MS))
    }
}

#[test]
fn what_runs_is_asked_to_power_off_and_stays_wanted_on() {
    let running = Bench::running().departing();
    assert_eq!(
        running.step(),
        Some(AgentAction::Leave {
            vm: vm_id(1),
            attempt: attempt(1),
            until_ms: UNTIL_MS
        })
    );
    running
        .clone()
        .local(|local| local.doing = Some(Doing::Leave))
        .check("nothing");
    for how in [Ended::Stopped, Ended::GuestPoweredOff, Ended::Killed, Ended::Signal(11)] {
        let gone = running.clone().seen(Observed::Gone(how)).written("report stopped");
        assert_eq!(gone.power(), PowerWanted::On, "{how:?}");
        gone.check("clear");
        gone.local(|local| local.machine = None).check("nothing");
    }
    running.cluster(|cluster| cluster.booted(1)).check("nothing");
}

#[test]
fn what_cannot_power_off_has_its_plug_pulled() {
    let departing = |observed| Bench::running().seen(observed).departing();
    // (what it is, what follows)
    let table = [
        (Observed::Running, "leave"),
        (Observed::Prepared, "kill not wanted"),
        (Observed::Paused(PauseCause::IoError), "kill host departs"),
    ];
    for (observed, step) in table {
        departing(observed).check(step);
    }
    // These may still come round, as far as there is time.
    for observed in [Observed::Frozen, Observed::Unreachable, Observed::PoweredOff] {
        let is_killed = |at_ms| {
            let step = departing(observed).at(at_ms).step();
            word(step.as_ref()) == "kill host departs"
        };
        assert!(!is_killed(UNTIL_MS - 1) && is_killed(UNTIL_MS), "{observed:?}");
    }
    let hangs = departing(Observed::Running).local(|local| local.doing = Some(Doing::Leave));
    hangs.clone().at(UNTIL_MS - 1).check("nothing");
    hangs.at(UNTIL_MS).check("kill host departs");
}

#[test]
fn nothing_is_started_where_a_host_is_shut_down() {
    Bench::placed().departing().check("nothing");
    let claimed = Bench::placed().written("claim starting");
    claimed.check("launch");
    claimed.departing().written("report stopped").check("nothing");
    let stopped = Bench::of(
        Cluster::of_hosts(2)
            .with_vm(1)
            .placed(1, 1)
            .says(1, ObservedState::Stopped),
    );
    stopped.check("claim starting");
    stopped.clone().departing().check("nothing");
    stopped
        .departing()
        .cluster(|cluster| cluster.booted(1))
        .check("claim starting");
}

#[test]
fn an_order_that_was_taken_is_carried_out_first() {
    let kind = OperationKind::Stop { force: false };
    let taken = Bench::running()
        .cluster(|cluster| cluster.with_operation(1, 1, kind))
        .written("take")
        .departing();
    taken.check("ask and stop");
    // A restart ends where the guest has powered off.
    let kind = OperationKind::Restart { force: false };
    let restarted = Bench::running()
        .cluster(|cluster| cluster.with_operation(1, 1, kind))
        .written("take running")
        .departing();
    restarted.check("ask and stop");
    let gone = restarted
        .seen(Observed::Gone(Ended::Stopped))
        .written("report stopped")
        .written("fail");
    assert_eq!(
        (gone.operation(1).as_str(), gone.power()),
        ("HOST_DEPARTS", PowerWanted::On)
    );
}
