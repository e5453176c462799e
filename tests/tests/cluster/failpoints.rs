//! A server that dies at every place it can: each once. `cargo xtask torture failpoints` does more.

use std::sync::Arc;

use anyhow::{Context, Result};
use plasmavmc_tests::cluster::ha::watched;
use plasmavmc_tests::cluster::{Failpoints, HostedCluster, PLACES_OF_GUESTS, Together, run_failpoints};

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

/// Three hosts, and what watches them from outside.
fn together<F: Future<Output = Result<()>>>(test: impl FnOnce(Arc<HostedCluster>) -> F + Send) {
    watched(HostedCluster::build_mortal(3), &[], |cluster, _| test(cluster));
}

#[test]
fn a_leader_may_die_inside_a_fence_and_a_failover() {
    together(|cluster| async move {
        let together = Together::new(&cluster);
        for place in ["fence-before", "fence-after", "failover-before", "failover-after"] {
            together.host_is_lost(place).await.with_context(|| place)?;
        }
        Ok(())
    });
}

#[test]
fn a_server_may_die_inside_a_freeze_a_thaw_and_a_departure() {
    together(|cluster| async move {
        let together = Together::new(&cluster);
        for place in ["freeze-before", "freeze-after", "thaw-before", "thaw-after"] {
            together.host_is_cut_off(place).await.with_context(|| place)?;
        }
        for place in ["leave-before", "leave-after"] {
            together.host_is_shut_down(place).await.with_context(|| place)?;
        }
        Ok(())
    });
}
