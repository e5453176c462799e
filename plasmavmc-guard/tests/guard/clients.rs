//! Clients that misbehave: none of them reaches a child, another client or the guard.

use std::os::fd::OwnedFd;
use std::process::Command;

use plasmavmc_guard::client::CallError;
use plasmavmc_guard::wire::socket::{self, Received};
use plasmavmc_guard::wire::{self, Answer, ExitReason, MAX_PACKET_BYTES, Order, Refusal, ToClient, ToGuard};
use rustix::io::Errno;

use crate::place::{PROGRAM, Place, eventually, next_exit};

/// A connection without a client's manners.
fn connect(place: &Place) -> OwnedFd {
    socket::connect(&place.folder()).expect("a guard that listens")
}

async fn received(socket: &OwnedFd) -> Received {
    eventually("a packet", async || match socket::receive(socket) {
        Err(Errno::AGAIN) => None,
        Err(Errno::CONNRESET) => Some(Received::Closed),
        other => Some(other.expect("a packet")),
    })
    .await
}

async fn refusal(socket: &OwnedFd) -> Refusal {
    let Received::Packet { bytes, .. } = received(socket).await else {
        panic!("no packet");
    };
    match wire::decode(&bytes).expect("an answer") {
        ToClient::Answer {
            to: 0,
            answer: Answer::Refused(refusal),
        } => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_is_answered_once_and_hurts_nobody_else() {
    let place = Place::with_guard();
    let client = place.client();
    let child = place.obedient();
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    let garbage: [&[u8]; 7] = [
        b"\0",
        b"\xff\xff\xff\xff",
        b"{}",
        br#"{"v":99,"m":{}}"#,
        br#"{"v":1,"m":{"number":1,"order":{"fly":1}}}"#,
        br#"{"v":1,"m":{"number":-1,"order":"status"}}"#,
        &[b'['; 40_000],
    ];
    for packet in garbage {
        let stranger = connect(&place);
        socket::send(&stranger, packet, &[]).expect("sent");
        let refused = refusal(&stranger).await;
        assert!(matches!(refused, Refusal::Unreadable { .. }), "{refused:?}");
        assert!(matches!(received(&stranger).await, Received::Closed));
    }
    let stranger = connect(&place);
    socket::send(&stranger, &vec![b' '; MAX_PACKET_BYTES + 1], &[]).expect("sent");
    assert!(matches!(refusal(&stranger).await, Refusal::Unreadable { .. }));
    assert_eq!(client.list().await.expect("a list"), [held]);
}

#[tokio::test]
async fn an_order_that_is_wrong_is_refused_and_its_connection_stands() {
    let place = Place::with_guard();
    let client = place.client();
    let mut order = place.obedient().order;
    order.program = "sh".to_owned();
    order.descriptors = vec![9];
    let refused = client.spawn(order, &[]).await;
    match refused {
        Err(CallError::Refused(Refusal::Invalid { problems })) => assert_eq!(problems.len(), 2, "{problems:?}"),
        other => panic!("{other:?}"),
    }
    client.status().await.expect("a status");
}

#[tokio::test]
async fn more_clients_than_the_guard_serves_are_told_so() {
    let place = Place::with_guard();
    let mut served: Vec<OwnedFd> = (0..32).map(|_| connect(&place)).collect();
    let one_more = connect(&place);
    assert_eq!(refusal(&one_more).await, Refusal::TooManyClients { limit: 32 });
    // Room is made by whoever leaves.
    served.truncate(31);
    eventually("a place", async || place.client().status().await.ok()).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_and_delays_nobody() {
    let place = Place::with_guard();
    let client = place.client();
    let sluggish = connect(&place);
    let packet = wire::encode(&ToGuard {
        number: 1,
        order: Order::Status,
    })
    .expect("encodes");
    let mut sent = 0;
    // It asks and asks, and never takes an answer.
    let dropped = eventually("it is dropped", async || {
        loop {
            match socket::send(&sluggish, &packet, &[]) {
                Ok(()) => sent += 1,
                Err(Errno::AGAIN) => return None,
                Err(errno) => return Some(errno),
            }
            if sent % 100 == 0 {
                client.status().await.expect("the others are served");
            }
        }
    })
    .await;
    assert!(matches!(dropped, Errno::PIPE | Errno::CONNRESET), "{dropped:?}");
    assert!(sent > 1000, "dropped after {sent} orders already");
    assert!(place.log().contains("does not take what it is sent"), "{}", place.log());
    assert_eq!(client.status().await.expect("a status").clients, 1);
}

#[tokio::test]
async fn another_user_is_turned_away() {
    let place = Place::with_guard();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // With the folder's own protection taken away, the guard still looks who it is.
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("opened");
    };
    open(place.path(), 0o755);
    open(&place.folder(), 0o755);
    open(&place.folder().join("guard.sock"), 0o777);
    let script = "import os,socket,sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1]); s.settimeout(20)
print(s.recv(1000).decode())";
    let socket = place.folder().join("guard.sock");
    let Ok(output) = Command::new("python3").arg("-c").arg(script).arg(&socket).output() else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains(r#""not_allowed":{"uid":65534,"allowed":0}"#),
        "{said} {output:?}"
    );
}

#[tokio::test]
async fn clients_that_die_in_the_middle_change_nothing() {
    let place = Place::with_guard();
    let watcher = place.client();
    let mut events = watcher.subscribe().await.expect("a subscription");
    for _ in 0..20 {
        let child = place.obedient();
        let packet = wire::encode(&ToGuard {
            number: 1,
            order: Order::Spawn(Box::new(child.order.clone())),
        });
        let gone = connect(&place);
        socket::send(&gone, &packet.expect("encodes"), &[]).expect("sent");
        drop(gone);
        child_runs(&watcher, &child).await;
        child.exit(1);
        assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 1 });
        watcher.collect(child.key()).await.expect("collected");
    }
    assert!(watcher.status().await.expect("a status").clients <= 2);
}

async fn child_runs(client: &plasmavmc_guard::client::Client, child: &crate::place::Obedient) {
    use plasmavmc_guard::wire::Phase;
    eventually("the child of a client that is gone runs", async || {
        let held = client.list().await.expect("a list");
        held.into_iter()
            .find(|held| held.key == child.key() && held.phase == Phase::Running)
    })
    .await;
}

#[test]
fn wrong_command_lines_end_with_the_usage() {
    for arguments in [&[][..], &["fly"], &["run"], &["run", "--dir"], &["start", "--dri", "x"]] {
        let output = Command::new(PROGRAM).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("plasmavmc-guard start --dir FOLDER"));
    }
}
