//! A short run of the race of clients; `cargo xtask torture api` does the long one.

use plasmavmc_tests::cluster::race::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_api_agrees_with_every_answer() {
    let options = Options {
        calls: 800,
        clients: 8,
        seed: None,
    };
    let report = run(&options).await.unwrap();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert_eq!(report.violations, [] as [String; 0]);
    assert!(report.is_success());
}
