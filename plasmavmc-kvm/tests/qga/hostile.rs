//! An agent made of a socket and text, played against the real client.

use std::time::{Duration, Instant};

use plasmavmc_kvm::qga::{Exec, ExecEnd, QgaError, ShutdownAnswer, ShutdownMode};
use plasmavmc_kvm::qmp::ErrorClass;
use serde_json::{Value, json};

use super::scene::{SHORT, SOON, Scene};

#[tokio::test]
async fn without_a_connection_a_command_fails_at_once() {
    let scene = Scene::new();
    let start = Instant::now();
    let error = scene
        .agent
        .execute_raw("guest-ping", Value::Null, SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, QgaError::NotConnected { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn asked_after_its_health_an_agent_is_given_the_moment_that_qemu_takes_to_connect() {
    let scene = Scene::new();
    let asked = scene.agent.health(SOON);
    let connects = async {
        // As QEMU does after a restart of the server: not at once.
        let refused = scene.ping().await.unwrap_err();
        assert!(matches!(refused, QgaError::NotConnected { .. }), "{refused}");
        let mut guest = scene.guest().await;
        let command = guest.serve_sync_until_command().await;
        assert_eq!(command["execute"], "guest-ping");
        guest.send("{\"return\": {}}\n").await;
    };
    let (health, ()) = tokio::join!(asked, connects);
    health.unwrap();
    let never = Scene::new().agent.health(SOON).await.unwrap_err();
    assert!(matches!(never, QgaError::NotConnected { .. }), "{never}");
}

#[tokio::test]
async fn a_program_that_was_started_is_never_said_not_to_have_been() {
    let (scene, mut guest) = Scene::start().await;
    let agent_that_dies = async {
        let command = guest.serve_sync_until_command().await;
        assert_eq!(command["execute"], "guest-exec");
        guest.send("{\"return\": {\"pid\": 7}}\n").await;
    };
    let exec = Exec::new("/bin/true");
    let (outcome, ()) = tokio::join!(scene.agent.exec(&exec, Duration::from_millis(400)), agent_that_dies);
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, QgaError::StillRunning { pid: 7, .. }) && error.may_be_done(),
        "{error}"
    );

    let agent_that_forgot = async {
        guest.serve_sync_until_command().await;
        guest.send("{\"return\": {\"pid\": 8}}\n").await;
        let command = guest.serve_sync_until_command().await;
        assert_eq!(command["execute"], "guest-exec-status");
        guest
            .send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"PID 8 does not exist\"}}\n")
            .await;
    };
    let (outcome, ()) = tokio::join!(scene.agent.exec(&exec, SOON), agent_that_forgot);
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, QgaError::Untold { pid: 8, .. }) && error.may_be_done(),
        "{error}"
    );
}

#[tokio::test]
async fn an_open_port_without_an_agent_is_not_taken_for_one_and_gets_no_command() {
    let (scene, mut guest) = Scene::start().await;
    let error = scene
        .agent
        .execute_raw("guest-shutdown", json!({}), SOON)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest agent of web-1 did not answer within 0.15 s; see that qemu-guest-agent runs in the guest"
    );
    assert!(!error.may_be_done());
    let good = async {
        // Only syncs are in the port of a guest whose agent starts now.
        let command = guest.serve_sync_until_command().await;
        guest.send("{\"return\": {}}\n").await;
        command
    };
    let (answer, command) = tokio::join!(scene.agent.execute_raw("good", json!({}), SOON), good);
    answer.unwrap();
    assert_eq!(command["execute"], "good");
}

#[tokio::test]
async fn a_late_answer_is_not_given_to_the_next_command() {
    let (scene, mut guest) = Scene::start().await;
    let slow = async { guest.serve_sync_until_command().await };
    let (answer, _) = tokio::join!(scene.ping(), slow);
    let error = answer.unwrap_err();
    assert!(
        matches!(error, QgaError::NoAnswer { .. }) && error.may_be_done(),
        "{error}"
    );
    guest.send("{\"return\": \"late\"}\n{\"return\": \"doubled\"}\n").await;
    scene.assert_next_good_command_works(&mut guest).await;
    // And one that comes between the next sync and its echo.
    let late = async {
        let sync = guest.line().await;
        guest.send("{\"return\": \"late\"}\n").await;
        guest.echo(&sync).await;
        guest.line().await;
        guest.send("{\"return\": \"right\"}\n").await;
    };
    let (answer, ()) = tokio::join!(scene.agent.execute_raw("x", json!({}), SOON), late);
    assert_eq!(answer.unwrap(), json!("right"));
}

#[tokio::test]
async fn garbage_marks_and_huge_answers_cost_one_command_at_most() {
    let (scene, mut guest) = Scene::start().await;
    for garbage in [
        &b"\xFF\xFF\xFF"[..],
        b"}{\n",
        b"\xFF{\"return\": 1}\n",
        b"[[[",
        b"\0\0\n\n\n",
        b"{\"return\":",
    ] {
        guest.send_bytes(garbage).await;
        scene.assert_next_good_command_works(&mut guest).await;
    }
    let endless = async {
        guest.serve_sync_until_command().await;
        let piece = vec![b'['; 1024 * 1024];
        for _ in 0..33 {
            guest.send_bytes(&piece).await;
        }
    };
    let (answer, ()) = tokio::join!(scene.agent.execute_raw("x", json!({}), SOON), endless);
    // If the reader had to drop some of it, the answer is missing rather than too long.
    let error = answer.unwrap_err();
    assert!(
        matches!(error, QgaError::AnswerTooLong { .. } | QgaError::NoAnswer { .. }),
        "{error}"
    );
    scene.assert_next_good_command_works(&mut guest).await;
}

#[tokio::test]
async fn an_answer_of_16_mb_arrives_whole() {
    let (scene, mut guest) = Scene::start().await;
    let text = "x".repeat(16 * 1024 * 1024);
    let big = async {
        guest.serve_sync_until_command().await;
        guest.send(&format!("{{\"return\": \"{text}\"}}\n")).await;
    };
    let (answer, ()) = tokio::join!(scene.agent.execute_raw("x", json!({}), SOON), big);
    assert_eq!(answer.unwrap(), json!(text));
}

#[tokio::test]
async fn refusals_of_every_class_are_refusals() {
    let (scene, mut guest) = Scene::start().await;
    for (class, unsupported) in [("GenericError", false), ("Invented", false), ("CommandNotFound", true)] {
        let refuse = async {
            guest.serve_sync_until_command().await;
            guest
                .send(&format!(
                    "{{\"error\": {{\"class\": \"{class}\", \"desc\": \"no\"}}}}\n"
                ))
                .await;
        };
        let (answer, ()) = tokio::join!(scene.agent.execute_raw("x", json!({}), SOON), refuse);
        match answer.unwrap_err() {
            QgaError::Unsupported { refusal, .. } if unsupported => {
                assert_eq!(refusal.class, ErrorClass::CommandNotFound);
            }
            QgaError::Refused { refusal, .. } if !unsupported => assert_eq!(refusal.text, "no"),
            other => panic!("{class}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_ends_the_command_and_the_next_one_works() {
    let (scene, mut guest) = Scene::start().await;
    let breaks = async {
        guest.serve_sync_until_command().await;
        guest.send("{\"return\": \"ha").await;
        drop(guest);
        scene.guest().await
    };
    let (answer, mut guest) = tokio::join!(scene.agent.execute_raw("x", json!({}), SOON), breaks);
    let error = answer.unwrap_err();
    assert!(
        matches!(error, QgaError::Interrupted { .. }) && error.may_be_done(),
        "{error}"
    );
    guest.send("lf\"}\n").await;
    scene.assert_next_good_command_works(&mut guest).await;
}

#[tokio::test]
async fn a_command_behind_a_long_one_is_told_in_time_that_it_was_not_done() {
    let (scene, mut guest) = Scene::start().await;
    let long = async {
        guest.serve_sync_until_command().await;
        let error = scene.ping().await.unwrap_err();
        assert!(
            matches!(&error, QgaError::Busy { with, .. } if with == "long"),
            "{error}"
        );
        guest.send("{\"return\": \"done\"}\n").await;
    };
    let (answer, ()) = tokio::join!(scene.agent.execute_raw("long", json!({}), SOON), long);
    assert_eq!(answer.unwrap(), json!("done"));
}

#[tokio::test]
async fn a_shutdown_is_accepted_refused_or_met_with_silence() {
    let (scene, mut guest) = Scene::start().await;
    let accept = async {
        guest.serve_sync_until_command().await;
        let sync = guest.line().await;
        guest.echo(&sync).await;
    };
    let (answer, ()) = tokio::join!(scene.agent.shutdown(ShutdownMode::PowerDown, SOON), accept);
    assert_eq!(answer.unwrap(), ShutdownAnswer::Accepted);

    let refuse = async {
        guest.serve_sync_until_command().await;
        guest
            .send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n")
            .await;
        let sync = guest.line().await;
        guest.echo(&sync).await;
    };
    let (answer, ()) = tokio::join!(scene.agent.shutdown(ShutdownMode::Halt, SOON), refuse);
    assert!(matches!(answer.unwrap_err(), QgaError::Refused { .. }));

    let silent = async { guest.serve_sync_until_command().await };
    let (answer, command) = tokio::join!(scene.agent.shutdown(ShutdownMode::Reboot, SHORT), silent);
    assert_eq!(answer.unwrap(), ShutdownAnswer::Silent);
    assert_eq!(command["arguments"]["mode"], "reboot");
}

#[tokio::test]
async fn output_of_a_program_is_cut_at_the_limit_and_says_so() {
    let (scene, mut guest) = Scene::start().await;
    let run = async {
        guest.serve_sync_until_command().await;
        guest.send("{\"return\": {\"pid\": 5}}\n").await;
        guest.serve_sync_until_command().await;
        guest.send("{\"return\": {\"exited\": false}}\n").await;
        guest.serve_sync_until_command().await;
        let status = json!({ "return": { "exited": true, "signal": 9, "out-data": "MTIzNDU2", "err-data": "MTI=",
            "err-truncated": true } });
        guest.send(&format!("{status}\n")).await;
    };
    let exec = Exec {
        output_limit_bytes: 4,
        ..Exec::new("/bin/true")
    };
    let (outcome, ()) = tokio::join!(scene.agent.exec(&exec, SOON), run);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.end, ExecEnd::Signalled(9));
    assert_eq!(
        (outcome.stdout.bytes.as_slice(), outcome.stdout.truncated),
        (&b"1234"[..], true)
    );
    assert_eq!(
        (outcome.stderr.bytes.as_slice(), outcome.stderr.truncated),
        (&b"12"[..], true)
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_on_is_closed_all_the_same() {
    let (scene, mut guest) = Scene::start().await;
    let fail = async {
        guest.serve_sync_until_command().await;
        guest.send("{\"return\": 77}\n").await;
        guest.serve_sync_until_command().await;
        guest
            .send("{\"error\": {\"class\": \"GenericError\", \"desc\": \"I/O error\"}}\n")
            .await;
        let close = guest.serve_sync_until_command().await;
        guest.send("{\"return\": {}}\n").await;
        close
    };
    let (content, close) = tokio::join!(scene.agent.read_file("/etc/passwd", 100, SOON), fail);
    assert!(matches!(content.unwrap_err(), QgaError::Refused { .. }));
    assert_eq!(
        (&close["execute"], &close["arguments"]["handle"]),
        (&json!("guest-file-close"), &json!(77))
    );
}
