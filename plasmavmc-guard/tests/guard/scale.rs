//! Two hundred children: how fast an exit is noticed, and what the guard costs.

use std::fs;
use std::time::{Duration, Instant};

use plasmavmc_guard::wire::ExitReason;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, eventually, next_exit};

const CHILDREN: usize = 200;

fn open_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count()
}

fn memory_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn two_hundred_children_are_held_cheaply_and_their_ends_noticed_at_once() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let guard = client.status().await.expect("a status").pid;
    let before = open_descriptors(guard);
    let began = Instant::now();
    let mut held = Vec::new();
    for _ in 0..CHILDREN {
        let child = place.obedient();
        held.push(client.spawn(child.order.clone(), &[]).await.expect("spawned"));
    }
    let spawn_ms = began.elapsed().as_millis() / CHILDREN as u128;
    assert_eq!(client.list().await.expect("a list").len(), CHILDREN);
    // A pidfd a child and nothing else.
    assert_eq!(open_descriptors(guard), before + CHILDREN);
    client.upgrade(None).await.expect("upgraded");

    let mut delays = Vec::new();
    let half = CHILDREN / 2;
    for child in &held[..half] {
        let began = Instant::now();
        kill_process(Pid::from_raw(child.pid).expect("a pid"), Signal::KILL).expect("SIGKILL");
        let (exited, exit) = next_exit(&mut events).await;
        delays.push(began.elapsed());
        assert_eq!(exited.key, child.key);
        assert!(
            matches!(exit.reason, ExitReason::Signalled { signal: 9, .. }),
            "{exit:?}"
        );
    }
    // And all the others at the same moment.
    let began = Instant::now();
    for child in &held[half..] {
        kill_process(Pid::from_raw(child.pid).expect("a pid"), Signal::KILL).expect("SIGKILL");
    }
    for _ in half..CHILDREN {
        next_exit(&mut events).await;
    }
    let burst = began.elapsed();
    delays.sort_unstable();
    let p99 = delays[delays.len() * 99 / 100];
    for child in &held {
        client.collect(child.key).await.expect("collected");
    }
    eventually("every descriptor is closed", async || {
        (open_descriptors(guard) == before).then_some(())
    })
    .await;
    let memory = memory_kb(guard);
    println!(
        "{CHILDREN} children: spawn {spawn_ms} ms each, exit noticed p99 {p99:?}, {half} exits at once {burst:?}, \
         guard at most {memory} kB"
    );
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
    assert!(memory < 10 * 1024, "{memory} kB");
    assert_eq!(place.records(), Vec::<String>::new());
}
