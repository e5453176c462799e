//! How long one change takes to reach 1,000 watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::say;
use crate::bench::client::{CONNECT_DEADLINE, Client};
use crate::bench::cluster::Cluster;
use crate::bench::figures::{millis, paired_ratio, percentile};
use crate::bench::lab::{Lab, Pair, Side};
use crate::bench::load::{VALUE_BYTES, Values};
use crate::bench::report::Report;
use crate::bench::watching::{self, watch};
use chainfire::transport::Wire;

const WATCHES: usize = 1_000;
/// Each watch is a stream of its own; so many share a connection.
const WATCHES_PER_CONNECTION: usize = 20;
const PREFIX: &str = "/watched/";
const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);
const PUT_DEADLINE: Duration = Duration::from_secs(10);

/// Times from sending the put on.
#[derive(Debug, Default)]
struct Times {
    /// Of each event, to the last watch.
    to_all: Vec<Duration>,
    /// To each watch.
    to_each: Vec<Duration>,
}

pub async fn run(lab: &Lab, report: &mut Report) -> Result<()> {
    let mut clusters = lab.pair().await?;
    let mut fans = Vec::new();
    for side in Side::BOTH {
        let cluster = clusters.of_mut(side);
        let leader = cluster.wait_whole().await?.leader;
        fans.push(Fan::open(cluster, leader).await?);
    }
    let mut times = Pair::<Times>::default();
    let mut round_p99 = Pair::<Vec<f64>>::default();
    for turn in 0..lab.plan.rounds {
        for side in Side::turns(turn) {
            let fan = &mut fans[side as usize];
            let mut round = fan.deliver(lab.plan.watch_events).await?;
            round_p99
                .of_mut(side)
                .extend(percentile(&mut round.to_all.clone(), 0.99).map(millis));
            let all = times.of_mut(side);
            all.to_all.append(&mut round.to_all);
            all.to_each.append(&mut round.to_each);
        }
    }
    for side in Side::BOTH {
        let Times { to_all, to_each } = times.of_mut(side);
        let p50 = percentile(to_all, 0.5).map(millis);
        let p99 = percentile(to_all, 0.99).map(millis);
        let each_p99 = percentile(to_each, 0.99).map(millis);
        report.set_for(side, "watch_1000_p50_ms", p50);
        report.set_for(side, "watch_1000_p99_ms", p99);
        report.set_for(side, "watch_each_p99_ms", each_p99);
        say(format_args!(
            "watch {WATCHES} watches  {side}  to all p50 {:.1} ms  p99 {:.1} ms  to each p99 {:.1} ms",
            p50.unwrap_or(f64::NAN),
            p99.unwrap_or(f64::NAN),
            each_p99.unwrap_or(f64::NAN),
        ));
    }
    report.set("watch_1000_p99_ratio", paired_ratio(&round_p99.ours, &round_p99.peer));
    Ok(())
}

/// Open watches and the client that writes what they see.
struct Fan {
    watches: JoinSet<Result<()>>,
    board: Arc<Board>,
    writer: Client,
    padding: Bytes,
}

/// Where the watches note what came.
#[derive(Debug, Default)]
struct Board {
    /// The number of the event under way.
    current: AtomicU64,
    missing: AtomicUsize,
    arrivals: Mutex<Vec<Instant>>,
    complete: Notify,
}

impl Board {
    fn arrived(&self) {
        self.arrivals.lock().push(Instant::now());
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }
}

impl Fan {
    async fn open(cluster: &Cluster, leader: usize) -> Result<Self> {
        let board = Arc::<Board>::default();
        let mut watches = JoinSet::new();
        for _ in 0..WATCHES / WATCHES_PER_CONNECTION {
            let wire = Wire::open(cluster.address(leader), CONNECT_DEADLINE).await?;
            for _ in 0..WATCHES_PER_CONNECTION {
                let values = watch(cluster.product(), wire.clone(), PREFIX).await?;
                watches.spawn(note_arrivals(values, board.clone()));
            }
        }
        Ok(Self {
            watches,
            board,
            writer: cluster.connect(leader, PUT_DEADLINE).await?,
            padding: Values::new(3).next(VALUE_BYTES - 8),
        })
    }

    /// Writes `events` one after the other, each when the last has reached every watch.
    async fn deliver(&mut self, events: usize) -> Result<Times> {
        let mut times = Times::default();
        for _ in 0..events {
            let number = self.board.current.fetch_add(1, Ordering::AcqRel) + 1;
            self.board.missing.store(WATCHES, Ordering::Release);
            let value = [&number.to_be_bytes(), &self.padding[..]].concat();
            let sent = Instant::now();
            self.writer
                .put(format!("{PREFIX}{}", number % 100).into(), value.into())
                .await?;
            let complete = timeout(DELIVERY_DEADLINE, self.board.complete.notified()).await;
            if let Some(ended) = self.watches.try_join_next() {
                ended??;
                bail!("a watch ended");
            }
            if complete.is_err() {
                let missing = self.board.missing.load(Ordering::Acquire);
                bail!("{missing} of {WATCHES} watches missed an event for {DELIVERY_DEADLINE:?}");
            }
            let arrivals = std::mem::take(&mut *self.board.arrivals.lock());
            times.to_all.extend(arrivals.iter().max().map(|last| *last - sent));
            times.to_each.extend(arrivals.iter().map(|arrival| *arrival - sent));
        }
        Ok(times)
    }
}

/// Reads one watch to its end, which is an error, as is an event out of turn.
async fn note_arrivals(mut values: watching::Values, board: Arc<Board>) -> Result<()> {
    while let Some(batch) = values.next().await {
        for value in batch? {
            let expected = board.current.load(Ordering::Acquire);
            let number = value.first_chunk().copied().map(u64::from_be_bytes);
            if number != Some(expected) {
                bail!("a watch saw event {number:?} in place of {expected}");
            }
            board.arrived();
        }
    }
    bail!("a watch ended")
}
