//! Whether a put costs more the more keys there are.
//!
//! A small store and a growing one of each side run side by side and take turns, so that the machine's
//! mood does not pass for a trend.

use anyhow::{Context, Result};

use super::say;
use crate::bench::cluster::Cluster;
use crate::bench::figures::{median, paired_ratio};
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::load::{self, Fill, Round, Work};
use crate::bench::report::Report;

const CLIENTS: usize = 64;

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let Some((&(small_keys, small_name), larger)) = lab.plan.scales.split_first() else {
        return Ok(());
    };
    let mut small = lab.pair().await?;
    let mut growing = lab.pair().await?;
    for side in Side::BOTH {
        grow(small.of_mut(side), 0, small_keys).await?;
        grow(growing.of_mut(side), 0, small_keys).await?;
    }
    let mut present = small_keys;
    for &(keys, name) in larger {
        for side in Side::BOTH {
            let grown = grow(growing.of_mut(side), present, keys).await;
            grown.with_context(|| format!("growing {} to {keys} keys", lab.product(side)))?;
        }
        present = keys;
        let mut small_ops = Pair::<Vec<f64>>::default();
        let mut large_ops = Pair::<Vec<f64>>::default();
        for turn in 0..lab.plan.rounds {
            for side in Side::turns(turn) {
                small_ops
                    .of_mut(side)
                    .push(puts(lab, small.of_mut(side), small_keys).await?);
                large_ops
                    .of_mut(side)
                    .push(puts(lab, growing.of_mut(side), keys).await?);
            }
        }
        for side in Side::BOTH {
            let ratio = paired_ratio(large_ops.of(side), small_ops.of(side));
            let (small_ops, large_ops) = (median(small_ops.of(side)), median(large_ops.of(side)));
            report.set_for(side, &format!("put_{name}_vs_{small_name}_ratio"), ratio);
            report.set_for(side, &format!("put_ops_{name}_keys"), large_ops);
            say(format_args!(
                "put {keys:>8} keys  {side}  {:>8.0}/s, with {small_name} {:>8.0}/s  ratio {:.2}",
                large_ops.unwrap_or(f64::NAN),
                small_ops.unwrap_or(f64::NAN),
                ratio.unwrap_or(f64::NAN)
            ));
        }
    }
    Ok(())
}

async fn grow(cluster: &mut Cluster, present: u64, wanted: u64) -> Result<()> {
    let leader = cluster.wait_whole().await?.leader;
    load::fill(cluster, leader, Fill::bulk(present..wanted)).await
}

async fn puts(lab: &Lab, cluster: &mut Cluster, keys: u64) -> Result<f64> {
    let leader = cluster.wait_whole().await?.leader;
    let round = Round {
        work: Work::Put,
        clients: CLIENTS,
        keys,
        warm_up: lab.plan.warm_up,
        measure: lab.plan.measure,
    };
    Ok(load::run(cluster, leader, round).await?.ops_per_s)
}
