//! The launcher alone, with the test in the guard's place: what it does when the guard is gone.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use plasmavmc_guard::wire::socket::{self, Received};
use plasmavmc_guard::wire::{self, DeathSignal, SpawnOrder};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::place::{PROGRAM, Place, eventually};

/// A launcher that was given an order, and the guard's end of its socket.
fn launcher(order: &SpawnOrder) -> (Child, OwnedFd) {
    let (ours, theirs) = socket::pair().expect("a pair");
    let limit = json!({"soft": 1024, "hard": 4096});
    let assignment = json!({"prepare": {
        "order": order,
        "guard_pid": std::process::id(),
        "limits": {"open_files": limit, "locked_memory": {"soft": 65536, "hard": 65536}},
    }});
    socket::send(&ours, &wire::encode(&assignment).expect("encodes"), &[]).expect("sent");
    let mut command = Command::new(PROGRAM);
    command
        .args(["launch", &order.key.vm.to_string()])
        .stdin(Stdio::from(theirs));
    (command.spawn().expect("a launcher"), ours)
}

async fn next_word(guard: &OwnedFd) -> Option<Value> {
    let received = eventually("a word of the launcher", async || match socket::receive(guard) {
        Err(Errno::AGAIN) => None,
        other => Some(other.expect("a packet")),
    });
    match received.await {
        Received::Packet { bytes, .. } => Some(wire::decode(&bytes).expect("a message")),
        Received::Closed => None,
        Received::Cut => panic!("too long"),
    }
}

#[tokio::test]
async fn a_launcher_executes_on_the_word_go_and_on_nothing_else() {
    let place = Place::empty();
    for death_signal in [None, Some(DeathSignal::Stop), Some(DeathSignal::Kill)] {
        for (word, runs) in [(Some(json!("go")), true), (None, false), (Some(json!("run")), false)] {
            let mut order = place.script("echo $0 > executed");
            order.death_signal = death_signal;
            let (mut launcher, guard) = launcher(&order);
            let prepared = next_word(&guard).await.expect("a word");
            assert!(prepared.get("prepared").is_some(), "{prepared}");
            if let Some(word) = &word {
                socket::send(&guard, &wire::encode(word).expect("encodes"), &[]).expect("sent");
                // Closed by exec, or by its end.
                assert_eq!(next_word(&guard).await, None);
            }
            // As the kernel does when a guard dies.
            drop(guard);
            assert!(launcher.wait().expect("its end").success());
            let executed = fs::read_to_string(place.path().join("executed")).ok();
            assert_eq!(executed.is_some(), runs, "{word:?}");
            let _ = fs::remove_file(place.path().join("executed"));
        }
    }
}

#[tokio::test]
async fn a_launcher_without_its_guard_does_not_execute_what_the_guards_death_should_stop() {
    let place = Place::empty();
    let mut order = place.script("echo $0 > executed");
    order.death_signal = Some(DeathSignal::Stop);
    let (ours, theirs) = socket::pair().expect("a pair");
    let limit = json!({"soft": 1024, "hard": 4096});
    // Its guard said "go" and died before the launcher could bind itself to its life: another is its parent.
    let assignment = json!({"prepare": {
        "order": order,
        "guard_pid": 1_999_999_999,
        "limits": {"open_files": limit, "locked_memory": limit},
    }});
    for message in [assignment, json!("go")] {
        socket::send(&ours, &wire::encode(&message).expect("encodes"), &[]).expect("sent");
    }
    let mut command = Command::new(PROGRAM);
    command
        .args(["launch", &order.key.vm.to_string()])
        .stdin(Stdio::from(theirs));
    let status = command.spawn().expect("a launcher").wait().expect("its end");
    assert_eq!(status.code(), Some(1));
    assert!(!fs::exists(place.path().join("executed")).expect("a look"));
}
