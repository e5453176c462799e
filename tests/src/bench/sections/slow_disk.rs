//! Puts where every write of our log takes as long as on a cheap SSD.
//!
//! The peer has no such switch, so these figures are ours alone.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::say;
use crate::bench::figures::median;
use crate::bench::lab::Lab;
use crate::bench::load::{self, Fill, Round, Work};
use crate::bench::report::Report;

const DELAY: Duration = Duration::from_millis(5);
const KEYS: u64 = 10_000;

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut cluster = lab.cluster_with_slow_log(DELAY).await?;
    let leader = cluster.wait_whole().await?.leader;
    load::fill(&cluster, leader, Fill::bulk(0..KEYS)).await?;
    let round = |clients| Round {
        work: Work::Put,
        clients,
        keys: KEYS,
        warm_up: lab.plan.warm_up,
        measure: lab.plan.measure,
    };

    let alone = load::run(&cluster, leader, round(1)).await.context("1 client")?;
    if alone.p50_ms < DELAY.as_secs_f64() * 1e3 {
        bail!(
            "a put takes {:.2} ms although its log write alone should take {DELAY:?}: build chainfire with \
             `--features faults`, or name such a build in CHAINFIRE_FAULTS_BIN",
            alone.p50_ms
        );
    }
    report.set("put_p50_ms_1_5ms", alone.p50_ms);

    for clients in [64, 256] {
        let (mut ops, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..lab.plan.rounds {
            let leader = cluster.wait_whole().await?.leader;
            let measured = load::run(&cluster, leader, round(clients)).await;
            let measured = measured.with_context(|| format!("{clients} clients"))?;
            ops.push(measured.ops_per_s);
            p99.push(measured.p99_ms);
        }
        let (ops, p99) = (median(&ops), median(&p99));
        report.set(format!("put_ops_{clients}_5ms"), ops);
        report.set(format!("put_p99_ms_{clients}_5ms"), p99);
        say(format_args!(
            "put {clients:>4} clients, log {DELAY:?} slower  {:>8.0}/s  p99 {:.2} ms",
            ops.unwrap_or(f64::NAN),
            p99.unwrap_or(f64::NAN)
        ));
    }
    Ok(())
}
