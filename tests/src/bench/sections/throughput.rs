//! Calls a second and their latency, in interleaved rounds.

use anyhow::{Context, Result};

use super::say;
use crate::bench::figures::{median, paired_ratio};
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::load::{self, Fill, Measured, Round, Work};
use crate::bench::report::Report;

/// How many keys the calls spread over.
const KEYS: u64 = 10_000;
/// The number of clients at which the cost in processor time is noted.
const COST_AT: usize = 64;

pub async fn run(lab: &Lab, report: &mut Report, work: Work, levels: &[usize]) -> Result<()> {
    let mut clusters = lab.pair().await?;
    for side in Side::BOTH {
        let cluster = clusters.of_mut(side);
        let leader = cluster.wait_whole().await?.leader;
        load::fill(cluster, leader, Fill::bulk(0..KEYS)).await?;
    }
    for &clients in levels {
        let round = Round {
            work,
            clients,
            keys: KEYS,
            warm_up: lab.plan.warm_up,
            measure: lab.plan.measure,
        };
        let mut measured = Pair::<Vec<Measured>>::default();
        for turn in 0..lab.plan.rounds {
            for side in Side::turns(turn) {
                let cluster = clusters.of_mut(side);
                let leader = cluster.wait_whole().await?.leader;
                let outcome = load::run(cluster, leader, round).await;
                let outcome = outcome.with_context(|| format!("{clients} clients of {}", lab.product(side)))?;
                measured.of_mut(side).push(outcome);
            }
        }
        note(report, round, &measured);
    }
    Ok(())
}

fn note(report: &mut Report, round: Round, measured: &Pair<Vec<Measured>>) {
    let (op, clients) = (round.work.name(), round.clients);
    let column = |side: Side, read: fn(&Measured) -> f64| measured.of(side).iter().map(read).collect::<Vec<_>>();
    for side in Side::BOTH {
        let ops = median(&column(side, |round| round.ops_per_s));
        let p50 = median(&column(side, |round| round.p50_ms));
        let p99 = median(&column(side, |round| round.p99_ms));
        let members_us = median(&column(side, |round| round.members_us));
        let generator_us = median(&column(side, |round| round.generator_us));
        report.set_for(side, &format!("{op}_ops_{clients}"), ops);
        report.set_for(side, &format!("{op}_p99_ms_{clients}"), p99);
        if clients == COST_AT {
            report.set_for(side, &format!("{op}_members_cpu_us"), members_us);
            report.set_for(side, &format!("{op}_generator_cpu_us"), generator_us);
        }
        say(format_args!(
            "{op} {clients:>4} clients  {side}  {:>8.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  cpu {:>5.0} us members, {:>3.0} \
             us generator",
            ops.unwrap_or(f64::NAN),
            p50.unwrap_or(f64::NAN),
            p99.unwrap_or(f64::NAN),
            members_us.unwrap_or(f64::NAN),
            generator_us.unwrap_or(f64::NAN),
        ));
    }
    let ratio = |read| paired_ratio(&column(Side::Ours, read), &column(Side::Peer, read));
    let (ops, p99) = (ratio(|round| round.ops_per_s), ratio(|round| round.p99_ms));
    report.set(format!("{op}_ops_ratio_{clients}"), ops);
    report.set(format!("{op}_p99_ratio_{clients}"), p99);
    say(format_args!(
        "{op} {clients:>4} clients  ratio {:.2}  p99 ratio {:.2}",
        ops.unwrap_or(f64::NAN),
        p99.unwrap_or(f64::NAN)
    ));
}
