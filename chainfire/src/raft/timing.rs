//! Every time span of the replication, in one place, with the reason for each.

use std::time::Duration;

/// The time spans of a member. All members of a cluster use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A leader without work sends this often. openraft also gives up on an append after this long, so it
    /// must exceed a slow disk's sync.
    pub heartbeat: Duration,
    /// A member that has heard from a leader within this span votes for nobody else.
    pub lease: Duration,
    /// Members stand one after the other, this far apart, so that votes are rarely split.
    pub stagger: Duration,
    /// How long a candidate's questions may take, and how long it waits for an election that it began. Each one that
    /// fails doubles the wait: a disk may be so slow that a vote takes seconds to be kept.
    pub vote_deadline: Duration,
    /// How long a call may take on a member. Less than what clients wait by default (5 s), so that they
    /// hear the reason.
    pub call_deadline: Duration,
    /// How long sending and installing one snapshot may take.
    pub snapshot_deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            lease: Duration::from_millis(700),
            stagger: Duration::from_millis(60),
            vote_deadline: Duration::from_millis(250),
            call_deadline: Duration::from_secs(4),
            snapshot_deadline: Duration::from_secs(300),
        }
    }
}

/// An election is waited for at most 2^4 times as long as the first one.
const MAX_DOUBLINGS: u32 = 4;
/// No election is begun before the one before it has at least been taken up, unless that takes this long.
pub const TAKE_UP_WITHIN: Duration = Duration::from_secs(30);

impl Timing {
    /// What a time span becomes after so many elections that failed in a row.
    pub fn after_failures(span: Duration, failures: u32) -> Duration {
        span * (1 << failures.min(MAX_DOUBLINGS))
    }

    /// How long a member that would vote for another does not stand itself.
    pub fn promise(&self) -> Duration {
        self.vote_deadline * 2
    }

    /// openraft's own settings. Its elections are off: ours decide.
    pub fn openraft_config(&self) -> openraft::Config {
        let lease_ms = millis(self.lease);
        openraft::Config {
            cluster_name: "chainfire".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: lease_ms - 1,
            // Also the span for which a member that heard the leader refuses to vote.
            election_timeout_max: lease_ms,
            install_snapshot_timeout: millis(self.snapshot_deadline),
            max_payload_entries: 64,
            replication_lag_threshold: 2000,
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 500,
            purge_batch_size: 64,
            enable_elect: false,
            ..openraft::Config::default()
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
