//! What this host tells of itself in its beats: how much it carries, and what it has.
//!
//! Looked up now and then beside the beats, never for one: a pool whose storage hangs must not silence a host
//! that lives.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plasmavmc_types::{BridgeName, Capacity, HostFacts, PoolName, VmName, VmSpec, VmSpecFields};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::beat::Load;
use super::prepare::Workshop;
use super::probe::{self, Probes};
use super::vms::Books;
use crate::clock::boottime_ms;
use crate::store::Mirror;

const KIB_PER_MIB: u64 = 1024;
/// What stands in a beat is cut to this.
const MAX_TEXT_BYTES: usize = 500;
const MAX_LIST: usize = 64;
/// Storage that does not say within this that it is there is not offered.
const POOLS_WITHIN: Duration = Duration::from_secs(5);
/// Facts are looked up anew this often, and whenever one of them is known to have changed.
const FACTS_EVERY: Duration = Duration::from_secs(30);
/// So often is it asked whether a look at a shared pool is due.
const PROBES_EVERY: Duration = Duration::from_secs(1);

/// How the capacity of a host follows from its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapacityRule {
    /// How many vcpus each processor carries.
    pub vcpus_per_cpu: u32,
    /// Processors that are kept for the host itself.
    pub reserve_vcpus: u32,
    /// How much of the memory is given away; above 100, more than there is.
    pub memory_percent: u32,
    /// Memory that is kept for the host itself.
    pub reserve_memory_mb: u64,
}

impl Default for CapacityRule {
    fn default() -> Self {
        Self {
            vcpus_per_cpu: 16,
            reserve_vcpus: 0,
            memory_percent: 100,
            reserve_memory_mb: 512,
        }
    }
}

impl CapacityRule {
    /// At least one of each: a host with nothing to give may still tell of itself.
    pub fn apply(self, cpus: u32, memory_mb: u64) -> Capacity {
        let cpus = cpus.saturating_sub(self.reserve_vcpus);
        let memory_mb = memory_mb.saturating_sub(self.reserve_memory_mb);
        Capacity {
            vcpus: cpus.saturating_mul(self.vcpus_per_cpu).max(1),
            memory_mb: (memory_mb.saturating_mul(u64::from(self.memory_percent)) / 100).max(1),
        }
    }

    /// For the host this runs on.
    pub fn own(self) -> Capacity {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        self.apply(cpus, memory_mb(&meminfo).unwrap_or(0))
    }
}

fn memory_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / KIB_PER_MIB)
}

/// Puts together what the beats carry.
#[derive(Debug)]
pub struct Inventory {
    workshop: Arc<Workshop>,
    probes: Probes,
    mirror: Mirror,
    books: watch::Receiver<Books>,
}

impl Inventory {
    pub fn new(workshop: Arc<Workshop>, probes: Probes, mirror: Mirror, books: watch::Receiver<Books>) -> Self {
        Self {
            workshop,
            probes,
            mirror,
            books,
        }
    }

    /// What the first beat carries: a server that was restarted offers what it offered before.
    pub async fn first(&mut self) -> Load {
        self.probe().await;
        Load {
            facts: self.look(&[]).await,
            ..Load::default()
        }
    }

    /// Until it is told to stop. The locks in shared pools are held for as long as this runs.
    pub async fn keep(mut self, load: watch::Sender<Load>, stop: CancellationToken) {
        let mut every = tokio::time::interval(PROBES_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked: Option<Instant> = None;
        loop {
            let warnings = self.books.borrow().warnings.clone();
            let is_tick = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = self.books.changed() => false,
                _ = every.tick() => true,
            };
            let is_news = is_tick && self.probe().await;
            let is_time = looked.is_none_or(|looked| looked.elapsed() >= FACTS_EVERY);
            let known = self.books.borrow_and_update().clone();
            let facts = match is_news || is_time || known.warnings != warnings {
                true => Some(self.look(&known.warnings).await),
                false => None,
            };
            if facts.is_some() {
                looked = Some(Instant::now());
            }
            load.send_modify(|load| {
                load.usage = known.usage;
                if let Some(facts) = facts {
                    load.facts = facts;
                }
            });
        }
    }

    async fn probe(&mut self) -> bool {
        let mirror = &self.mirror;
        let read = |pool: &PoolName, me| mirror.read(|view| probe::alive(view, pool, me));
        self.probes.look(boottime_ms(), read).await
    }

    /// Looks it all up, but for the shared pools, of which it is known. `warnings` is what else a person should look at.
    async fn look(&self, warnings: &[String]) -> HostFacts {
        let (pools, mut all_warnings) = look_at_pools(&self.workshop).await;
        all_warnings.extend(self.probes.warnings());
        all_warnings.extend(warnings.iter().cloned());
        let accelerator = match usual_vm() {
            Some(spec) => match self.workshop.accelerator_for(&spec).await {
                Ok(verdict) => format!("{}: {}", verdict.accelerator, verdict.reason),
                Err(error) => format!("none: {error}"),
            },
            None => String::new(),
        };
        HostFacts {
            pools,
            shared_pools: self.probes.passed().take(MAX_LIST).cloned().collect(),
            bridges: bridges(Path::new("/sys/class/net")),
            accelerator: cut(&accelerator),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warnings: all_warnings.iter().take(MAX_LIST).map(|text| cut(text)).collect(),
        }
    }
}

async fn look_at_pools(workshop: &Arc<Workshop>) -> (Vec<PoolName>, Vec<String>) {
    let Some(mut present) = present_pools(workshop).await else {
        let text = format!(
            "the storage of a pool does not answer within {} s: no pool is offered until it does",
            POOLS_WITHIN.as_secs()
        );
        return (Vec::new(), vec![text]);
    };
    present.truncate(MAX_LIST);
    (present, Vec::new())
}

/// Nothing if their storage does not answer. A look that hangs keeps its thread: there is never more than one.
async fn present_pools(workshop: &Arc<Workshop>) -> Option<Vec<PoolName>> {
    let looking = Arc::clone(&workshop.pools_look).try_acquire_owned().ok()?;
    let looker = Arc::clone(workshop);
    let look = tokio::task::spawn_blocking(move || {
        let _looking = looking;
        looker.pools().present()
    });
    tokio::time::timeout(POOLS_WITHIN, look).await.ok()?.ok()
}

/// One with the default for everything, to ask the accelerator about.
fn usual_vm() -> Option<VmSpec> {
    VmSpec::new(VmSpecFields::new(VmName::new("usual").ok()?, 1, 64)).ok()
}

fn bridges(class_net: &Path) -> Vec<BridgeName> {
    let interfaces = std::fs::read_dir(class_net).into_iter().flatten().flatten();
    let bridges = interfaces.filter(|interface| interface.path().join("bridge").is_dir());
    let names = bridges.filter_map(|bridge| BridgeName::new(bridge.file_name().into_string().ok()?).ok());
    let mut names: Vec<BridgeName> = names.collect();
    names.sort_unstable();
    names.truncate(MAX_LIST);
    names
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_from_size_and_is_never_zero() {
        let rule = CapacityRule {
            vcpus_per_cpu: 4,
            reserve_vcpus: 1,
            memory_percent: 50,
            reserve_memory_mb: 1000,
        };
        let check = |cpus, memory_mb, expected: (u32, u64)| {
            let capacity = rule.apply(cpus, memory_mb);
            assert_eq!((capacity.vcpus, capacity.memory_mb), expected);
        };
        check(8, 9000, (28, 4000));
        check(1, 900, (1, 1));
        assert_eq!(memory_mb("MemFree: 1 kB\nMemTotal:       2097152 kB\n"), Some(2048));
        assert_eq!(memory_mb("what"), None);
    }

    #[test]
    fn only_bridges_are_bridges() {
        let net = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(net.path().join("br1/bridge")).unwrap();
        std::fs::create_dir_all(net.path().join("br0/bridge")).unwrap();
        std::fs::create_dir_all(net.path().join("eth0")).unwrap();
        let names: Vec<String> = bridges(net.path()).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["br0", "br1"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ä".repeat(300)).len(), MAX_TEXT_BYTES);
    }
}
