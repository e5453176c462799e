//! Peers whose wrong is in sizes, times and amounts, not in words.

use std::time::Duration;

use plasmavmc_kvm::qmp::{CloseReason, ConnectError, EventsError, MAX_LINE_BYTES, QmpError, connect};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::faithful::{GREETING, Monitor, SOON};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_reply_of_16_mb_arrives_whole() {
    let monitor = Monitor::new();
    let (connection, mut peer) = monitor.connected().await;
    let text = "x".repeat(16 * 1024 * 1024);
    let reply = async {
        let command = peer.read().await;
        peer.answer(&command, json!(text)).await;
    };
    let (answer, ()) = tokio::join!(connection.qmp.execute_raw("big", Value::Null, SOON), reply);
    assert_eq!(answer.unwrap(), json!(text));
}

#[tokio::test]
async fn a_line_without_end_ends_the_connection_and_not_the_memory() {
    let monitor = Monitor::new();
    let (connection, mut peer) = monitor.connected().await;
    let flood = async {
        let piece = vec![b'x'; 1024 * 1024];
        for _ in 0..=MAX_LINE_BYTES / piece.len() {
            peer.send(&piece).await;
        }
        peer.until_hung_up().await;
    };
    let (answer, ()) = tokio::join!(connection.qmp.execute_raw("query-status", Value::Null, SOON), flood);
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, QmpError::Interrupted { .. }) && error.may_be_done(),
        "{error}"
    );
    let reason = connection.qmp.ended().await;
    assert!(matches!(*reason, CloseReason::NotQmp(_)), "{reason}");
}

#[tokio::test]
async fn a_flood_of_events_is_told_as_lost_and_commands_work() {
    let monitor = Monitor::new();
    let (mut connection, mut peer) = monitor.connected().await;
    let flood = async {
        let events = "{\"event\": \"TICK\"}\n".repeat(5000);
        peer.send(events.as_bytes()).await;
        let command = peer.read().await;
        peer.answer(&command, json!("fine")).await;
    };
    let (answer, ()) = tokio::join!(connection.qmp.execute_raw("query-status", Value::Null, SOON), flood);
    assert_eq!(answer.unwrap(), json!("fine"));
    let Err(EventsError::Lagged { missed }) = connection.events.next().await else {
        panic!("the loss was not told")
    };
    let mut seen = 0;
    connection.qmp.close().await;
    while connection.events.next().await.is_ok() {
        seen += 1;
    }
    assert_eq!(missed + seen, 5000);
}

#[tokio::test]
async fn a_command_nobody_waits_for_is_taken_back_before_it_is_sent() {
    let monitor = Monitor::new();
    let (connection, mut peer) = monitor.connected().await;
    // The window fills up with commands that are not answered.
    for number in 0..7 {
        let error = connection
            .qmp
            .execute_raw(&format!("hangs-{number}"), Value::Null, SHORT)
            .await;
        assert!(matches!(error, Err(QmpError::NoAnswer { .. })));
    }
    let dropped = connection.qmp.execute_raw("withdrawn", Value::Null, SOON);
    assert!(tokio::time::timeout(SHORT, dropped).await.is_err());
    let answers = async {
        let mut names = Vec::new();
        for _ in 0..8 {
            let command = peer.read().await;
            names.push(command["execute"].as_str().unwrap_or_default().to_owned());
            peer.answer(&command, json!(names.len())).await;
        }
        names
    };
    let (wanted, names) = tokio::join!(connection.qmp.execute_raw("wanted", Value::Null, SOON), answers);
    assert_eq!(wanted.unwrap(), json!(8));
    assert_eq!(names[7], "wanted", "{names:?}");
}

#[tokio::test]
async fn what_does_not_greet_as_qmp_is_no_monitor() {
    for greeting in [
        "HTTP/1.1 400 Bad Request\r\n",
        "{\"return\": {}}\n",
        "\n",
        "\u{0}\u{1}\n",
    ] {
        let monitor = Monitor::new();
        let path = monitor.path();
        let greet = async {
            let mut peer = monitor.accept().await;
            peer.send(greeting.as_bytes()).await;
            peer.until_hung_up().await;
        };
        let (connection, ()) = tokio::join!(connect(&path, SOON), greet);
        let error = connection.unwrap_err();
        assert!(matches!(error, ConnectError::NotQmp { .. }), "{greeting:?}: {error}");
    }
}

#[tokio::test]
async fn a_monitor_that_ends_or_falls_silent_while_it_is_greeted_is_told_apart() {
    let monitor = Monitor::new();
    let path = monitor.path();
    let ends = async { monitor.accept().await.end() };
    let (connection, ()) = tokio::join!(connect(&path, SOON), ends);
    assert!(matches!(connection.unwrap_err(), ConnectError::Eof { .. }));

    let silent = async {
        let mut peer = monitor.accept().await;
        peer.send(GREETING.as_bytes()).await;
        peer.until_hung_up().await;
    };
    let (connection, ()) = tokio::join!(connect(&path, SHORT), silent);
    assert!(matches!(connection.unwrap_err(), ConnectError::Negotiation { .. }));
}

/// Anything a peer may send that is not the answer to a command that waits.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        Just(b"{\"event\": \"INVENTED\", \"data\": [1]}".to_vec()),
        Just(b"{\"return\": \"wrong\", \"id\": 1}".to_vec()),
        Just(b"{\"return\": \"wrong\", \"id\": 999}".to_vec()),
        Just(b"{\"return\": \"wrong\"}".to_vec()),
        Just(b"{\"error\": {\"class\": \"Invented\"}, \"id\": null}".to_vec()),
        Just(GREETING.as_bytes().to_vec()),
        Just(vec![0xFF; 50]),
    ]
}

#[test]
fn whatever_noise_surrounds_it_a_command_gets_its_own_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let case = (prop::collection::vec(noise(), 0..20), 1_usize..100);
    let config = ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let judged = TestRunner::new(config).run(&case, |(noises, piece)| {
        let answer = runtime.block_on(async {
            let monitor = Monitor::new();
            let (connection, mut peer) = monitor.connected().await;
            let bytes: Vec<u8> = noises.iter().flat_map(|noise| [noise, &b"\n"[..]].concat()).collect();
            let reply = async {
                for piece in bytes.chunks(piece) {
                    peer.send(piece).await;
                }
                let command = peer.read().await;
                peer.answer(&command, json!("right")).await;
                peer
            };
            let (answer, _peer) = tokio::join!(connection.qmp.execute_raw("good", json!({}), SOON), reply);
            answer
        });
        prop_assert_eq!(answer.unwrap(), json!("right"));
        Ok(())
    });
    judged.unwrap();
}
