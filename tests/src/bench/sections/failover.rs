//! How long writes stop when the leader is killed, or stands still, under load.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{OUTAGE_DEADLINE, say};
use crate::bench::cluster::Cluster;
use crate::bench::figures::Spread;
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::report::Report;
use crate::bench::roaming::Writers;

const WRITERS: usize = 16;
/// After which a writer turns to another member.
const WRITE_DEADLINE: Duration = Duration::from_millis(250);

/// How a leader is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Kill,
    Pause,
}

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut clusters = lab.pair().await?;
    for (loss, key) in [(Loss::Kill, "leader_loss"), (Loss::Pause, "leader_pause")] {
        let mut outages = Pair::<Vec<Duration>>::default();
        for turn in 0..lab.plan.losses {
            for side in Side::turns(turn) {
                let outage = lose_leader(clusters.of_mut(side), loss).await;
                let outage = outage.with_context(|| format!("{loss:?} {turn} of {}", lab.product(side)))?;
                say(format_args!("{key} {turn:>2}  {side}  {:.2} s", outage.as_secs_f64()));
                outages.of_mut(side).push(outage);
            }
        }
        for side in Side::BOTH {
            let Some(spread) = Spread::of(outages.of(side)) else {
                continue;
            };
            report.set_for(side, &format!("{key}_p50_s"), spread.p50_s);
            report.set_for(side, &format!("{key}_p99_s"), spread.p99_s);
            report.set_for(side, &format!("{key}_max_s"), spread.max_s);
            say(format_args!(
                "{key} {} times  {side}  writes back after {:.2} s median, {:.2} s p99, {:.2} s worst",
                lab.plan.losses, spread.p50_s, spread.p99_s, spread.max_s
            ));
        }
    }
    Ok(())
}

/// Loses the leader while all write, and brings it back when writes go on.
async fn lose_leader(cluster: &mut Cluster, loss: Loss) -> Result<Duration> {
    let leader = cluster.wait_whole().await?.leader;
    // Writers begin at the leader and know all members.
    let places: Vec<_> = (0..cluster.len()).map(|step| (leader + step) % cluster.len()).collect();
    let writers = Writers::start(cluster, &places, WRITERS, WRITE_DEADLINE);
    let begun = writers.wait_writing(OUTAGE_DEADLINE).await;
    if let Err(error) = begun {
        return Err(error.context(evidence(cluster, &writers, leader, "before the loss").await));
    }

    let resumption = writers.expect_from_now();
    match loss {
        Loss::Kill => cluster.kill(leader).await?,
        Loss::Pause => cluster.pause(leader)?,
    }
    let mut outage = resumption.wait(OUTAGE_DEADLINE).await;
    if let Err(error) = outage {
        outage = Err(error.context(evidence(cluster, &writers, leader, "after the loss").await));
    }
    match loss {
        Loss::Kill => cluster.restart(leader)?,
        Loss::Pause => cluster.resume(leader)?,
    }
    drop(writers);
    outage
}

/// What is needed to find out why nobody could write.
async fn evidence(cluster: &Cluster, writers: &Writers, leader: usize, when: &str) -> String {
    let seen = writers.take();
    format!(
        "{when} of the leader, {}: the writers saw {seen:?}\n{}",
        cluster.address(leader),
        cluster.last_words().await
    )
}
