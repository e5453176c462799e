//! A fresh member joins a store too large to replay, while writes go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use super::{OUTAGE_DEADLINE, say};
use crate::bench::cluster::Cluster;
use crate::bench::figures::millis;
use crate::bench::lab::{Lab, Side};
use crate::bench::load::{self, Fill};
use crate::bench::report::Report;
use crate::bench::roaming::Writers;

const VALUE_BYTES: usize = 2048;
const WRITERS: usize = 16;
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// A baseline of the write rate is taken for so long.
const BASELINE: Duration = Duration::from_secs(2);

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    for side in Side::BOTH {
        // One after the other: the two stores together would not fit the page cache of a small machine.
        let mut cluster = lab.cluster(side).await?;
        let outcome = catch_up(lab, report, side, &mut cluster).await;
        outcome.with_context(|| format!("a fresh member of {}", lab.product(side)))?;
    }
    Ok(())
}

async fn catch_up(lab: &Lab, report: &mut Report, side: Side, cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.wait_whole().await?.leader;
    let megabytes = lab.plan.catchup_mb;
    let fill = Fill {
        keys: 0..megabytes * 1024 * 1024 / VALUE_BYTES as u64,
        value_bytes: VALUE_BYTES,
        keys_per_call: 1,
    };
    load::fill(cluster, leader, fill).await?;
    // All of them: whoever leads then can only give the joiner a snapshot of everything.
    for index in 0..cluster.len() {
        cluster.wait_whole().await?;
        cluster.compact_log(index).await?;
    }

    let leader = cluster.wait_whole().await?.leader;
    let writers = Writers::start(cluster, &[leader], WRITERS, WRITE_DEADLINE);
    writers.wait_writing(OUTAGE_DEADLINE).await?;
    writers.take();
    sleep(BASELINE).await;
    let before = writers.take().acknowledged as f64 / BASELINE.as_secs_f64();

    let begun = Instant::now();
    let joiner = cluster.join(lab.address(cluster.dir(), "joiner")?).await?;
    wait_caught_up(cluster, leader, joiner).await?;
    let took = begun.elapsed();
    let seen = writers.take();
    drop(writers);

    let during = seen.acknowledged as f64 / took.as_secs_f64();
    report.set_for(side, "catchup_s", took.as_secs_f64());
    report.set_for(side, "catchup_mb", megabytes as f64);
    report.set_for(side, "catchup_failed_writes", seen.failed as f64);
    report.set_for(side, "catchup_longest_write_ms", millis(seen.longest));
    report.set_for(side, "catchup_write_ratio", during / before);
    say(format_args!(
        "catch up {megabytes} MB  {side}  {:.2} s, {:.0} writes/s meanwhile ({before:.0} before), {} failed, longest {:.0} \
         ms{}",
        took.as_secs_f64(),
        during,
        seen.failed,
        millis(seen.longest),
        seen.first_error.map(|error| format!(" ({error})")).unwrap_or_default()
    ));
    Ok(())
}

/// Until the joiner has applied what the leader had committed a moment ago, and answers a linearizable read.
async fn wait_caught_up(cluster: &mut Cluster, leader: usize, joiner: usize) -> Result<()> {
    let deadline = Instant::now() + CATCH_UP_DEADLINE;
    loop {
        let committed = cluster.status(leader).await?.committed;
        // A member that is only starting answers nothing yet.
        let applied = cluster.status(joiner).await.map_or(0, |status| status.applied);
        if applied >= committed {
            return cluster.wait_serving(joiner).await;
        }
        if Instant::now() > deadline {
            bail!("not caught up after {CATCH_UP_DEADLINE:?}: {applied} of {committed}");
        }
        sleep(ASK_EVERY).await;
    }
}
