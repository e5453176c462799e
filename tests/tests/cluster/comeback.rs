//! A short run of what `cargo xtask torture comeback` measures.

use plasmavmc_tests::cluster::comeback::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn killed_servers_and_qemus_come_back_and_what_is_said_is_true() {
    let options = Options { servers: 3, qemus: 6 };
    let report = run(&options).await.unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.violations, [] as [String; 0]);
    assert!(report.servers_killed > 0 && report.qemus_killed > 0);
}
