//! Waiting until members are whole: a leader known to all, the right voters, one state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chainfire::proto::StatusResponse;

use super::client::MemberClient;

const ASK_EVERY: Duration = Duration::from_millis(50);

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Expectation {
    /// How many voters each member must know of, and nobody else.
    pub voters: usize,
    /// Whether all must have applied the same index: reached only when nobody writes.
    pub same_state: bool,
}

/// Polls until all members agree. Answers their last statuses, or what was still wrong at the deadline.
pub async fn await_agreement(
    members: &[MemberClient],
    expected: Expectation,
    limit: Duration,
) -> Result<Vec<StatusResponse>, String> {
    let end = Instant::now() + limit;
    loop {
        let answers = futures::future::join_all(members.iter().map(MemberClient::status)).await;
        let mut statuses = Vec::new();
        let mut wrong = Vec::new();
        for (member, answer) in members.iter().zip(answers) {
            match answer {
                Ok(status) => statuses.push(status),
                Err(failure) => wrong.push(format!("{}: {failure}", member.address)),
            }
        }
        if let Some(detail) = disagreement(&statuses) {
            return Err(detail);
        }
        wrong.extend(unmet(&statuses, expected));
        if wrong.is_empty() {
            return Ok(statuses);
        }
        // Members are judged by what they do; what they say about it helps to understand why they do not.
        let said = statuses.iter().filter(|status| !status.problem.is_empty());
        wrong.extend(said.map(|status| format!("{} says: {}", name(status), status.problem)));
        if Instant::now() >= end {
            return Err(format!("after {limit:?}: {}", wrong.join("; ")));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Members that have applied the same index, but hold different states. Never excusable.
pub fn disagreement(statuses: &[StatusResponse]) -> Option<String> {
    let mut digests = BTreeMap::new();
    statuses.iter().find_map(|status| {
        let digest = (&status.state_digest, status.revision);
        let first = *digests.entry(status.applied_index).or_insert(digest);
        (first != digest).then(|| {
            format!(
                "at index {} one member has revision {} and digest {:?}, another revision {} and digest {:?}",
                status.applied_index, first.1, first.0, digest.1, digest.0
            )
        })
    })
}

fn name(status: &StatusResponse) -> &str {
    status.member.as_ref().map_or("?", |member| &member.name)
}

fn unmet(statuses: &[StatusResponse], expected: Expectation) -> Vec<String> {
    let mut wrong = Vec::new();
    for status in statuses {
        let name = name(status);
        let voters = status.members.iter().filter(|member| member.voter).count();
        if status.leader_id == 0 || statuses.iter().any(|other| other.leader_id != status.leader_id) {
            wrong.push(format!("{name} knows leader {}", status.leader_id));
        }
        if voters != expected.voters || status.members.len() != expected.voters {
            wrong.push(format!(
                "{name} knows {voters} voters of {} members",
                status.members.len()
            ));
        }
        if expected.same_state && statuses.iter().any(|other| other.applied_index != status.applied_index) {
            wrong.push(format!("{name} has applied {}", status.applied_index));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(applied_index: u64, digest: &'static [u8]) -> StatusResponse {
        StatusResponse {
            applied_index,
            leader_id: 1,
            state_digest: digest.into(),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn different_digests_at_one_index_are_a_disagreement() {
        assert_eq!(disagreement(&[status(1, b"a"), status(2, b"b"), status(1, b"a")]), None);
        assert!(disagreement(&[status(1, b"a"), status(1, b"b")]).is_some());
    }

    #[test]
    fn what_is_expected_is_named_where_it_is_not_met() {
        let expected = |same_state| Expectation { voters: 0, same_state };
        let apart = [status(1, b"a"), status(2, b"b")];
        assert!(unmet(&apart, expected(false)).is_empty());
        assert!(!unmet(&apart, expected(true)).is_empty());
        let mut leaderless = status(1, b"a");
        leaderless.leader_id = 0;
        assert!(!unmet(&[leaderless], expected(false)).is_empty());
        let more = Expectation {
            voters: 3,
            same_state: false,
        };
        assert!(!unmet(&[status(1, b"a")], more).is_empty());
    }
}
