//! Word of a commit, which waits a little for entries that carry it anyway.
//!
//! openraft tells each follower of each commit at once, in a message of its own. But whoever waited for that
//! commit goes on writing as soon as it is answered: the message keeps both members busy just when the next
//! entries are to be sent, and these have to wait for its answer.
//!
//! ```text
//! committed ─► wait ─┬─ entries are appended ─► left out: they carry the same word
//!                    └─ nothing comes ────────► sent alone
//! ```
//! Never is a heartbeat held up, nor the message of a quorum round for readers: those come from clients that
//! have told nothing yet. Never is a message left out twice in a row, since openraft may send one without
//! entries for reasons of its own. And what was left out is reported as not sent: a follower that was not asked
//! has confirmed nothing.

use std::time::Duration;

use openraft::raft::AppendEntriesRequest;

use super::types::{LogId, TypeConfig};
use crate::log::SyncGate;

/// How long word of a commit waits: longer than a client in the same network takes to write again, and too short for
/// anybody to notice who reads from a follower.
const WAIT: Duration = Duration::from_millis(2);

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[error("entries are about to follow, and carry the same word of a commit")]
pub struct Carried;

/// What one session of replication has told its follower.
#[derive(Debug, Default)]
pub struct CommitNotice {
    told: Option<LogId>,
    has_left_out: bool,
}

impl CommitNotice {
    /// Waits, if this message only says what is committed. Fails if it need not be sent.
    pub async fn wait(&mut self, rpc: &AppendEntriesRequest<TypeConfig>, gate: &SyncGate) -> Result<(), Carried> {
        let may_wait = !std::mem::take(&mut self.has_left_out)
            && rpc.entries.is_empty()
            && self.told.is_some()
            && rpc.leader_commit > self.told;
        if !may_wait {
            return Ok(());
        }
        let end = rpc.prev_log_id.map_or(0, |id| id.index);
        if tokio::time::timeout(WAIT, gate.appended_after(end)).await.is_err() {
            return Ok(());
        }
        self.has_left_out = true;
        Err(Carried)
    }

    /// The follower has answered a message that said so.
    pub fn told(&mut self, committed: Option<LogId>) {
        self.told = self.told.max(committed);
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;
    use tokio::time::Instant;

    use super::*;
    use crate::raft::types::{Ballot, Entry};

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    /// A message behind entry 7.
    fn message(committed: u64, entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Ballot::new_committed(1, 1),
            prev_log_id: Some(id(7)),
            entries,
            leader_commit: Some(id(committed)),
        }
    }

    fn told(committed: u64) -> CommitNotice {
        let mut notice = CommitNotice::default();
        notice.told(Some(id(committed)));
        notice
    }

    async fn is_sent_at_once(notice: &mut CommitNotice, message: &AppendEntriesRequest<TypeConfig>) -> bool {
        let begun = Instant::now();
        let outcome = notice.wait(message, &SyncGate::default()).await;
        outcome.is_ok() && begun.elapsed().is_zero()
    }

    #[tokio::test(start_paused = true)]
    async fn only_news_of_a_commit_waits() {
        assert!(
            is_sent_at_once(&mut CommitNotice::default(), &message(7, vec![])).await,
            "first"
        );
        assert!(is_sent_at_once(&mut told(7), &message(7, vec![])).await, "a heartbeat");
        let entry = Entry {
            log_id: id(8),
            payload: openraft::EntryPayload::Blank,
        };
        assert!(is_sent_at_once(&mut told(6), &message(7, vec![entry])).await, "entries");
        assert!(!is_sent_at_once(&mut told(6), &message(7, vec![])).await, "news");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_sent_when_nothing_follows() {
        let begun = Instant::now();
        assert!(told(6).wait(&message(7, vec![]), &SyncGate::default()).await.is_ok());
        assert!(begun.elapsed() >= WAIT && begun.elapsed() < 2 * WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_left_out_when_entries_follow_but_never_twice() {
        let gate = SyncGate::default();
        let mut notice = told(6);
        let news = message(7, vec![]);
        let following = async {
            tokio::time::sleep(WAIT / 2).await;
            gate.hand_on(8, 8, 1)
        };
        let (outcome, debt) = tokio::join!(notice.wait(&news, &gate), following);
        assert!(outcome.is_err());
        assert!(
            notice.wait(&news, &gate).await.is_ok(),
            "entry 8 is there, but was not sent"
        );
        assert!(notice.wait(&news, &gate).await.is_err());
        debt.unwrap().pay();
    }
}
