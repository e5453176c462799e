use plasmavmc_types::OperationKind;

use super::*;

const PLENTY: OwnLease = OwnLease {
    left_ms: 3000,
    voters: 3,
};

impl Bench {
    fn lease(mut self, left_ms: u64) -> Self {
        self.lease = OwnLease { left_ms, ..PLENTY };
        self
    }

    /// A leased VM of attempt 1 in this state, as it is stored and as it is seen.
    fn leased(stored: ObservedState, seen: Observed) -> Self {
        let cluster = Cluster::of_hosts(3).with_vm(1).placed(1, 1).says_of(1, |fields| {
            fields.leased = true;
            fields.process = Some(process());
            fields.state = stored;
        });
        Self::of(cluster).seen(seen).lease(PLENTY.left_ms).local(|local| {
            if let Some(machine) = &mut local.machine {
                machine.leased = true;
            }
        })
    }
}

#[test]
fn a_claim_says_whether_the_vm_is_leased() {
    let claimed = |bench: Bench| {
        let bench = bench.written("claim starting");
        bench.view().vms[&vm_id(1)].status.as_ref().unwrap().value.leased
    };
    assert!(claimed(Bench::placed().lease(3000)));
    let mut two = Bench::placed().lease(3000);
    two.lease.voters = 2;
    assert!(!claimed(two));
}

#[test]
fn nothing_leased_is_started_without_a_lease() {
    let claimed = Bench::placed().lease(0).written("claim starting");
    claimed.check("retry in 250 ms");
    claimed.clone().lease(1000).check("retry in 250 ms");
    claimed.lease(1001).check("launch");
    let prepared = Bench::leased(ObservedState::Starting, Observed::Prepared);
    prepared.clone().lease(1000).check("retry in 250 ms");
    prepared.lease(1001).check("cont");
}

#[test]
fn what_is_leased_is_frozen_in_time_whatever_else_there_is() {
    let running = || Bench::leased(ObservedState::Running, Observed::Running);
    running().lease(301).check("nothing");
    running().lease(300).check("freeze");
    running()
        .lease(0)
        .local(|local| local.is_writing = true)
        .check("freeze");
    running()
        .lease(0)
        .local(|local| local.doing = Some(Doing::Cont))
        .check("freeze");
    running()
        .lease(0)
        .local(|local| local.seen_revision = 1_000_000)
        .check("freeze");
    let mut lost = running().lease(0);
    lost.is_session_lost = true;
    lost.check("freeze");
    let freezing = running()
        .lease(0)
        .local(|local| local.holding = Some(Holding::Freezing));
    freezing.check("nothing");
    let free = running()
        .lease(0)
        .local(|local| local.machine.as_mut().unwrap().leased = false);
    free.check("nothing");
}

#[test]
fn a_frozen_vm_is_thawed_only_where_it_is_still_this_hosts() {
    let frozen = || Bench::leased(ObservedState::Running, Observed::Frozen);
    frozen().check("thaw");
    frozen().lease(1000).check("report frozen");
    frozen()
        .local(|local| local.holding = Some(Holding::Thawing))
        .check("report frozen");
    frozen()
        .cluster(|cluster| cluster.placed(1, 2))
        .check("kill superseded");
    frozen()
        .cluster(|cluster| cluster.placed(1, 1))
        .check("kill superseded");
    frozen().cluster(|cluster| cluster.deleted(1)).check("kill deleted");
    let mut lost = frozen();
    lost.is_session_lost = true;
    lost.check("nothing");
    let forgotten = frozen().cluster(|mut cluster| {
        cluster.view.vms.clear();
        cluster
    });
    forgotten.check("nothing");
}

#[test]
fn an_order_at_a_frozen_vm_waits_and_a_forced_one_does_not() {
    let ordered = |kind| {
        Bench::leased(ObservedState::Frozen, Observed::Frozen)
            .lease(0)
            .cluster(|cluster| cluster.with_operation(1, 1, kind))
    };
    ordered(OperationKind::Stop { force: false }).check("nothing");
    ordered(OperationKind::Pause).check("nothing");
    ordered(OperationKind::Stop { force: true })
        .written("take")
        .check("kill ordered");
}
