//! What is leased, when its guard dies or becomes another program.

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::{Cgroup, Event, ExitReason, Phase, Refusal};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cgroups::{TestCgroup, writable_cgroup};
use crate::leases::{is_going, is_stopped, lease_for, thaw};
use crate::place::{Place, boottime_ms, eventually, next_event, next_exit, processes_naming, state};

#[tokio::test]
async fn a_guards_death_stops_what_is_leased_and_the_next_one_keeps_it_so() {
    let mut place = Place::with_guard();
    let client = place.client();
    lease_for(&client, 60_000).await;
    let (leased, other) = (place.beating(), place.obedient());
    let held = client.spawn(leased.order.clone(), &[]).await.expect("spawned");
    let unleased = client.spawn(other.order.clone(), &[]).await.expect("spawned");
    leased.beats_at(boottime_ms()).await;
    place.kill_guard();
    // By the kernel alone.
    is_stopped(held.pid).await;
    assert_ne!(state(unleased.pid), Some('T'));
    // Even where the kernel missed it, or somebody meddled meanwhile.
    kill_process(Pid::from_raw(held.pid).expect("a pid"), Signal::CONT).expect("SIGCONT");
    is_going(held.pid).await;

    place.start_guard(&[]);
    is_stopped(held.pid).await;
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let status = client.status().await.expect("a status");
    assert_eq!((status.lease, status.leased, status.frozen), (None, 1, 1));
    let list = client.list().await.expect("a list");
    let adopted = list.iter().find(|child| child.key == held.key).expect("it is held");
    let lease = adopted.lease.expect("it is leased");
    assert_eq!((&adopted.phase, lease.frozen), (&Phase::Adopted, true));
    let refused = thaw(&client, held.key).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::NoLease))),
        "{refused:?}"
    );
    other.exit(0);
    let unknown = ExitReason::Unknown { kill_ordered: false };
    assert_eq!(next_exit(&mut events).await.1.reason, unknown);

    let until_ms = lease_for(&client, 800).await;
    thaw(&client, held.key).await.expect("thawed");
    leased.beats_at(boottime_ms()).await;
    // The deadline holds for what was adopted, too.
    let event = next_event(&mut events).await;
    assert!(
        matches!(&event, Event::Frozen(frozen) if frozen.key == held.key),
        "{event:?}"
    );
    is_stopped(held.pid).await;
    let last_ms = leased.last_ms();
    assert!(last_ms < until_ms + 150, "{} ms late", last_ms - until_ms);
    client.kill(held.key).await.expect("killed");
    let unknown = ExitReason::Unknown { kill_ordered: true };
    assert_eq!(next_exit(&mut events).await.1.reason, unknown);
}

#[tokio::test]
async fn the_record_tells_what_is_leased_and_what_is_frozen() {
    let mut place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    lease_for(&client, 400).await;
    let claims = place.path().join("7.claims");
    let child = place.leased(7, &[&claims]);
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let path = place.folder().join(format!("children/{}.json", child.key().vm));
    let record = || -> Value { serde_json::from_slice(&std::fs::read(&path).expect("a record")).expect("JSON") };
    let expected = |frozen| serde_json::json!({"incarnation": 7, "claims": [claims], "frozen": frozen});
    assert_eq!(record()["lease"], expected(false));
    next_event(&mut events).await;
    assert_eq!(record()["lease"], expected(true));
    // One that a release without leases wrote is of a child that the deadline does not concern.
    place.kill_guard();
    let mut old = record();
    old.as_object_mut().expect("an object").remove("lease");
    std::fs::write(&path, old.to_string()).expect("written");
    place.start_guard(&[]);
    let list = place.client().list().await.expect("a list");
    assert_eq!((list.len(), list[0].lease), (1, None));
}

#[tokio::test]
async fn a_new_program_keeps_the_deadline_and_what_is_frozen() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let until_ms = lease_for(&client, 1500).await;
    let child = place.beating();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let before = client.status().await.expect("a status").lease;
    client.upgrade(None).await.expect("upgraded");
    assert_eq!(client.status().await.expect("a status").lease, before);
    child.beats_at(boottime_ms()).await;
    let event = next_event(&mut events).await;
    assert!(matches!(event, Event::Frozen(_)), "{event:?}");
    let now_ms = boottime_ms();
    assert!(now_ms >= until_ms, "it stopped {} ms too early", until_ms - now_ms);
    is_stopped(held.pid).await;
    let last_ms = child.last_ms();
    assert!(last_ms < until_ms + 150, "{} ms late", last_ms - until_ms);

    client.upgrade(None).await.expect("upgraded");
    let status = client.status().await.expect("a status");
    assert_eq!((status.upgrades, status.leased, status.frozen), (2, 1, 1));
    let sent_ms = boottime_ms();
    kill_process(Pid::from_raw(held.pid).expect("a pid"), Signal::CONT).expect("SIGCONT");
    child.beats_at(sent_ms - sent_ms % 10).await;
    is_stopped(held.pid).await;
    lease_for(&client, 60_000).await;
    thaw(&client, held.key).await.expect("thawed");
    client.upgrade(None).await.expect("upgraded");
    child.beats_at(boottime_ms()).await;
    assert_eq!(client.status().await.expect("a status").frozen, 0);
}

/// While a launch settles before an upgrade, orders wait. One that stands still must not cost anybody the lease.
#[tokio::test]
async fn an_upgrade_that_has_to_wait_gives_way_to_the_lease() {
    let Some(root) = writable_cgroup() else { return };
    let cgroup = TestCgroup::frozen(&root);
    let place = Place::with_guard();
    let client = place.client();
    let until_ms = lease_for(&client, 2500).await;
    let child = place.beating();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let mut hanging = place.script("exit 0");
    hanging.cgroup = Some(Cgroup {
        folder: cgroup.folder(),
        cpu_weight: None,
        memory_max: None,
    });
    let key = hanging.key;
    let launch = tokio::spawn({
        let client = client.clone();
        async move { client.spawn(hanging, &[]).await }
    });
    eventually("it is under way", async || {
        let list = client.list().await.expect("a list");
        list.into_iter().find(|held| held.key == key)
    })
    .await;
    let refused = client.upgrade(None).await;
    // What waited in the sockets meanwhile is served in time.
    lease_for(&client, 60_000).await;
    match refused {
        Err(CallError::Refused(Refusal::NotUpgraded { problem })) => assert!(problem.contains("lease"), "{problem}"),
        other => panic!("{other:?}"),
    }
    child.beats_at(until_ms + 200).await;
    assert_ne!(state(held.pid), Some('T'));
    cgroup.set_frozen(false);
    launch.await.expect("it ends").expect("spawned");
}

/// The kernel stops a child with the guard that started it, and with no other.
#[tokio::test]
async fn what_was_adopted_stops_with_every_later_guard_too() {
    let mut place = Place::with_guard();
    let client = place.client();
    lease_for(&client, 60_000).await;
    let child = place.beating();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    place.kill_guard();
    let sentinels = |place: &Place| -> Vec<Pid> {
        let found = processes_naming(&place.folder().display().to_string()).into_iter();
        found.filter(|pid| is_sentinel(*pid)).collect()
    };
    for round in 0..3 {
        is_stopped(held.pid).await;
        place.start_guard(&[]);
        let client = place.client();
        lease_for(&client, 60_000).await;
        thaw(&client, held.key).await.expect("thawed");
        child.beats_at(boottime_ms()).await;
        match round {
            0 => client.upgrade(None).await.expect("upgraded"),
            1 => {
                // One that is killed has a successor, without whom nothing adopted is let go.
                let [first] = sentinels(&place)[..] else {
                    panic!("not one sentinel: {:?}", sentinels(&place));
                };
                kill_process(first, Signal::KILL).expect("SIGKILL");
                eventually("there is another", async || {
                    sentinels(&place).iter().any(|pid| *pid != first).then_some(())
                })
                .await;
            }
            _ => {}
        }
        assert_ne!(state(held.pid), Some('T'));
        place.kill_guard();
    }
    is_stopped(held.pid).await;
    let none = async || sentinels(&place).is_empty().then_some(());
    eventually("no sentinel is left", none).await;
}

fn is_sentinel(pid: Pid) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("stop-on-death")
}
