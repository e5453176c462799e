//! A guard dies, and the next one finds out what is left.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::{ExitReason, Phase, Refusal, Stale};
use rand::RngExt;
use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Place, ends_soon, eventually, new_key, next_exit, processes_naming};

#[tokio::test]
async fn what_runs_is_adopted_and_what_was_known_is_kept() {
    let mut place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let (runs, killed, ended) = (place.obedient(), place.obedient(), place.obedient());
    for child in [&runs, &killed, &ended] {
        client.spawn(child.order.clone(), &[]).await.expect("spawned");
    }
    ended.exit(5);
    let (ended, _) = next_exit(&mut events).await;
    place.kill_guard();
    assert_eq!(events.next().await, None, "the subscription ends with its guard");
    assert!(matches!(
        client.list().await,
        Err(CallError::NotSent(_) | CallError::Unanswered)
    ));

    place.start_guard(&[]);
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    for held in client.list().await.expect("a list") {
        match held.key == ended.key {
            true => assert_eq!(held, ended),
            false => assert_eq!(held.phase, Phase::Adopted),
        }
    }
    let refused = client
        .spawn(runs.order.clone(), &[])
        .await
        .expect("the same attempt is the same child");
    assert_eq!(refused.phase, Phase::Adopted);
    runs.exit(0);
    let (_, exit) = next_exit(&mut events).await;
    assert_eq!(exit.reason, ExitReason::Unknown { kill_ordered: false });
    client.kill(killed.key()).await.expect("killed");
    let (_, exit) = next_exit(&mut events).await;
    assert_eq!(exit.reason, ExitReason::Unknown { kill_ordered: true });
    for key in [runs.key(), killed.key(), ended.key] {
        client.collect(key).await.expect("collected");
    }
    assert_eq!(place.records(), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_that_fits_no_process_is_dropped_and_reported() {
    type Forge = fn(&mut Value);
    let forgeries: [(Forge, &str); 7] = [
        (
            |record| record["start_ticks"] = (record["start_ticks"].as_u64().unwrap_or(0) + 1).into(),
            "another process",
        ),
        (|record| record["boot_id"] = "another".into(), "another boot"),
        (|record| record["pid"] = 1.into(), "another process"),
        (|record| record["pid"] = 0.into(), "is no pid"),
        (|record| record["pid"] = (1 << 29).into(), "is gone"),
        (|record| record["v"] = 2.into(), "version 2"),
        (|record| *record = Value::Null, "not a record"),
    ];
    let mut place = Place::with_guard();
    for (forge, expected) in forgeries {
        let client = place.client();
        let child = place.obedient();
        let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
        let pidfd = client.pidfd(child.key()).await.expect("a pidfd");
        place.kill_guard();
        let path = place.folder().join(format!("children/{}.json", child.key().vm));
        let mut record = serde_json::from_slice(&fs::read(&path).expect("a record")).expect("JSON");
        forge(&mut record);
        fs::write(&path, record.to_string()).expect("forged");
        place.start_guard(&[]);
        let client = place.client();
        assert_eq!(client.list().await.expect("a list"), []);
        let stale = client.status().await.expect("a status").stale;
        assert!(
            matches!(&stale[..], [Stale { reason, .. }] if reason.contains(expected)),
            "{expected}: {stale:?}"
        );
        assert_eq!(place.records(), Vec::<String>::new());
        // Whatever the record said, nobody was killed for it.
        assert!(fs::exists(format!("/proc/{}", held.pid)).expect("a look"));
        child.exit(0);
        assert!(ends_soon(&pidfd));
    }
}

/// As a QEMU that the kernel is taking apart, or one that is being executed on a starved host. What the kernel
/// runs for itself has no command line either, and stays.
#[tokio::test]
async fn a_process_that_lives_and_shows_no_command_line_is_not_called_gone() {
    let kernel_thread = 2;
    let Ok(stat) = fs::read_to_string(format!("/proc/{kernel_thread}/stat")) else {
        return;
    };
    if !stat.contains("(kthreadd)") {
        return;
    }
    let mut place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let pidfd = client.pidfd(child.key()).await.expect("a pidfd");
    place.kill_guard();
    let path = place.folder().join(format!("children/{}.json", child.key().vm));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).expect("a record")).expect("JSON");
    record["pid"] = kernel_thread.into();
    let started = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(22 - 3));
    record["start_ticks"] = started.and_then(|ticks| ticks.parse::<u64>().ok()).into();
    fs::write(&path, record.to_string()).expect("forged");
    place.start_guard(&[]);
    let held = place.client().list().await.expect("a list");
    assert_eq!(held.iter().map(|held| held.pid).collect::<Vec<_>>(), [kernel_thread]);
    child.exit(0);
    assert!(ends_soon(&pidfd));
}

#[tokio::test]
async fn a_record_of_another_vms_process_is_not_believed() {
    let mut place = Place::with_guard();
    let child = place.obedient();
    place.client().spawn(child.order.clone(), &[]).await.expect("spawned");
    place.kill_guard();
    let folder = place.folder().join("children");
    let record = fs::read_to_string(folder.join(format!("{}.json", child.key().vm))).expect("a record");
    // Pid and start time are right; the VM is not.
    let stranger = new_key().vm.to_string();
    let forged = record.replace(&child.key().vm.to_string(), &stranger);
    fs::write(folder.join(format!("{stranger}.json")), forged).expect("forged");
    fs::write(folder.join("half-written.json.new"), "{").expect("left behind");
    place.start_guard(&[]);
    let status = place.client().status().await.expect("a status");
    assert_eq!(status.children, 1);
    assert!(
        status.stale[0].reason.contains("does not name the VM"),
        "{:?}",
        status.stale
    );
    assert_eq!(place.records(), [format!("{}.json", child.key().vm)]);
}

#[tokio::test]
async fn the_second_guard_of_a_folder_refuses() {
    let mut place = Place::with_guard();
    let second = place
        .run_guard(crate::place::PROGRAM, &[])
        .expect("it runs")
        .wait()
        .expect("its end");
    assert_eq!(second.code(), Some(3));
    assert!(
        place.log().contains("another guard holds this folder"),
        "{}",
        place.log()
    );
    place.client().status().await.expect("the first one serves");
    // A dead one holds nothing, whatever it left lying.
    place.kill_guard();
    place.start_guard(&[]);
}

/// Fifty times at a random moment of a stream of spawns, kills and collects. Afterwards every process that
/// executes a program is held by the next guard, and every VM that a guard said runs is one of them.
#[tokio::test]
async fn no_process_escapes_however_often_the_guard_is_killed() {
    let mut place = Place::with_guard();
    let mut adopted = 0;
    for round in 0..50 {
        let client = place.client();
        let children: Vec<_> = (0..4).map(|_| place.obedient()).collect();
        let orders: Vec<_> = children
            .iter()
            .map(|child| (child.key(), child.order.clone()))
            .collect();
        let stream = tokio::spawn({
            let client = client.clone();
            async move {
                let mut said_to_run = Vec::new();
                for (key, order) in orders {
                    let outcome = client.spawn(order, &[]).await;
                    let refused = matches!(outcome, Err(CallError::Refused(Refusal::Launch { .. })));
                    assert!(!refused, "{outcome:?}");
                    said_to_run.extend(outcome.is_ok().then_some(key));
                }
                said_to_run
            }
        });
        let random_delay = || Duration::from_micros(rand::rng().random_range(0..8_000));
        tokio::time::sleep(random_delay()).await;
        // Every other time while it may be replacing its program.
        if round % 2 == 1 {
            place.signal_guard(Signal::HUP);
            tokio::time::sleep(random_delay()).await;
        }
        place.kill_guard();
        let said_to_run: BTreeSet<_> = stream.await.expect("it ends").into_iter().collect();
        place.start_guard(&[]);
        let client = place.client();
        let mut events = client.subscribe().await.expect("a subscription");
        // A launcher that was not told to go is on its way out; what stays is held.
        let held: BTreeSet<_> = eventually("launchers are gone", async || {
            let list = client.list().await.expect("a list");
            let running = list.iter().filter(|held| !held.phase.is_exited()).map(|held| held.pid);
            let running: BTreeSet<i32> = running.collect();
            let found = children
                .iter()
                .flat_map(|child| processes_naming(&child.key().vm.to_string()));
            let found: BTreeSet<i32> = found.map(|pid| pid.as_raw_nonzero().get()).collect();
            (found == running).then(|| list.into_iter().map(|held| held.key).collect())
        })
        .await;
        assert!(held.is_superset(&said_to_run), "a process that ran is not held");
        for held in client.list().await.expect("a list") {
            if !held.phase.is_exited() {
                adopted += 1;
                client.kill(held.key).await.expect("killed");
            }
        }
        eventually("everything is collected", async || {
            for held in client.list().await.expect("a list") {
                if held.phase.is_exited() {
                    client.collect(held.key).await.expect("collected");
                }
            }
            client.list().await.expect("a list").is_empty().then_some(())
        })
        .await;
        drop(events.next());
    }
    // Else it was killed always too early or too late to prove anything.
    assert!((10..200).contains(&adopted), "{adopted} adopted");
    println!("adopted after 50 kills: {adopted} of 200");
}

#[tokio::test]
async fn sigterm_does_not_orphan_what_runs() {
    let mut place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    place.signal_guard(Signal::TERM);
    let refused = client.stop(false).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::StillHolding { children: 1 }))),
        "{refused:?}"
    );
    eventually("it says why", async || {
        place.log().contains("does not end on SIGTERM").then_some(())
    })
    .await;
    // Told to leave it running, it goes, and the next one takes it over.
    client.stop(true).await.expect("it ends");
    assert!(place.guard_ends().success());
    place.start_guard(&["--leave-running"]);
    let list = place.client().list().await.expect("a list");
    assert_eq!(list[0].phase, Phase::Adopted);
    place.signal_guard(Signal::TERM);
    assert!(place.guard_ends().success());
    assert_eq!(processes_naming(&child.key().vm.to_string()).len(), 1);
    // One that holds nothing that runs ends at once; what it knows stays in its records.
    place.start_guard(&[]);
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    child.exit(0);
    next_exit(&mut events).await;
    place.signal_guard(Signal::TERM);
    assert!(place.guard_ends().success());
    assert_eq!(place.records().len(), 1);
}
