//! A server that dies at every place it can: each once. `cargo xtask torture failpoints` does more.

use plasmavmc_tests::cluster::{Failpoints, PLACES_OF_GUESTS, run_failpoints};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_die_at_any_step_of_a_vms_life() {
    check(Vec::new(), places_of_guests()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_die_while_a_guest_is_asked_to_power_off() {
    check(places_of_guests(), Vec::new()).await;
}

fn places_of_guests() -> Vec<String> {
    PLACES_OF_GUESTS.map(str::to_owned).to_vec()
}

async fn check(only: Vec<String>, except: Vec<String>) {
    let hits = 1;
    let report = run_failpoints(&Failpoints { only, except, hits }).await.unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.violations, [] as [String; 0]);
    assert_eq!(report.never_reached, [] as [String; 0]);
    assert!(report.is_success());
}
