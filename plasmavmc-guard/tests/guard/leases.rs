//! The deadline: what stops at it, what goes on after it, and by whose word.

use plasmavmc_guard::client::{CallError, Client};
use plasmavmc_guard::wire::{Cgroup, Event, ExitReason, Held, HeldLease, Key, LeaseStatus, Refusal};
use plasmavmc_types::{Epoch, Incarnation};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroups::{TestCgroup, writable_cgroup};
use crate::place::{Place, boottime_ms, eventually, next_event, next_exit, processes_naming, state};

const EPOCH: Epoch = Epoch::FIRST;

/// In the session whose lease the guard holds.
pub async fn thaw(client: &Client, key: Key) -> Result<Held, CallError> {
    let lease = client.status().await?.lease;
    client.thaw(key, lease.map_or(EPOCH, |lease| lease.epoch)).await
}

/// Sets the deadline from now on; returns when it is.
pub async fn lease_for(client: &Client, lease_ms: u64) -> u64 {
    let until_ms = boottime_ms() + lease_ms;
    client.lease(EPOCH, until_ms).await.expect("leased");
    until_ms
}

pub async fn is_stopped(pid: i32) {
    eventually("it is stopped", async || (state(pid) == Some('T')).then_some(())).await;
}

pub async fn is_going(pid: i32) {
    eventually("it goes on", async || (state(pid) != Some('T')).then_some(())).await;
}

fn frozen(held: &Held) -> Option<bool> {
    held.lease.map(|lease| lease.frozen)
}

fn is_lease_over<T>(outcome: &Result<T, CallError>) -> bool {
    matches!(outcome, Err(CallError::Refused(Refusal::LeaseOver { .. })))
}

#[tokio::test]
async fn at_the_deadline_what_is_leased_stops_and_nothing_else() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let until_ms = lease_for(&client, 700).await;
    let (leased, other) = (place.beating(), place.obedient());
    let held = client.spawn(leased.order.clone(), &[]).await.expect("spawned");
    let unleased = client.spawn(other.order.clone(), &[]).await.expect("spawned");
    assert_eq!((frozen(&held), frozen(&unleased)), (Some(false), None));
    let status = client.status().await.expect("a status");
    assert_eq!((status.leased, status.frozen), (1, 0));
    let lease = LeaseStatus {
        epoch: EPOCH,
        until_boottime_ms: until_ms,
    };
    assert_eq!(status.lease, Some(lease));
    leased.beats_at(until_ms - 300).await;

    let Event::Frozen(told) = next_event(&mut events).await else {
        panic!("another event");
    };
    assert!(boottime_ms() >= until_ms, "it was frozen before its time");
    let lease = HeldLease {
        incarnation: Incarnation::FIRST,
        frozen: true,
    };
    assert_eq!((told.key, told.lease), (held.key, Some(lease)));
    is_stopped(held.pid).await;
    let last_ms = leased.last_ms();
    assert!(last_ms < until_ms + 150, "{} ms late", last_ms - until_ms);
    assert_eq!(client.status().await.expect("a status").frozen, 1);
    other.exit(3);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 3 });
    // What is frozen dies of SIGKILL, and then nothing of it is frozen.
    client.kill(held.key).await.expect("killed");
    let (exited, exit) = next_exit(&mut events).await;
    assert_eq!((exit.reason, frozen(&exited)), (ExitReason::KilledOnOrder, Some(false)));
    assert_eq!(leased.last_ms(), last_ms);
}

#[tokio::test]
async fn a_lease_moves_the_deadline_on_and_an_earlier_session_cannot() {
    let place = Place::with_guard();
    let client = place.client();
    let first_ms = lease_for(&client, 600).await;
    let child = place.beating();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let second_ms = lease_for(&client, 1200).await;
    // The same session never takes back what it gave.
    client.lease(EPOCH, first_ms).await.expect("taken, to no effect");
    child.beats_at(first_ms + 200).await;
    is_stopped(held.pid).await;
    let last_ms = child.last_ms();
    assert!(last_ms < second_ms + 150, "{} ms late", last_ms - second_ms);

    let second = Epoch::from_raw(2);
    client.lease(second, boottime_ms() + 60_000).await.expect("leased");
    let refused = client.lease(EPOCH, boottime_ms() + 90_000).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::StaleEpoch { held })) if held == second),
        "{refused:?}"
    );
    thaw(&client, held.key).await.expect("thawed");
    child.beats_at(last_ms + 20).await;
    // A new session may take it back, at once.
    client.lease(Epoch::from_raw(3), 1).await.expect("leased");
    is_stopped(held.pid).await;
    // Nobody means an hour, or another clock.
    let refused = client.lease(Epoch::from_raw(4), u64::MAX).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::Invalid { .. }))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn only_a_thaw_with_the_deadline_ahead_lets_it_go_on() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.beating();
    // Nothing leased begins without a lease.
    let refused = client.spawn(child.order.clone(), &[]).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::NoLease))),
        "{refused:?}"
    );
    assert_eq!(processes_naming(&child.order.key.vm.to_string()), []);
    let until_ms = lease_for(&client, 300).await;
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    assert_eq!(
        frozen(&thaw(&client, held.key).await.expect("nothing to do")),
        Some(false)
    );
    is_stopped(held.pid).await;
    let refused = thaw(&client, held.key).await;
    assert!(is_lease_over(&refused), "{refused:?}");
    let last_ms = child.last_ms();
    assert!(last_ms < until_ms + 150, "{} ms late", last_ms - until_ms);

    lease_for(&client, 60_000).await;
    // A lease alone thaws nothing; a foreign SIGCONT neither, with the deadline ahead or not.
    assert_eq!(state(held.pid), Some('T'));
    let pid = Pid::from_raw(held.pid).expect("a pid");
    for _ in 0..5 {
        let sent_ms = boottime_ms();
        kill_process(pid, Signal::CONT).expect("SIGCONT");
        child.beats_at(sent_ms - sent_ms % 10).await;
        is_stopped(held.pid).await;
        let ran_ms = child.last_ms().saturating_sub(sent_ms);
        assert!(ran_ms < 250, "it ran for {ran_ms} ms");
    }
    for _ in 0..2 {
        assert_eq!(frozen(&thaw(&client, held.key).await.expect("thawed")), Some(false));
    }
    child.beats_at(boottime_ms()).await;
    assert_eq!(client.status().await.expect("a status").frozen, 0);
    let unleased = client.spawn(place.script("exit 0"), &[]).await.expect("spawned");
    assert_eq!(thaw(&client, unleased.key).await.expect("nothing to do").lease, None);
}

#[tokio::test]
async fn a_hundred_freeze_at_once() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    lease_for(&client, 60_000).await;
    let mut pids = Vec::new();
    for _ in 0..100 {
        let order = place.leased(1, &[]).order;
        pids.push(client.spawn(order, &[]).await.expect("spawned").pid);
    }
    let until_ms = boottime_ms() + 300;
    client.lease(Epoch::from_raw(2), until_ms).await.expect("leased");
    for _ in 0..100 {
        let event = next_event(&mut events).await;
        assert!(matches!(event, Event::Frozen(_)), "{event:?}");
    }
    // One that was waiting for its turn takes the signal before it executes anything, when its turn comes.
    for pid in pids {
        is_stopped(pid).await;
    }
    let late_ms = boottime_ms().saturating_sub(until_ms);
    println!("100 children frozen and told of {late_ms} ms after the deadline");
    assert!(late_ms < 200, "{late_ms} ms late");
}

#[tokio::test]
async fn a_cgroup_is_frozen_and_opened_with_its_child() {
    let Some(root) = writable_cgroup() else { return };
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    lease_for(&client, 300).await;
    let child = place.beating();
    let mut order = child.order.clone();
    let folder = format!("{root}/plasmavmc-test-{}", order.key.vm);
    order.cgroup = Some(Cgroup {
        folder: folder.clone(),
        cpu_weight: None,
        memory_max: None,
    });
    let held = client.spawn(order, &[]).await.expect("spawned");
    let freeze = || std::fs::read_to_string(format!("{folder}/cgroup.freeze")).expect("its state");
    assert_eq!(freeze(), "0\n");
    next_event(&mut events).await;
    // Whoever opens it finds it stopped by the signal, and at the next tick frozen again.
    for _ in 0..2 {
        eventually("it is frozen", async || (freeze() == "1\n").then_some(())).await;
        std::fs::write(format!("{folder}/cgroup.freeze"), "0").expect("opened");
        assert_eq!(state(held.pid), Some('T'));
    }
    lease_for(&client, 60_000).await;
    thaw(&client, held.key).await.expect("thawed");
    assert_eq!(freeze(), "0\n");
    child.beats_at(boottime_ms()).await;
    client.lease(Epoch::from_raw(2), 1).await.expect("leased");
    eventually("it is frozen", async || (freeze() == "1\n").then_some(())).await;
    client.kill(held.key).await.expect("killed");
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::KilledOnOrder);
    client.collect(held.key).await.expect("collected");
    assert!(!std::fs::exists(&folder).expect("a look"), "{folder} is left");
}

/// Its lease runs out while its launcher stands still, as one on a dead mount would.
#[tokio::test]
async fn a_launch_that_outlasts_the_lease_executes_nothing() {
    let Some(root) = writable_cgroup() else { return };
    let frozen = TestCgroup::frozen(&root);
    let place = Place::with_guard();
    let client = place.client();
    let until_ms = lease_for(&client, 300).await;
    let mut order = place.beating().order;
    let beats = place.path().join(format!("{}.beats", order.key.vm));
    order.cgroup = Some(Cgroup {
        folder: frozen.folder(),
        cpu_weight: None,
        memory_max: None,
    });
    let (refused, ()) = tokio::join!(client.spawn(order, &[]), async {
        eventually("its lease is over", async || (boottime_ms() > until_ms).then_some(())).await;
        frozen.set_frozen(false);
    });
    assert!(is_lease_over(&refused), "{refused:?}");
    assert!(!std::fs::exists(beats).expect("a look"));
    assert_eq!(place.records(), Vec::<String>::new());
}

#[tokio::test]
async fn an_order_to_thaw_of_an_earlier_session_comes_too_late() {
    let place = Place::with_guard();
    let client = place.client();
    lease_for(&client, 60_000).await;
    let child = place.beating();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    client.lease(Epoch::from_raw(2), 1).await.expect("over at once");
    is_stopped(held.pid).await;
    let later = Epoch::from_raw(3);
    client.lease(later, boottime_ms() + 60_000).await.expect("leased");
    let late = client.thaw(held.key, Epoch::from_raw(2)).await;
    assert!(
        matches!(late, Err(CallError::Refused(Refusal::StaleEpoch { held })) if held == later),
        "{late:?}"
    );
    assert_eq!(state(held.pid), Some('T'));
    client.thaw(held.key, later).await.expect("thawed");
    is_going(held.pid).await;
}
