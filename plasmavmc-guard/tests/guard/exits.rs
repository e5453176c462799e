//! How an end is told, and by which name a child is known.

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::{ExitReason, Key, Phase, Refusal};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, ends_soon, new_key, next_exit};

#[tokio::test]
async fn every_end_is_told_with_its_reason() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    type End = fn(&crate::place::Obedient, Pid);
    let cases: [(End, ExitReason); 4] = [
        (|child, _| child.exit(0), ExitReason::Exited { code: 0 }),
        (|child, _| child.exit(255), ExitReason::Exited { code: 255 }),
        (
            |_, pid| kill_process(pid, Signal::KILL).expect("SIGKILL"),
            ExitReason::Signalled {
                signal: 9,
                core_dumped: false,
            },
        ),
        (
            |_, pid| kill_process(pid, Signal::SEGV).expect("SIGSEGV"),
            ExitReason::Signalled {
                signal: 11,
                core_dumped: false,
            },
        ),
    ];
    for (end, expected) in cases {
        let child = place.obedient();
        let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
        end(&child, Pid::from_raw(held.pid).expect("a pid"));
        let (exited, exit) = next_exit(&mut events).await;
        assert_eq!((exited.key, exit.reason), (child.key(), expected));
        assert_eq!(client.list().await.expect("a list"), std::slice::from_ref(&exited));
        assert_eq!(client.collect(child.key()).await.expect("collected"), exited);
        assert_eq!(client.list().await.expect("a list"), []);
    }
    let child = place.obedient();
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    client.kill(child.key()).await.expect("killed");
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::KilledOnOrder);
}

#[tokio::test]
async fn an_order_for_another_attempt_hits_nothing() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let other = Key {
        attempt: new_key().attempt,
        ..child.key()
    };
    for outcome in [
        client.kill(other).await.map(drop),
        client.collect(other).await.map(drop),
        client.pidfd(other).await.map(drop),
    ] {
        match outcome {
            Err(CallError::Refused(Refusal::Unknown { key, instead })) => {
                assert_eq!((key, instead), (other, Some(Box::new(held.clone()))));
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = client.collect(child.key()).await;
    assert!(
        matches!(refused, Err(CallError::Refused(Refusal::StillRunning(_)))),
        "{refused:?}"
    );
    let list = client.list().await.expect("a list");
    assert_eq!((list.len(), &list[0].phase), (1, &Phase::Running));
}

#[tokio::test]
async fn a_client_can_watch_a_child_itself() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let pidfd = client.pidfd(child.key()).await.expect("a pidfd");
    child.exit(0);
    assert!(ends_soon(&pidfd));
}

#[tokio::test]
async fn every_subscriber_is_told_and_nobody_else() {
    let place = Place::with_guard();
    let (first, second, third) = (place.client(), place.client(), place.client());
    let mut told = first.subscribe().await.expect("a subscription");
    let mut also_told = second.subscribe().await.expect("a subscription");
    let child = place.obedient();
    third.spawn(child.order.clone(), &[]).await.expect("spawned");
    // Its client goes away; the child does not care.
    drop(third);
    child.exit(4);
    let reason = ExitReason::Exited { code: 4 };
    assert_eq!(next_exit(&mut told).await.1.reason, reason);
    assert_eq!(next_exit(&mut also_told).await.1.reason, reason);
}
