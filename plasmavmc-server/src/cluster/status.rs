//! How the cluster is, and what a person should look at.

use std::time::Duration;

use chainfire::kv::Consistency;
use chainfire::service::ClusterService as MemberService;
use chainfire::wire::CallKind;
use plasmavmc_core::protection;
use plasmavmc_core::view::{ClusterView, Heard, HostView};
use plasmavmc_core::visible::{self, HostState};
use plasmavmc_proto::api::{ClusterMember, ClusterStatus, HostLease, HostLoss, Unprotected};
use plasmavmc_types::VmState;

use super::reach;
use crate::api::{ApiError, Place};
use crate::store::keys;

/// A quorum that takes longer is none for whoever waits.
const QUORUM_WITHIN: Duration = Duration::from_secs(2);
/// A commit that takes more than this part of a lease is told of: at four times that, a leader hands over.
const SLOW_COMMIT_PART: f64 = 1.0 / 16.0;

pub async fn status(place: &Place) -> Result<ClusterStatus, ApiError> {
    use chainfire::proto::cluster_server::Cluster as _;
    let backend = &place.backend;
    let confirmed = backend.kv.get(keys::config(), Consistency::Linearizable);
    let has_quorum = match tokio::time::timeout(QUORUM_WITHIN, confirmed).await {
        Ok(Ok(answer)) => backend.reached(answer.revision).await.is_ok(),
        Ok(Err(_)) | Err(_) => false,
    };
    let request = tonic::Request::new(chainfire::proto::StatusRequest {});
    let store = MemberService::new(place.node.clone())
        .status(request)
        .await
        .map_err(|status| chainfire::wire::error_from_status(&status, CallKind::Read))?
        .into_inner();
    let witnesses = backend.mirror.read(reach::witnesses);
    let answering = reach::answering(&place.node, &witnesses).await;
    let commit_latency_ms = place.commits.average_ms();
    let mut status = backend.look(|view, heard| {
        let mut status = of_view(view, heard);
        status.members = members(view, heard, &store);
        for member in &mut status.members {
            member.is_witness = witnesses.contains(&member.address);
            member.is_reachable |= answering.contains(&member.address);
        }
        let leader = status.members.iter().find(|member| member.role == "leader");
        status.leader = leader.map(|member| member.name.clone()).unwrap_or_default();
        status.answered_by = view.host_name(backend.host);
        protect(&mut status, view, heard, *backend.voters.borrow());
        status
    });
    status.cluster_id = store.cluster_id;
    status.term = store.term;
    status.has_quorum = has_quorum;
    status.version = env!("CARGO_PKG_VERSION").to_owned();
    status.commit_latency_ms = commit_latency_ms;
    let mut warnings = store_warnings(&status, &store.problem, &store.repaired);
    warnings.append(&mut status.warnings);
    let unreadable = backend.mirror.unreadable();
    warnings.extend(unreadable.iter().map(|value| {
        format!(
            "what is stored under {} cannot be read by this version: {}",
            value.key, value.problem
        )
    }));
    status.warnings = warnings;
    Ok(status)
}

fn of_view(view: &ClusterView, heard: &Heard) -> ClusterStatus {
    let mut warnings = Vec::new();
    let mut hosts_alive = 0;
    for (id, host) in known_hosts(view) {
        let shown = visible::host(view, heard, *id);
        let name = view.host_name(*id);
        match shown.state {
            HostState::Alive => hosts_alive += 1,
            HostState::Witness => {}
            HostState::New => warnings.push(format!("host {name} has not reported for duty yet")),
            HostState::Silent | HostState::Fenced if shown.is_away() => {}
            HostState::Silent | HostState::Fenced => warnings.push(format!("host {name}: {}", shown.reason)),
        }
        let facts = host.beat.iter().flat_map(|beat| &beat.value.facts.warnings);
        warnings.extend(facts.map(|warning| format!("host {name}: {warning}")));
    }
    let vms: Vec<_> = view.vms.iter().filter(|(_, vm)| vm.record.is_some()).collect();
    let shown = vms.iter().map(|(id, _)| visible::vm(view, heard, **id).state);
    ClusterStatus {
        hosts_alive,
        hosts: number(known_hosts(view).filter(|(_, host)| !host.is_witness()).count()),
        witnesses: number(known_hosts(view).filter(|(_, host)| host.is_witness()).count()),
        vms: number(vms.len()),
        vms_running: number(shown.filter(|state| *state == VmState::Running).count()),
        revision: view.revision,
        warnings,
        ..ClusterStatus::default()
    }
}

/// What a failure would cost.
fn protect(status: &mut ClusterStatus, view: &ClusterView, heard: &Heard, voters: usize) {
    status.beat_ms = view.timings.beat_ms;
    status.other_timings = super::timings::behind(view);
    status.freeze_after_ms = view.timings.freeze_after_ms;
    status.failover_after_ms = view.timings.failover_after_ms;
    let leases = protection::leased(view).into_iter().map(|(host, vms)| HostLease {
        host: view.host_name(host),
        leased_vms: number(vms.len()),
        left_ms: protection::lease_left_ms(view, heard, host),
    });
    status.leases = leases.collect();
    let unprotected = protection::unprotected(view, voters)
        .into_iter()
        .map(|told| Unprotected {
            vm: view.vm_name(told.vm),
            host: view.host_name(told.host),
            reason: told.why,
        });
    status.unprotected = unprotected.collect();
    let losses = protection::losses(view, heard).into_iter().map(|loss| HostLoss {
        host: view.host_name(loss.host),
        homeless: loss.homeless.iter().map(|vm| view.vm_name(*vm)).collect(),
    });
    status.losses = losses.collect();
}

fn known_hosts(view: &ClusterView) -> impl Iterator<Item = (&plasmavmc_types::HostId, &HostView)> {
    view.hosts.iter().filter(|(_, host)| host.record.is_some())
}

fn members(view: &ClusterView, heard: &Heard, store: &chainfire::proto::StatusResponse) -> Vec<ClusterMember> {
    let own = store.member.as_ref().map_or(0, |member| member.id);
    let is_heard = |address: &str| {
        known_hosts(view).any(|(id, host)| {
            let own = host.record.as_ref().and_then(|record| record.value.cluster_address());
            own.is_some_and(|own| own.as_str() == address) && visible::host(view, heard, *id).state == HostState::Alive
        })
    };
    let role = |member: &chainfire::proto::Member| match member.id == store.leader_id {
        true => "leader",
        false if member.voter => "voter",
        false => "learner",
    };
    store
        .members
        .iter()
        .map(|member| ClusterMember {
            id: member.id,
            name: member.name.clone(),
            address: member.address.clone(),
            role: role(member).to_owned(),
            is_reachable: member.id == own || is_heard(&member.address),
            is_witness: false,
        })
        .collect()
}

fn store_warnings(status: &ClusterStatus, problem: &str, repaired: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let voters: Vec<_> = status
        .members
        .iter()
        .filter(|member| member.role != "learner")
        .collect();
    let reachable = voters.iter().filter(|member| member.is_reachable).count();
    let needed = voters.len() / 2 + 1;
    if !status.has_quorum {
        warnings.push(format!(
            "no quorum: nothing can be changed until {needed} of the {} voters run and reach each other ({})",
            voters.len(),
            if problem.is_empty() {
                "no answer in time"
            } else {
                problem
            }
        ));
    } else if voters.len() > 1 && reachable == needed {
        warnings.push(format!(
            "{reachable} of {} voters answer, as few as may: one more lost, and nothing can be changed",
            voters.len()
        ));
    }
    if voters.len() % 2 == 0 && !voters.is_empty() {
        let remedy = match voters.iter().any(|member| member.is_witness) {
            true => "add a host, or remove the witness",
            false => "add a host or a witness, or remove one",
        };
        warnings.push(format!(
            "{} voters bear the loss of no more than {} do: {remedy}",
            voters.len(),
            voters.len() - 1
        ));
    }
    let silent = voters.iter().filter(|member| member.is_witness && !member.is_reachable);
    warnings.extend(silent.map(|member| format!("witness {} does not answer", member.name)));
    let lease_ms = status.freeze_after_ms as f64;
    if status.commit_latency_ms > lease_ms * SLOW_COMMIT_PART {
        warnings.push(format!(
            "a change takes {:.0} ms to commit, and a lease lasts {lease_ms:.0} ms: the disks or the network of the \
             voters are too slow",
            status.commit_latency_ms
        ));
    }
    if !repaired.is_empty() {
        warnings.push(format!(
            "this server's copy of the store was rebuilt when it started: {repaired}"
        ));
    }
    warnings
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: u64, is_reachable: bool) -> ClusterMember {
        ClusterMember {
            id,
            is_reachable,
            role: "voter".to_owned(),
            ..ClusterMember::default()
        }
    }

    fn check(reachable: &[bool], has_quorum: bool, expected: &[&str]) {
        let members = reachable.iter().zip(1..).map(|(reachable, id)| voter(id, *reachable));
        let status = ClusterStatus {
            members: members.collect(),
            has_quorum,
            freeze_after_ms: 4000,
            commit_latency_ms: 250.0,
            ..ClusterStatus::default()
        };
        let warnings = store_warnings(&status, "", "");
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
    }

    #[test]
    fn commits_that_come_near_the_lease_are_told_of() {
        let status = ClusterStatus {
            has_quorum: true,
            freeze_after_ms: 4000,
            commit_latency_ms: 251.0,
            ..ClusterStatus::default()
        };
        let warnings = store_warnings(&status, "", "");
        assert!(
            warnings.iter().any(|warning| warning.contains("251 ms to commit")),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_person_is_told_what_cannot_be_lost() {
        check(&[true], true, &[]);
        check(&[true, true, true], true, &[]);
        check(&[true, true, false], true, &["2 of 3 voters answer"]);
        check(&[true, false, false], false, &["no quorum"]);
        check(&[true, true], true, &["2 of 2 voters answer", "2 voters bear"]);
        check(&[true; 4], true, &["4 voters bear the loss of no more than 3"]);
    }
}
