//! Closed-loop load: each client has a connection of its own and one call outstanding.
//!
//! A call that fails ends the round with its error: a figure never hides failures.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::client::Client;
use super::cluster::Cluster;
use super::figures::percentile;
use super::process::own_cpu_time;

pub const VALUE_BYTES: usize = 256;
/// After which a call counts as failed.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// What the clients of a round do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Put,
    /// Linearizable.
    Get,
    /// One compare and one put.
    Txn,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Work::Put => "put",
            Work::Get => "get",
            Work::Txn => "txn",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub work: Work,
    pub clients: usize,
    /// Keys `0..keys` are there already; each call takes one at random.
    pub keys: u64,
    pub warm_up: Duration,
    pub measure: Duration,
}

/// What a round came to.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub ops_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Processor time of this program per call.
    pub generator_us: f64,
    /// Processor time of all members per call.
    pub members_us: f64,
}

/// The part of a round that counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

pub fn key(number: u64) -> Bytes {
    format!("/bench/{number:08}").into()
}

/// Values that do not compress, cut from one block so that making one costs nothing.
#[derive(Debug, Clone)]
pub struct Values {
    block: Bytes,
    rng: SmallRng,
}

impl Values {
    pub fn new(seed: u64) -> Self {
        let mut block = vec![0; 256 * 1024];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut block);
        Self {
            block: block.into(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The same block, another order.
    pub fn reseeded(&self, seed: u64) -> Self {
        Self {
            block: self.block.clone(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub fn next(&mut self, bytes: usize) -> Bytes {
        let start = self.rng.random_range(0..=self.block.len() - bytes);
        self.block.slice(start..start + bytes)
    }
}

/// Runs one round against the member at `index`.
pub async fn run(cluster: &Cluster, index: usize, round: Round) -> Result<Measured> {
    let values = Values::new(1);
    let mut clients = Vec::new();
    for _ in 0..round.clients {
        clients.push(cluster.connect(index, CALL_DEADLINE).await?);
    }
    let from = Instant::now() + round.warm_up;
    let window = Window {
        from,
        to: from + round.measure,
    };
    let mut running = JoinSet::new();
    for (seed, client) in clients.into_iter().enumerate() {
        running.spawn(keep_calling(client, round, values.reseeded(seed as u64), window));
    }
    sleep_until(window.from.into()).await;
    let (own_before, members_before) = (own_cpu_time()?, cluster.cpu_time()?);
    sleep_until(window.to.into()).await;
    let (own_after, members_after) = (own_cpu_time()?, cluster.cpu_time()?);

    let mut latencies = Vec::new();
    while let Some(client) = running.join_next().await {
        latencies.append(&mut client??);
    }
    let calls = latencies.len() as f64;
    let (Some(p50), Some(p99)) = (percentile(&mut latencies, 0.5), percentile(&mut latencies, 0.99)) else {
        bail!("no call was answered within {:?}", round.measure);
    };
    Ok(Measured {
        ops_per_s: calls / round.measure.as_secs_f64(),
        p50_ms: f64::from(p50) / 1e3,
        p99_ms: f64::from(p99) / 1e3,
        generator_us: (own_after - own_before).as_secs_f64() * 1e6 / calls,
        members_us: (members_after - members_before).as_secs_f64() * 1e6 / calls,
    })
}

/// Calls until the window closes and answers the latencies, in microseconds, of the calls that ended in it.
async fn keep_calling(mut client: Client, round: Round, mut values: Values, window: Window) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut begun = Instant::now();
    while begun < window.to {
        let key = key(values.rng.random_range(0..round.keys));
        match round.work {
            Work::Put => client.put(key, values.next(VALUE_BYTES)).await?,
            Work::Get => match client.get(key).await? {
                Some(value) if value.len() == VALUE_BYTES => {}
                other => bail!(
                    "a key that is there was answered with {:?} bytes",
                    other.map(|value| value.len())
                ),
            },
            Work::Txn => {
                if !client.put_if_present(key, values.next(VALUE_BYTES)).await? {
                    bail!("a transaction on a key that is there did not succeed");
                }
            }
        }
        let ended = Instant::now();
        if ended >= window.from && ended < window.to {
            latencies.push(u32::try_from((ended - begun).as_micros())?);
        }
        begun = ended;
    }
    Ok(latencies)
}

/// What to put into a store before it is measured.
#[derive(Debug, Clone)]
pub struct Fill {
    pub keys: Range<u64>,
    pub value_bytes: usize,
    /// How many keys go into one transaction; 1: plain puts.
    pub keys_per_call: usize,
}

impl Fill {
    /// Quickly, for what only needs the keys to be there.
    pub fn bulk(keys: Range<u64>) -> Self {
        Self {
            keys,
            value_bytes: VALUE_BYTES,
            keys_per_call: 100,
        }
    }

    /// As users would, each key by a put of its own.
    pub fn one_by_one(keys: Range<u64>) -> Self {
        Self {
            keys_per_call: 1,
            ..Self::bulk(keys)
        }
    }
}

/// Writes every key of `fill` once, through the member at `index`.
pub async fn fill(cluster: &Cluster, index: usize, fill: Fill) -> Result<()> {
    let clients = if fill.keys_per_call > 1 { 8 } else { 64 };
    let next = Arc::new(AtomicU64::new(fill.keys.start));
    let values = Values::new(2);
    let mut running = JoinSet::new();
    for seed in 0..clients {
        let client = cluster.connect(index, CALL_DEADLINE).await?;
        running.spawn(keep_filling(client, fill.clone(), next.clone(), values.reseeded(seed)));
    }
    while let Some(client) = running.join_next().await {
        client??;
    }
    Ok(())
}

async fn keep_filling(mut client: Client, fill: Fill, next: Arc<AtomicU64>, mut values: Values) -> Result<()> {
    let step = fill.keys_per_call as u64;
    loop {
        let first = next.fetch_add(step, Ordering::Relaxed);
        if first >= fill.keys.end {
            return Ok(());
        }
        if step == 1 {
            client.put(key(first), values.next(fill.value_bytes)).await?;
            continue;
        }
        let numbers = first..fill.keys.end.min(first + step);
        let pairs = numbers.map(|number| (key(number), values.next(fill.value_bytes)));
        client.put_all(pairs.collect()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        let mut values = Values::new(1);
        let (first, second) = (values.next(VALUE_BYTES), values.next(VALUE_BYTES));
        assert_eq!((first.len(), second.len()), (VALUE_BYTES, VALUE_BYTES));
        assert_ne!(first, second);
        assert_eq!(Values::new(1).next(64), values.reseeded(1).next(64));
    }

    #[test]
    fn keys_sort_as_their_numbers() {
        assert!(key(9) < key(10) && key(99_999) < key(1_000_000));
    }
}
