//! Short runs of the torture programs: an honest build passes, every broken one is caught.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One run at a time: they measure patience, and two on a small machine would try each other's.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the program; answers its exit status and the JSON of its last line.
fn torture(arguments: &[&str]) -> (bool, Value) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_plasmavmc-torture"))
        .args(arguments)
        .output()
        .expect("it runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stdout
        .lines()
        .last()
        .unwrap_or_else(|| panic!("no result; it said:\n{stderr}"));
    let report = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}\n{stderr}"));
    println!("{stderr}\n{last}");
    (output.status.success(), report)
}

#[test]
fn an_honest_store_survives_every_fault() {
    let (success, report) = torture(&["kv", "--quick"]);
    assert_eq!(report["violations"], 0);
    assert_eq!(report["missed"], serde_json::json!([]));
    assert!(report["kills"].as_u64() >= Some(5));
    assert!(
        report["operations"].as_u64() >= Some(1000),
        "hardly anything was done under these faults"
    );
    assert!(success);
}

#[test]
fn damaged_files_lead_to_no_wrong_answer() {
    let (success, report) = torture(&["corrupt", "--cases", "9"]);
    for key in ["wrong_answers", "lost_writes", "stuck"] {
        assert_eq!(report[key], 0, "{key}");
    }
    assert_eq!(report["cases"], 9);
    assert_eq!(report["thin_cases"], 3);
    assert!(success);
}

#[test]
fn nobody_notices_a_follower_that_was_away() {
    let (success, report) = torture(&["follower", "--times", "1", "--cut-s", "3"]);
    for key in ["term_changes", "failed_writes"] {
        assert_eq!(report[key], 0, "{key}: {report}");
    }
    assert_eq!(
        report["absences"],
        serde_json::json!({ "restart": 1, "pause": 1, "cut": 1 })
    );
    assert!(success);
}

#[test]
fn owners_and_guards_of_vms_may_die_at_any_moment() {
    let (success, report) = torture(&["adopt", "--cycles", "40"]);
    for key in ["wrong", "leaked", "leaked_fds"] {
        assert_eq!(report[key], 0, "{key}: {report}");
    }
    assert_eq!(report["cycles"], 40);
    assert!(success);
}

/// A store that breaks its promise may also stand still, and then a run shows nothing: it gets three.
fn is_caught(sabotage: &str) {
    const RUNS: usize = 3;
    let caught = (0..RUNS).any(|_| {
        let (success, report) = torture(&["kv", "--minutes", "1", "--break", sabotage]);
        assert_eq!(success, report["caught"] == true, "{report}");
        success
    });
    assert!(caught, "is the binary built with --features faults?");
}

#[test]
fn a_store_that_acknowledges_before_it_syncs_is_caught() {
    is_caught("ack-before-fsync");
}

#[test]
fn a_store_that_serves_stale_reads_is_caught() {
    is_caught("stale-read");
}

#[test]
fn a_store_that_skips_a_watch_event_is_caught() {
    is_caught("watch-skip");
}
