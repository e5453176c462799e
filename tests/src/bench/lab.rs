//! The place a run happens in: programs, disk, ports, and how much of everything.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::{Blueprint, Cluster};
use super::figures::percentile;
use super::programs::{self, Address, Product};
use super::reaper::Reaper;

const MEMBERS: usize = 3;
/// Below the ports that outgoing connections take, so that a member finds its port free again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Ours,
    Peer,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Ours, Side::Peer];

    /// What the keys of this side's figures begin with.
    pub fn key_prefix(self) -> &'static str {
        match self {
            Side::Ours => "",
            Side::Peer => "peer_",
        }
    }

    /// Who goes first in which round: A B, B A, A B, ...
    pub fn turns(round: usize) -> [Side; 2] {
        if round.is_multiple_of(2) {
            [Side::Ours, Side::Peer]
        } else {
            [Side::Peer, Side::Ours]
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Side::Ours => "ours",
            Side::Peer => "peer",
        })
    }
}

/// One value for each side.
#[derive(Debug, Default)]
pub struct Pair<T> {
    pub ours: T,
    pub peer: T,
}

impl<T> Pair<T> {
    pub fn of(&self, side: Side) -> &T {
        match side {
            Side::Ours => &self.ours,
            Side::Peer => &self.peer,
        }
    }

    pub fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Ours => &mut self.ours,
            Side::Peer => &mut self.peer,
        }
    }
}

/// How much is done.
#[derive(Debug, Clone)]
pub struct Plan {
    pub rounds: usize,
    /// The measured part of a round.
    pub measure: Duration,
    pub warm_up: Duration,
    pub watch_events: usize,
    /// How often a leader or follower is lost.
    pub losses: usize,
    /// How long a follower is paused.
    pub follower_pause: Duration,
    pub restarts: usize,
    /// How many distinct keys a put is measured at, the first being what the others are compared with.
    pub scales: Vec<(u64, &'static str)>,
    pub catchup_mb: u64,
}

impl Plan {
    pub fn new(quick: bool, seconds: Option<f64>) -> Self {
        let mut scales = vec![(1_000, "1k"), (10_000, "10k"), (100_000, "100k")];
        if !quick {
            scales.push((1_000_000, "1m"));
        }
        Self {
            rounds: 5,
            measure: Duration::from_secs_f64(seconds.unwrap_or(if quick { 1.0 } else { 4.0 })),
            warm_up: Duration::from_millis(if quick { 250 } else { 500 }),
            watch_events: if quick { 20 } else { 100 },
            losses: if quick { 5 } else { 30 },
            follower_pause: Duration::from_secs(if quick { 2 } else { 4 }),
            restarts: if quick { 3 } else { 7 },
            scales,
            catchup_mb: if quick { 50 } else { 200 },
        }
    }
}

/// Where clusters are made.
#[derive(Debug)]
pub struct Lab {
    pub plan: Plan,
    /// Compares the peer with itself: ratios must come out near 1, or the run proves nothing.
    calibrate: bool,
    next_port: AtomicU16,
    next_cluster: AtomicU32,
    /// Before `dir`: it ends what still runs there.
    reaper: Reaper,
    dir: tempfile::TempDir,
}

impl Lab {
    pub fn new(plan: Plan, scratch: &Path, calibrate: bool) -> Result<Self> {
        std::fs::create_dir_all(scratch).with_context(|| format!("making {}", scratch.display()))?;
        let scratch = scratch.canonicalize()?;
        check_is_a_disk(&scratch)?;
        let dir = tempfile::Builder::new().prefix("kv-").tempdir_in(scratch)?;
        let reaper = Reaper::start(dir.path())?;
        let spread = u16::try_from(std::process::id() % 100)?;
        Ok(Self {
            plan,
            calibrate,
            next_port: AtomicU16::new(PORTS.start + 100 * spread),
            next_cluster: AtomicU32::new(0),
            reaper,
            dir,
        })
    }

    pub fn product(&self, side: Side) -> Product {
        match side {
            Side::Ours if !self.calibrate => Product::ChainFire,
            _ => Product::Etcd,
        }
    }

    /// A fresh cluster of each side.
    pub async fn pair(&self) -> Result<Pair<Cluster>> {
        let (ours, peer) = tokio::try_join!(self.cluster(Side::Ours), self.cluster(Side::Peer))?;
        Ok(Pair { ours, peer })
    }

    /// A fresh cluster of one side.
    pub async fn cluster(&self, side: Side) -> Result<Cluster> {
        let product = self.product(side);
        self.found(product, programs::find(product)?, Vec::new()).await
    }

    /// A fresh ChainFire whose every log write takes `delay` longer.
    pub async fn cluster_with_slow_log(&self, delay: Duration) -> Result<Cluster> {
        let environment = vec![("CHAINFIRE_FAULT_LOG_DELAY_MS".into(), delay.as_millis().to_string())];
        self.found(Product::ChainFire, programs::find_with_faults()?, environment)
            .await
    }

    async fn found(&self, product: Product, program: PathBuf, environment: Vec<(String, String)>) -> Result<Cluster> {
        let number = self.next_cluster.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("{product}-{number}"));
        let founders = (1..=MEMBERS).map(|member| self.address(&dir, &format!("m{member}")));
        let blueprint = Blueprint {
            product,
            program,
            environment,
            group: self.reaper.group()?,
            founders: founders.collect::<Result<_>>()?,
            dir,
        };
        Cluster::found(blueprint)
            .await
            .with_context(|| format!("starting three members of {product}"))
    }

    /// A place for a member called `name` of the cluster in `dir`.
    pub fn address(&self, dir: &Path, name: &str) -> Result<Address> {
        Ok(Address {
            name: name.to_owned(),
            dir: dir.join(name),
            client: format!("127.0.0.1:{}", self.free_port()?),
            peer: format!("127.0.0.1:{}", self.free_port()?),
        })
    }

    fn free_port(&self) -> Result<u16> {
        for _ in PORTS {
            let next = |port: u16| Some(if port + 1 >= PORTS.end { PORTS.start } else { port + 1 });
            let (Ok(port) | Err(port)) = self.next_port.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no free port in {PORTS:?}")
    }

    /// What an fdatasync of 4 KiB more takes here: median and 99th percentile.
    pub fn sync_times(&self) -> Result<(Duration, Duration)> {
        use std::io::Write;

        let mut file = std::fs::File::create(self.dir.path().join("sync"))?;
        let mut times = Vec::new();
        for _ in 0..200 {
            file.write_all(&[7; 4096])?;
            let begun = Instant::now();
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        let p50 = percentile(&mut times, 0.5).unwrap_or_default();
        Ok((p50, percentile(&mut times, 0.99).unwrap_or_default()))
    }
}

/// Refuses memory: what is compared is stores that wait for a disk.
fn check_is_a_disk(dir: &Path) -> Result<()> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(dir)?.f_type;
    if kind == TMPFS || kind == RAMFS {
        bail!(
            "{} is in memory, where fsync costs nothing: name a folder on a disk with --dir",
            dir.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_goes_first_in_turn() {
        let first: Vec<_> = (0..4).map(|round| Side::turns(round)[0]).collect();
        assert_eq!(first, [Side::Ours, Side::Peer, Side::Ours, Side::Peer]);
        assert!((0..4).all(|round| Side::turns(round)[0] != Side::turns(round)[1]));
    }

    #[test]
    fn a_full_run_reaches_a_million_keys_and_two_hundred_megabytes() {
        let full = Plan::new(false, None);
        assert_eq!(full.scales.last().map(|scale| scale.0), Some(1_000_000));
        assert!(full.catchup_mb >= 200 && full.losses >= 30 && full.rounds >= 5);
        assert_eq!(Plan::new(true, Some(2.5)).measure, Duration::from_millis(2500));
    }
}
