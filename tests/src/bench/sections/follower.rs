//! A follower that goes and comes back must not be noticed by those who write through the leader.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{OUTAGE_DEADLINE, followers, say};
use crate::bench::cluster::Cluster;
use crate::bench::figures::millis;
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::report::Report;
use crate::bench::roaming::Writers;

const WRITERS: usize = 16;
/// After which a write counts as failed.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long is watched after a follower is back: longer than any election takes.
const AFTERMATH: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
enum Absence {
    /// SIGTERM and SIGKILL in turn.
    Restart,
    Pause,
}

/// What the writers noticed in all.
#[derive(Debug, Default)]
struct Noticed {
    term_changes: u64,
    failed_writes: u64,
    longest: Duration,
    first_error: Option<String>,
}

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut clusters = lab.pair().await?;
    let mut in_all = Pair::<Noticed>::default();
    for absence in [Absence::Restart, Absence::Pause] {
        let mut noticed = Pair::<Noticed>::default();
        for turn in 0..lab.plan.losses {
            for side in Side::turns(turn) {
                let done = leave_and_return(lab, clusters.of_mut(side), absence, turn, noticed.of_mut(side)).await;
                done.with_context(|| format!("{absence:?} {turn} of {}", lab.product(side)))?;
            }
        }
        for side in Side::BOTH {
            let seen = noticed.of(side);
            say(format_args!(
                "follower {absence:?} {} times  {side}  {} term changes, {} failed writes, longest write {:.0} ms{}",
                lab.plan.losses,
                seen.term_changes,
                seen.failed_writes,
                millis(seen.longest),
                seen.first_error
                    .as_ref()
                    .map(|error| format!(" ({error})"))
                    .unwrap_or_default()
            ));
            in_all.of_mut(side).add(seen);
        }
    }
    for side in Side::BOTH {
        let seen = in_all.of(side);
        report.set_for(side, "follower_term_changes", seen.term_changes as f64);
        report.set_for(side, "follower_failed_writes", seen.failed_writes as f64);
        report.set_for(side, "follower_longest_write_ms", millis(seen.longest));
    }
    Ok(())
}

async fn leave_and_return(
    lab: &Lab,
    cluster: &mut Cluster,
    absence: Absence,
    turn: usize,
    noticed: &mut Noticed,
) -> Result<()> {
    let before = cluster.wait_whole().await?;
    let candidates = followers(before.leader, cluster.len());
    let follower = candidates[turn % candidates.len()];
    let writers = Writers::start(cluster, &[before.leader], WRITERS, WRITE_DEADLINE);
    writers.wait_writing(OUTAGE_DEADLINE).await?;
    writers.take();

    match absence {
        Absence::Restart => {
            if turn.is_multiple_of(2) {
                cluster.stop(follower).await?;
            } else {
                cluster.kill(follower).await?;
            }
            cluster.restart(follower)?;
        }
        Absence::Pause => {
            cluster.pause(follower)?;
            sleep(lab.plan.follower_pause).await;
            cluster.resume(follower)?;
        }
    }
    cluster.wait_serving(follower).await?;
    sleep(AFTERMATH).await;
    let seen = writers.take();
    drop(writers);
    let after = cluster.wait_whole().await?;
    noticed.add(&Noticed {
        term_changes: after.term - before.term,
        failed_writes: seen.failed,
        longest: seen.longest,
        first_error: seen.first_error,
    });
    Ok(())
}

impl Noticed {
    fn add(&mut self, more: &Noticed) {
        self.term_changes += more.term_changes;
        self.failed_writes += more.failed_writes;
        self.longest = self.longest.max(more.longest);
        if self.first_error.is_none() {
            self.first_error.clone_from(&more.first_error);
        }
    }
}
