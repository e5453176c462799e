//! Who stands for election, and when. openraft 0.9 has no pre-vote and draws its timeout once per
//! process, so its own elections are switched off and this decides.
//!
//! ```text
//!              heard from a leader
//!         ┌──────────────────────────┐
//!         ▼                          │
//!     following ──silent: lease + my turn──► asking ──a quorum would vote──► standing ──► leading
//!         ▲                                    │                                │            │
//!         └──────────── refused ◄──────────────┴────────────────────────────────┘            │
//!         └──── no quorum for two leases, or no room on the disk and elsewhere there is: give way ◄──┘
//! ```
//! What must never happen: a member that was cut off or stopped comes back and topples a healthy leader;
//! a leader that nobody can answer, or whose disk is full, keeps its followers waiting by sending heartbeats;
//! a member stands again while its last candidacy is still on its way to the disk. Every candidacy and every
//! vote is synced before it counts, so on a disk that takes a second each, candidates that stand anew four
//! times a second defeat each other for ever. Hence whoever would vote for another does not stand himself for
//! a moment, and whoever failed waits twice as long.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use openraft::storage::RaftLogStorage;
use openraft::{LogState, ServerState};
use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::contact::LeaderContact;
use super::network::Peers;
use super::timing::{TAKE_UP_WITHIN, Timing};
use super::types::{LogId, MemberId, Membership, Raft};
use crate::log::LogStore;
use crate::metrics::RaftMetrics;
use crate::node::DiskRoom;
use crate::proto;

/// How often a leader looks at its own quorum, and others at what keeps them from standing.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// The task that stands for election.
pub struct Elections {
    pub id: MemberId,
    pub raft: Raft,
    pub log: LogStore,
    pub peers: Arc<Peers>,
    pub contact: Arc<LeaderContact>,
    pub disk: Arc<DiskRoom>,
    pub timing: Timing,
    pub metrics: Arc<RaftMetrics>,
}

/// What the member knows of itself when it decides.
struct Standing {
    state: ServerState,
    membership: Membership,
    term: u64,
    /// A leader is known, who may be gone.
    is_led: bool,
    quorum_silent_for: Option<Duration>,
}

impl Elections {
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.decide_forever() => {}
        }
    }

    async fn decide_forever(&self) {
        let mut failures = 0;
        let mut turn = self.turn(&self.standing().membership, failures);
        loop {
            let standing = self.standing();
            if standing.state == ServerState::Leader {
                failures = 0;
                self.contact.heard();
                self.lead(&standing).await;
                continue;
            }
            self.raft.runtime_config().heartbeat(true);
            if !is_voter(&standing.membership, self.id) {
                tokio::time::sleep(WATCH_EVERY).await;
                continue;
            }
            let alone = standing.membership.voter_ids().count() == 1;
            let wanted = self.timing.lease + turn + self.courtesy();
            let silence = self.contact.silence();
            if !alone && silence < wanted {
                if standing.is_led {
                    failures = 0;
                }
                tokio::time::sleep(wanted - silence).await;
                continue;
            }
            if self.contact.is_voting() {
                tokio::time::sleep(WATCH_EVERY).await;
                continue;
            }
            if let Some(left) = self.contact.promise_left() {
                tokio::time::sleep(left).await;
                continue;
            }
            turn = self.turn(&standing.membership, failures);
            if alone || self.quorum_would_vote(&standing).await {
                if self.stand(&standing, failures).await {
                    failures = 0;
                } else {
                    failures += 1;
                    turn = self.turn(&standing.membership, failures);
                    tokio::time::sleep(turn).await;
                }
            } else {
                self.metrics.pre_votes_lost.inc();
                tokio::time::sleep(turn).await;
            }
        }
    }

    /// How long members that have room are let go first.
    fn courtesy(&self) -> Duration {
        match self.disk.check() {
            Ok(()) => Duration::ZERO,
            Err(_) => self.timing.lease * 2,
        }
    }

    /// How long after the lease this member's turn comes: one after the other, and never quite the same.
    fn turn(&self, membership: &Membership, failures: u32) -> Duration {
        let place = membership.voter_ids().filter(|id| *id < self.id).count();
        let place = u32::try_from(place).unwrap_or(0);
        let stagger = Timing::after_failures(self.timing.stagger, failures);
        stagger * place + stagger.mul_f64(rand::rng().random_range(0.1..0.9))
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Standing {
            state: metrics.state,
            membership: metrics.membership_config.membership().clone(),
            term: metrics.current_term,
            is_led: metrics.current_leader.is_some(),
            quorum_silent_for: metrics.millis_since_quorum_ack.map(Duration::from_millis),
        }
    }

    /// Stands, and waits until it is known who leads or the time for answers is over. Answers whether it is known.
    async fn stand(&self, standing: &Standing, failures: u32) -> bool {
        self.metrics.elections.inc();
        let _standing = self.contact.begin_standing();
        let began = Instant::now();
        if let Err(fatal) = self.raft.trigger().elect().await {
            tracing::error!(%fatal, "cannot stand for election");
        }
        let mut known = self.raft.metrics();
        // Until the new term is on this member's disk, the leader that it tells of is the one that was lost.
        let taken_up = known.wait_for(|metrics| metrics.current_term > standing.term);
        let taken_up = matches!(tokio::time::timeout(TAKE_UP_WITHIN, taken_up).await, Ok(Ok(_)));
        // The others have to sync their votes as well, and then this member that it has won.
        let syncs = began.elapsed() * 2;
        let patience = Timing::after_failures(self.timing.vote_deadline, failures) + syncs;
        let decided = known.wait_for(|metrics| metrics.current_leader.is_some());
        taken_up && matches!(tokio::time::timeout(patience, decided).await, Ok(Ok(_)))
    }

    /// A leader that hears no quorum gives way, and one that must refuse writes, or takes too long over them, which another
    /// could accept: without a word from it the others are free to elect.
    async fn lead(&self, standing: &Standing) {
        let alone = standing.membership.voter_ids().count() == 1;
        let is_heard = standing
            .quorum_silent_for
            .is_none_or(|silence| silence < self.timing.lease * 2);
        self.raft.runtime_config().heartbeat(true);
        let is_well = self.disk.check().is_ok() && !self.disk.is_slow();
        if alone || (is_heard && is_well) {
            tokio::time::sleep(WATCH_EVERY).await;
        } else if !is_heard {
            self.give_way("no quorum answers this leader").await;
        } else if self.another_has_room(standing).await {
            self.give_way("the disk of this leader is full or slow, and another member's is not")
                .await;
        } else {
            tokio::time::sleep(self.timing.lease).await;
        }
    }

    async fn give_way(&self, why: &str) {
        tracing::warn!(why, "this leader gives way");
        self.metrics.stood_aside.inc();
        self.raft.runtime_config().heartbeat(false);
        let silent = self.contact.begin_giving_way();
        // Time for the others to elect; then it tries to reach them again.
        let mut known = self.raft.metrics();
        let deposed = known.wait_for(|metrics| metrics.state != ServerState::Leader);
        let _ = tokio::time::timeout(self.timing.lease * 3, deposed).await;
        drop(silent);
        self.raft.runtime_config().heartbeat(true);
        let _ = self.raft.trigger().heartbeat().await;
        tokio::time::sleep(self.timing.lease).await;
    }

    /// Whether another voter answers that would not refuse writes for want of room.
    async fn another_has_room(&self, standing: &Standing) -> bool {
        let mut asked = self.ask_voters(standing, None);
        while let Some((_, answer)) = asked.next().await {
            if answer.is_ok_and(|reply| !reply.lacks_room) {
                return true;
            }
        }
        false
    }

    /// Asks every other voter whether it would vote for this member, whose log ends here.
    fn ask_voters<'a>(&'a self, standing: &'a Standing, last: Option<LogId>) -> Asked<'a> {
        let request = proto::PreVoteRequest {
            candidate: self.id,
            term: standing.term + 1,
            last: last.map(proto::LogId::from),
            ..proto::PreVoteRequest::default()
        };
        let deadline = Instant::now() + self.timing.vote_deadline;
        let others = standing.membership.voter_ids().filter(|id| *id != self.id);
        let reachable = others.filter_map(|id| Some((id, standing.membership.get_node(&id)?)));
        reachable
            .map(|(id, peer)| {
                let request = request.clone();
                async move { (id, self.peers.pre_vote(id, &peer.address, request, deadline).await) }.boxed()
            })
            .collect()
    }

    /// Nothing is stored anywhere by asking; who would vote for this member does not stand against it for a moment.
    async fn quorum_would_vote(&self, standing: &Standing) -> bool {
        let Ok(LogState { last_log_id: last, .. }) = self.log.clone().get_log_state().await else {
            return false;
        };
        let mut asked = self.ask_voters(standing, last);
        let mut granted = vec![self.id];
        loop {
            if has_quorum(&standing.membership, &granted) {
                return self.contact.silence() >= self.timing.lease;
            }
            match asked.next().await {
                Some((id, Ok(reply))) if reply.granted => granted.push(id),
                Some((id, Ok(reply))) => tracing::debug!(id, reason = %reply.reason, "would not vote for this member"),
                Some((id, Err(status))) => tracing::debug!(id, reason = %status.message(), "did not say"),
                None => return false,
            }
        }
    }
}

type Asked<'a> = FuturesUnordered<BoxFuture<'a, (MemberId, Result<proto::PreVoteReply, Status>)>>;

fn is_voter(membership: &Membership, id: MemberId) -> bool {
    membership.voter_ids().any(|voter| voter == id)
}

/// Whether these members are a majority of every set of voters.
pub fn has_quorum(membership: &Membership, ids: &[MemberId]) -> bool {
    membership.get_joint_config().iter().all(|voters| {
        let present = voters.iter().filter(|voter| ids.contains(voter)).count();
        present * 2 > voters.len()
    })
}

/// What is asked when somebody would like to stand.
#[derive(Debug)]
pub struct PreVote {
    pub leading: bool,
    pub standing: bool,
    pub silence: Duration,
    pub lease: Duration,
    pub my_last: Option<LogId>,
    pub candidate_last: Option<LogId>,
}

impl PreVote {
    /// Whether this member would vote for the candidate, or why not.
    pub fn answer(&self) -> Result<(), String> {
        if self.leading {
            return Err("this member leads".to_owned());
        }
        if self.standing {
            return Err("this member stands itself".to_owned());
        }
        if self.silence < self.lease {
            return Err(format!("a leader was heard {} ms ago", self.silence.as_millis()));
        }
        if self.candidate_last < self.my_last {
            return Err("the candidate's log is behind".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::raft::types::Peer;

    fn membership(sets: &[&[MemberId]]) -> Membership {
        let nodes: BTreeMap<MemberId, Peer> = sets
            .iter()
            .flat_map(|set| set.iter())
            .map(|id| (*id, Peer::default()))
            .collect();
        Membership::new(
            sets.iter()
                .map(|set| set.iter().copied().collect::<BTreeSet<_>>())
                .collect(),
            nodes,
        )
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_set() {
        let stable = membership(&[&[1, 2, 3]]);
        assert!(has_quorum(&stable, &[1, 3]));
        assert!(!has_quorum(&stable, &[1]));
        assert!(!has_quorum(&stable, &[1, 7, 8]));
        let joint = membership(&[&[1, 2, 3], &[3, 4, 5]]);
        assert!(!has_quorum(&joint, &[1, 2]));
        assert!(has_quorum(&joint, &[1, 3, 4]));
    }

    fn question() -> PreVote {
        PreVote {
            leading: false,
            standing: false,
            silence: Duration::from_secs(2),
            lease: Duration::from_secs(1),
            my_last: None,
            candidate_last: None,
        }
    }

    #[test]
    fn nobody_is_voted_for_while_a_leader_is_heard() {
        assert!(question().answer().is_ok());
        let heard = PreVote {
            silence: Duration::from_millis(999),
            ..question()
        };
        assert!(heard.answer().is_err());
        let leading = PreVote {
            leading: true,
            ..question()
        };
        assert!(leading.answer().is_err());
        let standing = PreVote {
            standing: true,
            ..question()
        };
        assert!(standing.answer().is_err());
    }

    #[test]
    fn nobody_is_voted_for_whose_log_is_behind() {
        let at = |index| Some(LogId::new(openraft::CommittedLeaderId::new(1, 1), index));
        let behind = PreVote {
            my_last: at(5),
            candidate_last: at(4),
            ..question()
        };
        assert!(behind.answer().is_err());
        let level = PreVote {
            my_last: at(5),
            candidate_last: at(5),
            ..question()
        };
        assert!(level.answer().is_ok());
    }
}
