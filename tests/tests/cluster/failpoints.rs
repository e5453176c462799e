//! A server that dies at every place it can: each once. `cargo xtask torture failpoints` does more.

use plasmavmc_tests::cluster::{Failpoints, run_failpoints};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_die_at_any_step_of_a_vms_life() {
    let options = Failpoints {
        only: String::new(),
        hits: 1,
    };
    let report = run_failpoints(&options).await.unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.violations, [] as [String; 0]);
    assert_eq!(report.never_reached, [] as [String; 0]);
    assert!(report.is_success());
}
