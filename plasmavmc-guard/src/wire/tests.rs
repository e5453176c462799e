use plasmavmc_types::{Epoch, Incarnation};
use uuid::Uuid;

use super::*;

fn key() -> Key {
    Key {
        vm: VmId::from_uuid(Uuid::from_u128(7)),
        attempt: AttemptId::from_uuid(Uuid::from_u128(8)),
    }
}

fn order() -> SpawnOrder {
    let mut order = SpawnOrder::new(key(), "/bin/true", "/");
    order.arguments = vec![format!("id={}", key().vm)];
    order
}

fn leased() -> SpawnOrder {
    let mut order = order();
    order.death_signal = Some(DeathSignal::Stop);
    order.lease = Some(Lease {
        incarnation: Incarnation::from_raw(3),
        claims: vec!["/pool/7.claims".to_owned()],
    });
    order
}

#[test]
fn messages_come_back_as_they_were_sent() {
    let orders = [
        Order::Status,
        Order::List { after: Some(key().vm) },
        Order::Spawn(Box::new(order())),
        Order::Spawn(Box::new(leased())),
        Order::Lease {
            epoch: Epoch::FIRST,
            until_boottime_ms: 4000,
        },
        Order::Thaw {
            key: key(),
            epoch: Epoch::FIRST,
        },
        Order::Upgrade { program: None },
        Order::Stop { leave_running: true },
    ];
    for order in orders {
        let sent = ToGuard { number: 3, order };
        let received: ToGuard = decode(&encode(&sent).expect("encodes")).expect("decodes");
        assert_eq!(received, sent);
    }
}

/// Another release may meet these bytes: a guard outlives the server that started it.
#[test]
fn version_1_is_written_like_this() {
    let number = 5;
    let sent = encode(&ToGuard {
        number,
        order: Order::Kill(key()),
    });
    let expected = r#"{"v":1,"m":{"number":5,"order":{"kill":{"vm":"00000000-0000-0000-0000-000000000007","attempt":"00000000-0000-0000-0000-000000000008"}}}}"#;
    assert_eq!(String::from_utf8_lossy(&sent.expect("encodes")), expected);
}

/// A release before leases sends and expects these.
#[test]
fn packets_without_leases_are_as_they_were() {
    let sent = encode(&order()).expect("encodes");
    assert!(!String::from_utf8_lossy(&sent).contains("lease"));
    assert_eq!(decode::<SpawnOrder>(&sent).expect("decodes"), order());
    let held = r#"{"key":{"vm":"00000000-0000-0000-0000-000000000007","attempt":"00000000-0000-0000-0000-000000000008"},"pid":5,"start_ticks":6,"phase":"running","notes":[]}"#;
    let read: Held = serde_json::from_str(held).expect("decodes");
    assert_eq!(
        (read.lease, serde_json::to_string(&read).expect("encodes")),
        (None, held.to_owned())
    );
    let status = r#"{"pid":5,"version":"0","upgrades":0,"last_upgrade_problem":null,"children":0,"clients":1,"memory_not_locked":null,"not_realtime":null,"stale":[]}"#;
    let read: Status = serde_json::from_str(status).expect("decodes");
    assert_eq!((read.lease, read.leased, read.frozen), (None, 0, 0));
}

#[test]
fn leases_are_written_like_this() {
    let written = serde_json::to_string(&Order::Lease {
        epoch: Epoch::from_raw(2),
        until_boottime_ms: 4000,
    });
    assert_eq!(
        written.expect("encodes"),
        r#"{"lease":{"epoch":2,"until_boottime_ms":4000}}"#
    );
    let written = serde_json::to_string(&leased()).expect("encodes");
    let expected = r#""death_signal":"stop","lease":{"incarnation":3,"claims":["/pool/7.claims"]}}"#;
    assert!(written.ends_with(expected), "{written}");
}

#[test]
fn everything_wrong_with_a_lease_is_named() {
    type Break = fn(&mut SpawnOrder);
    let cases: [(Break, &str); 6] = [
        (|order| order.death_signal = None, "has to be `stop`"),
        (|order| order.death_signal = Some(DeathSignal::Kill), "has to be `stop`"),
        (|order| claims(order).push("pool".into()), "\"pool\" is not absolute"),
        (|order| claims(order).push("/a\0b".into()), "contains a zero byte"),
        (|order| *claims(order) = vec!["/a".into(); 65], "65 folders"),
        (
            |order| claims(order).push(format!("/{}", "a".repeat(8192))),
            "8207 bytes",
        ),
    ];
    assert_eq!(leased().problems(), Vec::<String>::new());
    for (break_it, expected) in cases {
        let mut order = leased();
        break_it(&mut order);
        let problems = order.problems().join("; ");
        assert!(problems.contains(expected), "{problems:?} does not say {expected:?}");
    }
}

fn claims(order: &mut SpawnOrder) -> &mut Vec<String> {
    &mut order.lease.as_mut().expect("a lease").claims
}

#[test]
fn another_version_is_told_from_garbage() {
    let other = decode::<ToGuard>(br#"{"v":2,"whatever":[1,2]}"#);
    assert!(matches!(other, Err(DecodeError::Version { spoken: 2 })), "{other:?}");
    for garbage in [
        &b""[..],
        b"\0\xff",
        b"{}",
        b"[1]",
        br#"{"v":1}"#,
        br#"{"v":1,"m":{"number":1,"order":"fly"}}"#,
    ] {
        let refused = decode::<ToGuard>(garbage);
        assert!(matches!(refused, Err(DecodeError::Malformed { .. })), "{refused:?}");
    }
}

#[test]
fn a_message_that_does_not_fit_is_refused_before_it_is_sent() {
    let mut order = order();
    order.arguments.push("x".repeat(MAX_PACKET_BYTES));
    let refused = encode(&ToGuard {
        number: 1,
        order: Order::Spawn(Box::new(order)),
    });
    assert!(matches!(refused, Err(EncodeError::TooLong { .. })));
}

#[test]
fn everything_wrong_with_an_order_is_named() {
    type Break = fn(&mut SpawnOrder);
    let cases: [(Break, &str); 13] = [
        (
            |order| order.program = "qemu".into(),
            "program \"qemu\" is not absolute",
        ),
        (
            |order| order.working_folder = "vm".into(),
            "working_folder \"vm\" is not absolute",
        ),
        (|order| order.arguments.push("a\0b".into()), "contains a zero byte"),
        (|order| order.arguments.clear(), "no argument contains the VM's id"),
        (
            |order| drop(order.environment.insert("A=B".into(), String::new())),
            "is no name for",
        ),
        (
            |order| order.descriptors = vec![2],
            "descriptor number 2 is not in 3..=255",
        ),
        (
            |order| order.descriptors = vec![256],
            "descriptor number 256 is not in 3..=255",
        ),
        (
            |order| order.descriptors = vec![5, 5],
            "descriptor number 5 is given twice",
        ),
        (
            |order| order.descriptors = (3..70).collect(),
            "67 descriptors are more than 64",
        ),
        (|order| order.oom_score_adj = 1001, "oom_score_adj 1001"),
        (
            |order| order.output = Output::File("a\0".into()),
            "contains a zero byte",
        ),
        (
            |order| {
                order.owner = Some(Owner {
                    uid: 1,
                    gid: 1,
                    groups: vec![u32::MAX],
                });
            },
            "4294967295 stands for no user",
        ),
        (
            |order| {
                order.cgroup = Some(Cgroup {
                    folder: "/sys/../x".into(),
                    cpu_weight: Some(0),
                    memory_max: None,
                });
            },
            "contains `..`",
        ),
    ];
    assert_eq!(order().problems(), Vec::<String>::new());
    for (break_it, expected) in cases {
        let mut order = order();
        break_it(&mut order);
        let problems = order.problems().join("; ");
        assert!(problems.contains(expected), "{problems:?} does not say {expected:?}");
    }
}
