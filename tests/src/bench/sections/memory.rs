//! What 100,000 distinct keys cost in memory, as they were written and after a restart.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::say;
use crate::bench::cluster::Cluster;
use crate::bench::lab::{Lab, Side};
use crate::bench::load::{self, Fill};
use crate::bench::report::Report;

const KEYS: u64 = 100_000;
/// Between the last write, or the last member's return, and the reading: both sides get as long to put
/// their house in order.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut clusters = lab.pair().await?;
    for side in Side::BOTH {
        let cluster = clusters.of_mut(side);
        let leader = cluster.wait_whole().await?.leader;
        load::fill(cluster, leader, Fill::one_by_one(0..KEYS)).await?;
        note(report, side, "rss", cluster).await?;
    }
    for side in Side::BOTH {
        let cluster = clusters.of_mut(side);
        for index in 0..cluster.len() {
            cluster.stop(index).await?;
        }
        for index in 0..cluster.len() {
            cluster.restart(index)?;
        }
        note(report, side, "rss_restart", cluster).await?;
    }
    Ok(())
}

/// Notes the largest member, and the leader beside it.
async fn note(report: &mut Report, side: Side, what: &str, cluster: &mut Cluster) -> Result<()> {
    cluster.wait_whole().await?;
    sleep(SETTLE).await;
    let leader = cluster.wait_whole().await?.leader;
    let memory = cluster.memory()?;
    let largest = memory.iter().map(|member| member.resident_mb).fold(0.0, f64::max);
    let anonymous = memory.iter().map(|member| member.anonymous_mb).fold(0.0, f64::max);
    report.set_for(side, &format!("{what}_mb"), largest);
    report.set_for(side, &format!("{what}_leader_mb"), memory[leader].resident_mb);
    report.set_for(side, &format!("{what}_anonymous_mb"), anonymous);
    say(format_args!(
        "{what} with {KEYS} keys  {side}  largest member {largest:.0} MB ({anonymous:.0} MB without mapped files), leader \
         {:.0} MB",
        memory[leader].resident_mb
    ));
    Ok(())
}
