//! Changing the timings of the cluster while it runs.
//!
//! One compare-and-set on the settings is all of it: there is no state in between. Every beat says under which timings it
//! was sent, and its host is judged by that ([`plasmavmc_core::terms`]).
//!
//! Must never: store timings that do not fit each other, or change them while a host does not say under which it beats.

use plasmavmc_core::terms;
use plasmavmc_core::view::ClusterView;
use plasmavmc_core::visible::seconds;
use plasmavmc_proto::api::{ClusterTimings, HostTimings, SetTimingsRequest, SetTimingsResponse};
use plasmavmc_types::{Decision, Timings, TimingsFields};

use crate::api::{ApiError, Backend, ClusterError};
use crate::clock::wall_ms;
use crate::store::{ClusterConfig, Write, WriteError, keys};

const TRIES: u32 = 8;
/// The kind of the decision.
const KIND: &str = "timings";

/// Changes what is asked for. Asking again for what is so already changes nothing.
pub async fn set(backend: &Backend, asked: &SetTimingsRequest) -> Result<SetTimingsResponse, ApiError> {
    for _ in 0..TRIES {
        backend.catch_up().await?;
        let Some(stored) = backend.mirror.config() else {
            let problem = "the settings of the cluster are not there, or of a later version";
            return Err(ApiError::Internal(problem.to_owned()));
        };
        let before = stored.value.timings;
        let after = with(before, asked)?;
        let answer = SetTimingsResponse {
            before: Some(shown(&before)),
            after: Some(shown(&after)),
        };
        if after == before {
            return Ok(answer);
        }
        backend.mirror.read(all_can_follow)?;
        let config = ClusterConfig {
            timings: after,
            ..stored.value
        };
        let decision = decided(&before, &after);
        let write = Write::new()
            .expect(keys::config(), stored.revision)
            .put_config(&config)
            .put_decision(&keys::decision_id(decision.at_ms, rand::random()), &decision);
        match write.commit(&*backend.kv).await {
            Ok(committed) => {
                tracing::info!("{}", decision.text);
                backend.reached(committed.revision).await?;
                return Ok(answer);
            }
            Err(WriteError::Raced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

/// What is not asked for stays as it is.
fn with(before: Timings, asked: &SetTimingsRequest) -> Result<Timings, ApiError> {
    let after = Timings::new(TimingsFields {
        beat_ms: asked.beat_ms.unwrap_or(before.beat_ms),
        freeze_after_ms: asked.freeze_after_ms.unwrap_or(before.freeze_after_ms),
        failover_after_ms: asked.failover_after_ms.unwrap_or(before.failover_after_ms),
    });
    Ok(after?)
}

/// A host of a version that does not say its timings might keep a longer lease than anybody knows of.
fn all_can_follow(view: &ClusterView) -> Result<(), ApiError> {
    let is_older = |host: &plasmavmc_core::view::HostView| {
        let session = host.session.as_ref();
        host.record.is_some() && session.is_some_and(|session| session.value.is_open()) && !terms::says_them(host)
    };
    let older = view.hosts.iter().find(|(_, host)| is_older(host));
    match older {
        None => Ok(()),
        Some((id, _)) => {
            let host = view.host_name(*id);
            Err(ClusterError::HostSaysNoTimings { host }.into())
        }
    }
}

fn decided(before: &Timings, after: &Timings) -> Decision {
    let changed = |name: &str, before: u64, after: u64| {
        let (was, is) = (seconds(before), seconds(after));
        (before != after).then(|| format!("{name} {is}, which was {was}"))
    };
    let changes = [
        changed("beat", before.beat_ms, after.beat_ms),
        changed("freeze after", before.freeze_after_ms, after.freeze_after_ms),
        changed("failover after", before.failover_after_ms, after.failover_after_ms),
    ];
    let changes: Vec<String> = changes.into_iter().flatten().collect();
    Decision {
        at_ms: wall_ms(),
        kind: KIND.to_owned(),
        vm: None,
        host: None,
        text: format!("the timings of the cluster were changed: {}", changes.join("; ")),
        evidence: vec!["an operator asked for it".to_owned()],
    }
}

fn shown(timings: &Timings) -> ClusterTimings {
    ClusterTimings {
        beat_ms: timings.beat_ms,
        freeze_after_ms: timings.freeze_after_ms,
        failover_after_ms: timings.failover_after_ms,
    }
}

/// Hosts whose last beat was sent under other timings than those of now.
pub fn behind(view: &ClusterView) -> Vec<HostTimings> {
    let is_behind = |host: &plasmavmc_core::view::HostView| {
        let session = host.session.as_ref();
        host.record.is_some()
            && session.is_some_and(|session| session.value.is_open())
            && terms::is_under_others(view, host)
    };
    let behind = view.hosts.iter().filter(|(_, host)| is_behind(host));
    let told = behind.filter_map(|(id, host)| {
        let told = terms::Terms::told_by(&host.beat.as_ref()?.value);
        Some(HostTimings {
            host: view.host_name(*id),
            freeze_after_ms: told.lease_ms,
            failover_after_ms: told.failover_ms,
        })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::played::Played;

    fn asked(beat_ms: Option<u64>, freeze_after_ms: Option<u64>, failover_after_ms: Option<u64>) -> SetTimingsRequest {
        SetTimingsRequest {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        }
    }

    fn timings(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> ClusterTimings {
        ClusterTimings {
            beat_ms,
            freeze_after_ms,
            failover_after_ms,
        }
    }

    fn decisions(cluster: &Played) -> Vec<String> {
        let is_ours = |decision: &&plasmavmc_core::view::Stored<Decision>| decision.value.kind == KIND;
        cluster.mirror.read(|view| {
            let decisions = view.decisions.values().filter(is_ours);
            decisions.map(|decision| decision.value.text.clone()).collect()
        })
    }

    #[tokio::test]
    async fn what_is_asked_for_is_changed_and_told_of_once() {
        let cluster = Played::of_hosts(3).await;
        let asked = asked(None, Some(2500), Some(4000));
        // The check of both together would refuse 2.5 s with a beat of 1 s.
        let refused = set(&cluster.backend, &asked).await.unwrap_err();
        assert!(matches!(refused, ApiError::Invalid(_)), "{refused}");
        let asked = SetTimingsRequest {
            beat_ms: Some(500),
            ..asked
        };
        let changed = set(&cluster.backend, &asked).await.unwrap();
        assert_eq!(changed.before, Some(timings(1000, 4000, 6000)));
        assert_eq!(changed.after, Some(timings(500, 2500, 4000)));
        let stored = cluster.mirror.config().unwrap();
        assert_eq!(stored.value.timings.freeze_after_ms, 2500);
        assert_eq!(
            decisions(&cluster),
            [
                "the timings of the cluster were changed: beat 0.5 s, which was 1.0 s; freeze after 2.5 s, which was 4.0 s; \
                 failover after 4.0 s, which was 6.0 s"
            ]
        );
        // Once more: nothing is written.
        let again = set(&cluster.backend, &asked).await.unwrap();
        assert_eq!((again.before, again.after), (changed.after, changed.after));
        assert_eq!(cluster.mirror.config().unwrap().revision, stored.revision);
        assert_eq!(decisions(&cluster).len(), 1);
    }

    #[tokio::test]
    async fn timings_that_do_not_fit_are_refused_with_every_rule() {
        let cluster = Played::of_hosts(3).await;
        let before = cluster.mirror.config().unwrap();
        let check = async |asked: SetTimingsRequest, fields: &[&str]| {
            let refused = set(&cluster.backend, &asked).await.unwrap_err();
            let status = tonic::Status::from(refused);
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            let violations = status
                .get_error_details()
                .bad_request()
                .unwrap()
                .field_violations
                .clone();
            let named: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(named, fields, "{violations:?}");
        };
        check(asked(None, None, Some(4999)), &["failover_after_ms"]).await;
        check(asked(Some(2000), None, None), &["freeze_after_ms"]).await;
        check(
            asked(Some(3000), None, Some(4100)),
            &["freeze_after_ms", "failover_after_ms"],
        )
        .await;
        let all = [
            "beat_ms",
            "freeze_after_ms",
            "failover_after_ms",
            "freeze_after_ms",
            "failover_after_ms",
        ];
        check(asked(Some(70_000), Some(999), Some(1)), &all).await;
        assert_eq!(cluster.mirror.config(), Some(before));
    }

    #[tokio::test]
    async fn hosts_that_beat_under_other_timings_are_named_until_they_do_not() {
        let cluster = Played::of_hosts(2).await;
        assert_eq!(cluster.mirror.read(behind), []);
        // Hosts that are played say the timings a cluster begins with, whatever they are by now.
        set(&cluster.backend, &asked(None, None, Some(7000))).await.unwrap();
        let behind_now = cluster.mirror.read(behind);
        let told = |host: &str| HostTimings {
            host: host.to_owned(),
            freeze_after_ms: 4000,
            failover_after_ms: 6000,
        };
        assert_eq!(behind_now.len(), 2, "{behind_now:?}");
        assert!(
            behind_now.contains(&told("h1")) && behind_now.contains(&told("h2")),
            "{behind_now:?}"
        );
        set(&cluster.backend, &asked(None, None, Some(6000))).await.unwrap();
        assert_eq!(cluster.mirror.read(behind), []);
    }

    #[tokio::test]
    async fn of_changes_that_race_each_is_made_on_what_the_other_left() {
        let cluster = Played::of_hosts(1).await;
        let (slow, quick) = (asked(None, None, Some(9000)), asked(Some(500), None, None));
        let both = async { tokio::join!(set(&cluster.backend, &slow), set(&cluster.backend, &quick)) };
        let (one, other) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        one.unwrap();
        other.unwrap();
        let stored = cluster.mirror.config().unwrap().value.timings;
        assert_eq!((stored.beat_ms, stored.failover_after_ms), (500, 9000));
    }

    #[test]
    fn a_host_that_does_not_say_its_timings_is_upgraded_first() {
        use crate::store::samples;
        let mut view = ClusterView::default();
        let host = view.hosts.entry(samples::host_id(2)).or_default();
        host.record = Some(plasmavmc_core::view::Stored::new(samples::host_record(), 1));
        host.beat = Some(plasmavmc_core::view::Stored::new(samples::beat(1), 3));
        assert!(all_can_follow(&view).is_ok(), "it has no session");
        let host = view.hosts.entry(samples::host_id(2)).or_default();
        host.session = Some(plasmavmc_core::view::Stored::new(samples::session(1), 2));
        let refused = all_can_follow(&view).unwrap_err();
        assert!(refused.to_string().contains("host alpha"), "{refused}");
    }
}
