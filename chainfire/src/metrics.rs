//! What a member counts and measures, for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// All metrics of one member.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub state: Arc<StateMetrics>,
    pub raft: Arc<RaftMetrics>,
}

/// About the applied state and its snapshots.
#[derive(Debug)]
pub struct StateMetrics {
    pub snapshot_seconds: Histogram,
    pub snapshots_built: Counter,
    pub snapshots_installed: Counter,
    pub revision: Gauge,
    pub keys: Gauge,
    pub window_bytes: Gauge,
    pub watches: Gauge,
}

/// About proposing, committing and leading.
#[derive(Debug)]
pub struct RaftMetrics {
    pub proposals: Counter,
    pub proposals_failed: Counter,
    pub batches: Counter,
    pub commit_seconds: Histogram,
    pub fsync_seconds: Histogram,
    pub reads: Counter,
    pub read_rounds: Counter,
    pub commits_carried: Counter,
    pub leader_changes: Counter,
    pub elections: Counter,
    pub pre_votes_lost: Counter,
    pub stood_aside: Counter,
    pub is_leader: Gauge,
    pub term: Gauge,
    pub last_log_index: Gauge,
    pub applied_index: Gauge,
    pub snapshot_index: Gauge,
    pub queued: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("chainfire");
        let state = Arc::new(StateMetrics::register(&mut registry));
        let raft = Arc::new(RaftMetrics::register(&mut registry));
        Self { registry, state, raft }
    }
}

impl Metrics {
    /// In the text format of OpenMetrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// What the log calls after each data sync.
    pub fn fsync_observer(&self) -> Arc<dyn Fn(Duration) + Send + Sync> {
        let raft = Arc::clone(&self.raft);
        Arc::new(move |took| raft.fsync_seconds.observe(took.as_secs_f64()))
    }
}

impl StateMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            snapshot_seconds: histogram(registry, "snapshot_seconds", "Time to build a snapshot", 0.01),
            snapshots_built: counter(registry, "snapshots_built", "Snapshots built here"),
            snapshots_installed: counter(registry, "snapshots_installed", "Snapshots taken over from the leader"),
            revision: gauge(registry, "revision", "Revision of the applied state"),
            keys: gauge(registry, "keys", "Keys in the applied state"),
            window_bytes: gauge(registry, "window_bytes", "Memory held by recent history"),
            watches: gauge(registry, "watches", "Open watches"),
        }
    }
}

impl RaftMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            proposals: counter(registry, "proposals", "Transactions proposed"),
            proposals_failed: counter(registry, "proposals_failed", "Transactions that were not answered"),
            batches: counter(registry, "batches", "Log entries that carried transactions"),
            commit_seconds: histogram(registry, "commit_seconds", "Proposal of a batch to its answer", 0.0001),
            fsync_seconds: histogram(registry, "fsync_seconds", "Data sync of the log", 0.0001),
            reads: counter(registry, "reads", "Linearizable reads"),
            read_rounds: counter(registry, "read_rounds", "Quorum rounds that confirmed reads"),
            commits_carried: counter(
                registry,
                "commits_carried",
                "Messages to followers spared because the next entries said the same",
            ),
            leader_changes: counter(registry, "leader_changes", "Changes of the known leader"),
            elections: counter(registry, "elections", "Elections this member stood in"),
            pre_votes_lost: counter(
                registry,
                "pre_votes_lost",
                "Elections not stood in for want of a quorum",
            ),
            stood_aside: counter(
                registry,
                "stood_aside",
                "Times this leader gave way for want of a quorum",
            ),
            is_leader: gauge(registry, "is_leader", "1 on the leader"),
            term: gauge(registry, "term", "Term"),
            last_log_index: gauge(registry, "last_log_index", "Last index of the log"),
            applied_index: gauge(registry, "applied_index", "Last index applied"),
            snapshot_index: gauge(registry, "snapshot_index", "Last index of the last snapshot"),
            queued: gauge(registry, "queued_transactions", "Transactions waiting to be proposed"),
        }
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let metric = Gauge::default();
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str, first: f64) -> Histogram {
    let metric = Histogram::new(exponential_buckets(first, 2.0, 16));
    registry.register(name, help, metric.clone());
    metric
}

/// A count as a gauge has it.
pub fn gauge_value(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
