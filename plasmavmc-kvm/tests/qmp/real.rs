//! What QEMU 7.2 and later really do.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use plasmavmc_kvm::qmp::{CloseReason, ConnectError, ErrorClass, EventsError, QmpError, Schema, connect};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::qemu::{Qemu, SOON};

const SHORT: Duration = Duration::from_millis(300);

/// Small and quick.
fn paused() -> Qemu {
    Qemu::start_in(tempfile::tempdir().unwrap(), &["-S", "-m", "16"])
}

fn null_device() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[tokio::test]
async fn a_paused_qemu_greets_and_tells_its_state() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    assert!(qmp.greeting().version >= (7, 2, 0), "{:?}", qmp.greeting());
    assert!(qmp.has_oob());
    assert_eq!(qmp.peer_pid(), Some(qemu.pid().as_raw_nonzero().get()));
    let status = qmp.execute(&qapi::qmp::query_status {}, SOON).await.unwrap();
    assert_eq!(status.status, qapi::qmp::RunState::prelaunch);
    assert!(!status.running);
}

#[tokio::test]
async fn the_schema_tells_what_this_qemu_understands() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    let schema = Schema::query(&qmp, SOON).await.unwrap();
    assert!(schema.has_command("blockdev-add") && !schema.has_command("blockdev-invent"));
    assert!(schema.has_event("GUEST_PANICKED"));
    assert!(schema.has_argument("blockdev-add", "cache.direct"));
    assert!(
        schema.has_argument("blockdev-add", "backing"),
        "an argument of a variant"
    );
    assert!(!schema.has_argument("blockdev-add", "cache.invented"));
    assert!(schema.accepts("blockdev-add", "driver", "qcow2"));
    assert!(!schema.accepts("blockdev-add", "driver", "invented"));
}

#[tokio::test]
async fn a_hundred_commands_at_once_get_their_own_answers() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    let commands = (0..100).map(|number| {
        let qmp = qmp.clone();
        tokio::spawn(async move {
            // The refusal names what was asked for.
            let name = format!("no-such-command-{number}");
            (name.clone(), qmp.execute_raw(&name, Value::Null, SOON).await)
        })
    });
    for command in commands.collect::<Vec<_>>() {
        let (name, answer) = command.await.unwrap();
        let error = answer.unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.class, ErrorClass::CommandNotFound);
        assert!(refusal.text.contains(&format!("command {name} ")), "{refusal}");
    }
}

#[tokio::test]
async fn descriptors_arrive_each_under_its_own_name() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    let (one, two, three) = tokio::join!(
        qmp.getfd("tap0", null_device(), SOON),
        qmp.getfd("tap1", null_device(), SOON),
        qmp.add_fd(7, "disk of a test", null_device(), SOON),
    );
    one.unwrap();
    two.unwrap();
    assert!(three.unwrap() >= 0);
    for name in ["tap0", "tap1"] {
        let closed = qmp.execute_raw("closefd", json!({ "fdname": name }), SOON).await;
        assert_eq!(closed.unwrap(), json!({}), "{name}");
    }
    let sets = qmp.execute_raw("query-fdsets", Value::Null, SOON).await.unwrap();
    assert_eq!(sets[0]["fds"][0]["opaque"], "disk of a test");
}

#[tokio::test]
async fn out_of_band_is_executed_and_what_cannot_be_goes_in_its_turn() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    // Refused in its own words, out of band: there is nothing to pause.
    let refused = qmp.execute_oob(&qapi::qmp::migrate_pause {}, SOON).await.unwrap_err();
    assert!(
        refused
            .refusal()
            .is_some_and(|refusal| refusal.class == ErrorClass::Generic),
        "{refused}"
    );
    let status = qmp.execute_oob(&qapi::qmp::query_status {}, SOON).await.unwrap();
    assert!(!status.running);
}

#[tokio::test]
async fn events_are_told_to_every_subscriber() {
    let qemu = paused();
    let connection = qemu.connect().await;
    let (qmp, mut first) = (connection.qmp, connection.events);
    let mut second = qmp.events();
    qmp.execute(&qapi::qmp::cont {}, SOON).await.unwrap();
    for events in [&mut first, &mut second] {
        let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap();
        assert_eq!(event.name, "RESUME");
        assert!(matches!(event.known(), Some(qapi::qmp::Event::RESUME { .. })));
    }
    qmp.close().await;
    assert_eq!(first.next().await, Err(EventsError::Closed));
}

#[tokio::test]
async fn a_killed_qemu_is_seen_at_once_and_a_command_to_it_says_why() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    let killed = Instant::now();
    qemu.signal(Signal::KILL);
    let reason = tokio::time::timeout(SOON, qmp.ended()).await.unwrap();
    assert!(matches!(*reason, CloseReason::Eof), "{reason}");
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    let error = qmp.execute(&qapi::qmp::query_status {}, SOON).await.unwrap_err();
    assert!(
        matches!(error, QmpError::Closed { .. }) && !error.may_be_done(),
        "{error}"
    );
}

#[tokio::test]
async fn a_stopped_qemu_misses_deadlines_and_its_late_answers_disturb_nobody() {
    let qemu = paused();
    let qmp = qemu.connect().await.qmp;
    qemu.stop().await;
    let error = qmp.execute(&qapi::qmp::query_name {}, SHORT).await.unwrap_err();
    assert!(
        matches!(error, QmpError::NoAnswer { .. }) && error.may_be_done(),
        "{error}"
    );
    // Once the window is full of unanswered commands, it is known that nothing was sent.
    let mut unsent = 0;
    for _ in 0..10 {
        let error = qmp.execute(&qapi::qmp::query_name {}, SHORT).await.unwrap_err();
        unsent += usize::from(matches!(error, QmpError::NotSent { .. }));
    }
    assert_eq!(unsent, 4);
    qemu.signal(Signal::CONT);
    let status = qmp.execute(&qapi::qmp::query_status {}, SOON).await.unwrap();
    assert!(!status.running);
}

#[tokio::test]
async fn a_stopped_qemu_accepts_and_never_greets() {
    let qemu = paused();
    qemu.connect().await.qmp.close().await;
    qemu.stop().await;
    let error = connect(&qemu.monitor(), SHORT).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoGreeting { .. }), "{error}");
    qemu.signal(Signal::CONT);
    qemu.connect().await;
}

#[tokio::test]
async fn a_monitor_that_somebody_holds_greets_nobody_else_until_it_is_free() {
    let qemu = paused();
    let holder = qemu.connect().await.qmp;
    let error = connect(&qemu.monitor(), SHORT).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoGreeting { .. }), "{error}");
    holder.close().await;
    qemu.connect().await;
}

#[tokio::test]
async fn a_monitor_is_reached_through_a_path_of_any_length() {
    let long = tempfile::tempdir().unwrap();
    let folder = long.path().join("l".repeat(200));
    std::fs::create_dir(&folder).unwrap();
    let folder = tempfile::Builder::new().tempdir_in(folder).unwrap();
    let qemu = Qemu::start_in(folder, &["-S", "-m", "16"]);
    assert!(qemu.monitor().as_os_str().len() > 200);
    let qmp = qemu.connect().await.qmp;
    qmp.execute(&qapi::qmp::query_status {}, SOON).await.unwrap();
}

#[tokio::test]
async fn nothing_greets_where_nothing_listens() {
    let folder = tempfile::tempdir().unwrap();
    let error = connect(&folder.path().join("qmp.sock"), SOON).await.unwrap_err();
    assert!(error.to_string().contains("there is no socket"), "{error}");
}
