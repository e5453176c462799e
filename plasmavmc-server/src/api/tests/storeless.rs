//! A store that is away, full, or does not say what it did.

use chainfire::kv::{Compare, KvError, Relation, Txn};
use plasmavmc_proto::api;
use plasmavmc_types::HostMode;

use super::*;
use crate::api::vms::{read, update};
use crate::api::{Api, hosts, operations};
use crate::played::Fault;

fn because() -> String {
    "two of three servers do not answer".to_owned()
}

/// Every error of the store that a client can meet, with what it becomes.
fn troubles() -> Vec<(KvError, Code, &'static str, &'static str)> {
    let reason = because;
    vec![
        (
            KvError::NoLeader { reason: reason() },
            Code::Unavailable,
            "NO_QUORUM",
            "no quorum",
        ),
        (
            KvError::Unavailable { reason: reason() },
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            "does not serve",
        ),
        (
            KvError::Timeout {
                waited_ms: 5000,
                reason: reason(),
            },
            Code::Unavailable,
            "STORE_TIMEOUT",
            "nothing was changed",
        ),
        (
            KvError::DiskFull { reason: reason() },
            Code::ResourceExhausted,
            "DISK_FULL",
            "make room",
        ),
        (
            KvError::Overloaded { limit: 9 },
            Code::ResourceExhausted,
            "OVERLOADED",
            "slow down",
        ),
        (
            KvError::ValueTooLarge { bytes: 9, limit: 8 },
            Code::InvalidArgument,
            "TOO_LARGE",
            "at most 8",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn whatever_keeps_the_store_from_writing_is_said_and_nothing_is_half_made() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    cluster.hosts_leave();
    let before = cluster.mirror.read(|view| view.vms.clone());
    for (trouble, code, reason, remedy) in troubles() {
        let fails = || cluster.link.next(Fault::Refused(trouble.clone()));
        fails();
        check(
            create::create(&cluster.backend, small("db"), patient()).await,
            code,
            reason,
            remedy,
        );
        fails();
        check(order(&cluster, "web", OperationKind::Start).await, code, reason, remedy);
        fails();
        check(delete(&cluster, "web", true, 0).await, code, reason, remedy);
        fails();
        let change = api::UpdateVmRequest {
            id: vm.id.clone(),
            spec: Some(api::VmSpec {
                memory_mb: 128,
                ..vm.spec.clone().unwrap()
            }),
            ..Default::default()
        };
        check(update::update(&cluster.backend, change).await, code, reason, remedy);
        fails();
        check(
            hosts::set_mode(&cluster.backend, "h1", HostMode::Draining).await,
            code,
            reason,
            remedy,
        );
    }
    assert_eq!(cluster.mirror.read(|view| view.vms.clone()), before);
    assert_eq!(
        cluster
            .mirror
            .read(|view| (view.names.len(), view.numbers.len(), view.operations.len())),
        (1, 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_answers_only_what_may_be_stale() {
    let cluster = Played::of_hosts(1).await;
    made(&cluster, "web").await;
    let get = |stale| {
        let id = "web".to_owned();
        read::get(&cluster.backend, api::GetVmRequest { id, stale })
    };
    for (trouble, code, reason, remedy) in troubles().into_iter().take(3) {
        cluster.link.set_down(Some(trouble));
        check(get(false).await, code, reason, remedy);
        check(order(&cluster, "web", STOP).await, code, reason, remedy);
        check(
            create::create(&cluster.backend, small("db"), patient()).await,
            code,
            reason,
            remedy,
        );
        check(
            operations::list(&cluster.backend, Default::default()).await,
            code,
            reason,
            remedy,
        );
        assert_eq!(get(true).await.unwrap().name, "web");
        let listed = api::ListVmsRequest {
            stale: true,
            ..Default::default()
        };
        assert_eq!(read::list(&cluster.backend, listed).await.unwrap().vms.len(), 1);
        assert_eq!(hosts::list(&cluster.backend, true).await.unwrap().hosts.len(), 1);
    }
    cluster.link.set_down(None);
    assert_eq!(get(false).await.unwrap().name, "web");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_for() {
    let cluster = Played::of_hosts(1).await;
    cluster.link.next(Fault::AnswerLost);
    let vm = made(&cluster, "web").await;
    cluster.link.next(Fault::AnswerLost);
    let stopped = order(&cluster, &vm.id, STOP).await.unwrap();
    assert_eq!(stopped.state(), api::operation::State::Done);

    cluster.link.next(Fault::Lost);
    let lost = create::create(&cluster.backend, small("db"), patient()).await;
    check(lost, Code::Unknown, "OUTCOME_UNKNOWN", "read before you try again");
    cluster.link.next(Fault::Lost);
    check(
        order(&cluster, "web", OperationKind::Start).await,
        Code::Unknown,
        "OUTCOME_UNKNOWN",
        "read before",
    );
    assert_eq!(
        cluster
            .mirror
            .read(|view| (view.vms.len(), view.names.len(), view.operations.len())),
        (1, 1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_answer_got_lost_is_repeated_by_its_id() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    let change = || api::UpdateVmRequest {
        id: vm.id.clone(),
        generation: vm.generation,
        request_id: "once".to_owned(),
        spec: Some(api::VmSpec {
            memory_mb: 128,
            ..vm.spec.clone().unwrap()
        }),
        ..Default::default()
    };
    cluster.link.next(Fault::AnswerLost);
    let lost = update::update(&cluster.backend, change()).await;
    check(lost, Code::Unknown, "OUTCOME_UNKNOWN", "read before");
    let again = update::update(&cluster.backend, change()).await.unwrap();
    assert_eq!(
        (again.generation, again.spec.unwrap().memory_mb),
        (vm.generation + 1, 128)
    );
}

/// A transaction that touches the record of a VM without changing what it says.
async fn touch(cluster: &Played, vm: &api::Vm) -> Txn {
    let key = crate::store::keys::vm_record(vm.id.parse().unwrap());
    let kv = chainfire::kv::Kv::get(&*cluster.store, key.clone(), Default::default())
        .await
        .unwrap()
        .kv
        .unwrap();
    let mut txn = Txn::put(key.clone(), kv.value);
    txn.compares.push(Compare::mod_revision(key, Relation::Greater, 0));
    txn
}

#[tokio::test(start_paused = true)]
async fn who_is_always_too_late_gives_up() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    let change = |memory_mb| api::UpdateVmRequest {
        id: vm.id.clone(),
        spec: Some(api::VmSpec {
            memory_mb,
            ..vm.spec.clone().unwrap()
        }),
        ..Default::default()
    };
    let update = |memory_mb| update::update(&cluster.backend, change(memory_mb));
    let touched = touch(&cluster, &vm).await;
    (0..3).for_each(|_| cluster.link.next(Fault::After(touched.clone())));
    assert_eq!(update(128).await.unwrap().generation, vm.generation + 1);
    let touched = touch(&cluster, &vm).await;
    (0..100).for_each(|_| cluster.link.next(Fault::After(touched.clone())));
    check(update(256).await, Code::Aborted, "CONTENDED", "try again");
    check(
        order(&cluster, "web", OperationKind::Start).await,
        Code::Aborted,
        "CONTENDED",
        "try again",
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_cluster_says_how_to_get_one() {
    let (_seat, seat) = tokio::sync::watch::channel(crate::api::Standing::Outside);
    let api = Api::new(seat);
    check(
        api.backend().map(drop),
        Code::FailedPrecondition,
        "NOT_IN_A_CLUSTER",
        "cluster init",
    );
    check(
        api.place().map(drop),
        Code::FailedPrecondition,
        "NOT_IN_A_CLUSTER",
        "cluster join",
    );
}
