//! From start to the first linearizable read with 100,000 keys: all members after a power cut, and one.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{followers, say};
use crate::bench::cluster::Cluster;
use crate::bench::figures::Spread;
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::load::{self, Fill};
use crate::bench::report::Report;

const KEYS: u64 = 100_000;

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut clusters = lab.pair().await?;
    for side in Side::BOTH {
        let cluster = clusters.of_mut(side);
        let leader = cluster.wait_whole().await?.leader;
        load::fill(cluster, leader, Fill::one_by_one(0..KEYS)).await?;
    }
    let mut all = Pair::<Vec<Duration>>::default();
    let mut one = Pair::<Vec<Duration>>::default();
    for turn in 0..lab.plan.restarts {
        for side in Side::turns(turn) {
            all.of_mut(side).push(restart_all(clusters.of_mut(side)).await?);
            one.of_mut(side).push(restart_one(clusters.of_mut(side)).await?);
        }
    }
    for side in Side::BOTH {
        for (key, what, times) in [("restart", "all", all.of(side)), ("restart_one", "one", one.of(side))] {
            let Some(spread) = Spread::of(times) else { continue };
            report.set_for(side, &format!("{key}_100k_s"), spread.p50_s);
            report.set_for(side, &format!("{key}_100k_max_s"), spread.max_s);
            say(format_args!(
                "restart of {what} with {KEYS} keys  {side}  median {:.2} s  worst {:.2} s",
                spread.p50_s, spread.max_s
            ));
        }
    }
    Ok(())
}

async fn restart_all(cluster: &mut Cluster) -> Result<Duration> {
    cluster.wait_whole().await?;
    cluster.kill_all().await?;
    let members: Vec<_> = (0..cluster.len()).collect();
    let begun = Instant::now();
    for &index in &members {
        cluster.restart(index)?;
    }
    cluster.wait_any_serving(&members).await?;
    Ok(begun.elapsed())
}

async fn restart_one(cluster: &mut Cluster) -> Result<Duration> {
    let leader = cluster.wait_whole().await?.leader;
    let follower = followers(leader, cluster.len())[0];
    cluster.kill(follower).await?;
    let begun = Instant::now();
    cluster.restart(follower)?;
    cluster.wait_serving(follower).await?;
    Ok(begun.elapsed())
}
