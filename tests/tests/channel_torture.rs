//! A short run of the channel torture; `cargo xtask torture channel` does the long one.

use plasmavmc_tests::channel_torture::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn flow_returns_after_every_abuse_and_no_descriptor_is_left() {
    let options = Options {
        guest: None,
        reconnects: 100,
        agent_kills: 4,
    };
    let report = run(&options).await.unwrap();
    assert!(report.is_success(), "{report:?}");
    assert_eq!(
        (report.startup_cases, report.reconnects, report.agent_kills),
        (4, 100, 4)
    );
}
