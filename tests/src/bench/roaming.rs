//! Writers that go on when a member does not: at a failure each turns to the next member.
//!
//! They tell how long writing was not possible, as those who write would see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::cluster::Cluster;
use super::load::{VALUE_BYTES, Values, key};
use super::programs::Product;

/// Before the next member is tried: a refused connection is answered at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);
/// The keys that are written.
const KEYS: u64 = 1_000;

/// What the writers have seen since the last [`Writers::take`].
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub acknowledged: u64,
    pub failed: u64,
    pub longest: Duration,
    pub first_error: Option<String>,
    pub last_error: Option<String>,
}

/// Clients that write without end.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Mutex<Shared>>,
    // Ends the clients when dropped.
    _running: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Seen,
    /// Told of the first acknowledged write that was begun at this moment or later.
    awaited: Option<(Instant, oneshot::Sender<Instant>)>,
}

/// The end of a time without writes.
#[derive(Debug)]
pub struct Resumption {
    since: Instant,
    acknowledged: oneshot::Receiver<Instant>,
}

impl Resumption {
    /// From the loss until the first write that was begun after it is acknowledged.
    pub async fn wait(self, deadline: Duration) -> Result<Duration> {
        let acknowledged = timeout(deadline, self.acknowledged)
            .await
            .with_context(|| format!("no write was acknowledged for {deadline:?}"))?
            .map_err(|_| anyhow!("the writers ended"))?;
        Ok(acknowledged - self.since)
    }
}

impl Writers {
    /// Starts `count` writers on the members at `places`, all of them at the first to begin with. A write
    /// without an answer after `deadline` has failed.
    pub fn start(cluster: &Cluster, places: &[usize], count: usize, deadline: Duration) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let addresses: Arc<[String]> = places.iter().map(|&place| cluster.address(place).to_owned()).collect();
        let mut running = JoinSet::new();
        for seed in 0..count {
            let writer = Writer {
                product: cluster.product(),
                addresses: addresses.clone(),
                deadline,
                shared: shared.clone(),
                values: Values::new(seed as u64),
            };
            running.spawn(writer.run(seed));
        }
        Self {
            shared,
            _running: running,
        }
    }

    /// Everything seen since the last call.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.shared.lock().seen)
    }

    /// Waits for one write that begins now, so that what happens next happens under load.
    pub async fn wait_writing(&self, deadline: Duration) -> Result<()> {
        self.expect_from_now().wait(deadline).await.map(drop)
    }

    /// To be called at the moment of a loss.
    pub fn expect_from_now(&self) -> Resumption {
        let since = Instant::now();
        let (sender, acknowledged) = oneshot::channel();
        self.shared.lock().awaited = Some((since, sender));
        Resumption { since, acknowledged }
    }
}

struct Writer {
    product: Product,
    addresses: Arc<[String]>,
    deadline: Duration,
    shared: Arc<Mutex<Shared>>,
    values: Values,
}

impl Writer {
    async fn run(mut self, seed: usize) {
        let mut number = seed as u64;
        let mut place = 0;
        loop {
            let address = self.addresses[place % self.addresses.len()].clone();
            let failure = match Client::connect(self.product, &address, self.deadline).await {
                Ok(client) => self.write_until_failure(client, &mut number).await,
                Err(error) => error,
            };
            {
                let seen = &mut self.shared.lock().seen;
                seen.failed += 1;
                let failure = format!("{address}: {failure:#}");
                seen.first_error.get_or_insert_with(|| failure.clone());
                seen.last_error = Some(failure);
            }
            place += 1;
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    async fn write_until_failure(&mut self, mut client: Client, number: &mut u64) -> anyhow::Error {
        loop {
            *number = (*number + 17) % KEYS;
            let begun = Instant::now();
            if let Err(error) = client.put(key(*number), self.values.next(VALUE_BYTES)).await {
                return error;
            }
            self.shared.lock().acknowledge(begun, Instant::now());
        }
    }
}

impl Shared {
    fn acknowledge(&mut self, begun: Instant, ended: Instant) {
        self.seen.acknowledged += 1;
        self.seen.longest = self.seen.longest.max(ended - begun);
        if let Some((_, sender)) = self.awaited.take_if(|(since, _)| begun >= *since) {
            // Nobody waits any more: its deadline has passed.
            let _ = sender.send(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_begun_before_the_loss_ends_no_outage() {
        let (sender, mut acknowledged) = oneshot::channel();
        let loss = Instant::now();
        let mut shared = Shared {
            awaited: Some((loss, sender)),
            ..Shared::default()
        };
        let second = Duration::from_secs(1);
        shared.acknowledge(loss - second, loss + second);
        assert!(acknowledged.try_recv().is_err());
        shared.acknowledge(loss + second, loss + 3 * second);
        assert_eq!(acknowledged.try_recv(), Ok(loss + 3 * second));
        assert_eq!((shared.seen.acknowledged, shared.seen.longest), (2, 2 * second));
    }
}
