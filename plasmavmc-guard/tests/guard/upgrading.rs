//! The guard replaces its program and nobody notices.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::{ExitReason, Phase, Refusal};
use rustix::process::Signal;

use crate::place::{PROGRAM, Place, eventually, next_exit};

#[tokio::test]
async fn children_clients_and_exit_status_survive_a_new_program() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let (runs, ended) = (place.obedient(), place.obedient());
    let held = client.spawn(runs.order.clone(), &[]).await.expect("spawned");
    client.spawn(ended.order.clone(), &[]).await.expect("spawned");
    ended.exit(5);
    let (ended, _) = next_exit(&mut events).await;
    let before = client.status().await.expect("a status");
    // Another file, as an installation would leave it.
    let newer = place.path().join("newer");
    fs::copy(PROGRAM, &newer).expect("a copy");
    for (count, program) in [(1, Some(newer.display().to_string())), (2, None)] {
        client.upgrade(program).await.expect("upgraded");
        let after = client.status().await.expect("a status");
        assert_eq!((after.pid, after.upgrades, after.children), (before.pid, count, 2));
        let running = fs::read_link(format!("/proc/{}/exe", after.pid)).expect("its program");
        assert_eq!(running, newer.canonicalize().expect("a path"));
    }
    let mut list = client.list().await.expect("a list");
    list.sort_by_key(|held| held.phase.is_exited());
    assert_eq!(list, [held, ended.clone()]);
    // The subscription stands, and the status of a child of the first program is known to the third.
    runs.exit(6);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 6 });
    client.collect(ended.key).await.expect("collected");
    // What it was started with is what it hands on, not what it raised for itself.
    let status = fs::read_to_string(format!("/proc/{}/status", before.pid)).expect("its status");
    assert!(status.contains("Threads:\t1\n"), "{status}");
}

#[tokio::test]
async fn what_cannot_take_over_is_refused_and_the_guard_goes_on() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let script = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
        path.display().to_string()
    };
    // The last one passes the check and is gone when it is to be executed.
    let programs = [
        ("/bin/true".to_owned(), "does not understand"),
        ("true".to_owned(), "is not an absolute path"),
        ("/no/such".to_owned(), "cannot be started"),
        (
            script("hangs", "#!/bin/sh\nexec cat \"$0\" /dev/zero > /dev/null\n"),
            "took too long",
        ),
        (script("gone", "#!/bin/sh\nrm \"$0\"; exit 113\n"), "No such file"),
    ];
    let mut events = client.subscribe().await.expect("a subscription");
    for (program, expected) in programs {
        match client.upgrade(Some(program)).await {
            Err(CallError::Refused(Refusal::NotUpgraded { problem })) => {
                assert!(problem.contains(expected), "{problem}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        let status = client.status().await.expect("a status");
        assert_eq!((status.upgrades, status.last_upgrade_problem.is_some()), (0, true));
    }
    client.upgrade(None).await.expect("it still can");
    child.exit(9);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 9 });
}

#[tokio::test]
async fn an_upgrade_under_load_loses_no_child_no_answer_and_no_exit() {
    const CHILDREN: usize = 60;
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let children: Vec<_> = (0..CHILDREN).map(|_| place.obedient()).collect();
    let signalling = async {
        // Without a pause: many of them meet a program that has no handlers yet.
        let probe = place.client();
        eventually("eight upgrades", async || {
            for _ in 0..2000 {
                place.signal_guard(Signal::HUP);
                tokio::task::yield_now().await;
            }
            let status = probe.status().await.expect("a status");
            assert_eq!(status.last_upgrade_problem, None);
            (status.upgrades >= 8).then_some(())
        })
        .await;
    };
    let spawning = async {
        for children in children.chunks(6) {
            let spawned = children.iter().map(|child| client.spawn(child.order.clone(), &[]));
            for held in join_all(spawned).await {
                assert_eq!(held.expect("spawned").phase, Phase::Running);
            }
        }
    };
    tokio::join!(signalling, spawning);
    for (code, child) in children.iter().enumerate() {
        child.exit(u8::try_from(code).expect("a small number"));
    }
    let mut codes = Vec::new();
    for _ in 0..CHILDREN {
        match next_exit(&mut events).await.1.reason {
            ExitReason::Exited { code } => codes.push(usize::try_from(code).expect("a code")),
            other => panic!("{other:?}"),
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, (0..CHILDREN).collect::<Vec<_>>());
    assert!(client.status().await.expect("a status").upgrades >= 8);
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, done) in &mut pending {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match pending.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, done)| done).collect()
}
