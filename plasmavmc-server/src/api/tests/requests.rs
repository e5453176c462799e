//! Repeated requests.

use plasmavmc_proto::api;

use super::*;
use crate::api::vms::update;
use crate::played::Fault;

fn named(name: &str, request_id: &str) -> api::CreateVmRequest {
    api::CreateVmRequest {
        request_id: request_id.to_owned(),
        powered_off: true,
        ..small(name)
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_request_makes_one_vm() {
    let (cluster, _controller) = Played::led(1).await;
    let create = |request| create::create(&cluster.backend, request, patient());
    let first = create(named("web", "r1")).await.unwrap();
    let waits = api::CreateVmRequest {
        wait: true,
        ..named("web", "r1")
    };
    for again in [named("web", "r1"), waits] {
        let again = create(again).await.unwrap();
        assert_eq!((again.id, again.vmid), (first.id.clone(), first.vmid));
    }
    // Many at once, from one client that is in a hurry.
    let many = (0..16).map(|_| create(named("db", "r2")));
    let many = futures::future::join_all(many).await;
    let ids: std::collections::BTreeSet<String> = many.into_iter().map(|vm| vm.unwrap().id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(
        cluster.mirror.read(|view| (view.vms.len(), view.operations.len())),
        (2, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn many_that_want_one_name_or_number_get_it_once() {
    let cluster = Played::of_hosts(1).await;
    let create = |request| create::create(&cluster.backend, request, patient());
    let many = futures::future::join_all((0..16).map(|_| create(small("web")))).await;
    assert_eq!(many.iter().filter(|answered| answered.is_ok()).count(), 1);
    for refused in many.into_iter().filter(Result::is_err) {
        check(refused, Code::AlreadyExists, "NAME_TAKEN", "choose another");
    }
    let names: Vec<String> = (0..16).map(|number| format!("vm{number}")).collect();
    let numbered = names.iter().map(|name| {
        create(api::CreateVmRequest {
            vmid: 500,
            ..small(name)
        })
    });
    let many = futures::future::join_all(numbered).await;
    assert_eq!(many.iter().filter(|answered| answered.is_ok()).count(), 1);
    // Those that do not care all get one, and each another.
    let many = futures::future::join_all(names.iter().map(|name| create(small(&format!("x{name}"))))).await;
    let numbers: std::collections::BTreeSet<u32> = many.into_iter().map(|vm| vm.unwrap().vmid).collect();
    assert_eq!(numbers.len(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_create_is_answered_whatever_became_of_what_it_named() {
    let (cluster, _controller) = Played::led(1).await;
    made(&cluster, "db").await;
    let request = || api::CreateVmRequest {
        depends_on: vec![api::Dependency {
            vm: "db".to_owned(),
            ..Default::default()
        }],
        ..named("web", "r1")
    };
    let first = create::create(&cluster.backend, request(), patient()).await.unwrap();
    delete(&cluster, "db", false, 0).await.unwrap();
    cluster.until("gone", |view| (view.vms.len() == 1).then_some(())).await;
    let again = create::create(&cluster.backend, request(), patient()).await.unwrap();
    assert_eq!(again.id, first.id);

    delete(&cluster, "web", false, 0).await.unwrap();
    cluster.until("gone", |view| view.vms.is_empty().then_some(())).await;
    let outlived = create::create(&cluster.backend, request(), patient()).await;
    check(outlived, Code::NotFound, "VM_NOT_FOUND", "has been deleted since");
}

#[tokio::test(start_paused = true)]
async fn an_order_is_begun_once() {
    let cluster = Played::of_hosts(1).await;
    made(&cluster, "web").await;
    let ask = |kind, content: u32| {
        let asked = Asked::new("StartVm", "r1", &content).unwrap();
        let order = Order::new("web".to_owned(), kind, false, 0);
        let backend = &cluster.backend;
        async move { act(backend, order, asked, patient()).await }
    };
    cluster.link.next(Fault::AnswerLost);
    let first = ask(OperationKind::Start, 0).await.unwrap();
    let many = futures::future::join_all((0..8).map(|_| ask(OperationKind::Start, 0))).await;
    assert!(many.into_iter().all(|again| again.unwrap().id == first.id));
    check(
        ask(STOP, 1).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        "use a new id",
    );
    assert_eq!(cluster.mirror.read(|view| view.operations.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_changed_nothing_is_not_made_later() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    let change = |memory_mb, request_id: &str| api::UpdateVmRequest {
        id: vm.id.clone(),
        request_id: request_id.to_owned(),
        spec: Some(api::VmSpec {
            memory_mb,
            ..vm.spec.clone().unwrap()
        }),
        ..Default::default()
    };
    let update = |request| update::update(&cluster.backend, request);
    assert_eq!(update(change(64, "r1")).await.unwrap().generation, vm.generation);
    let changed = update(change(128, "r2")).await.unwrap();
    assert_eq!(changed.generation, vm.generation + 1);
    // The first one again, by a client that never got its answer.
    let again = update(change(64, "r1")).await.unwrap();
    assert_eq!(again.spec.unwrap().memory_mb, 128);
    check(
        update(change(256, "r1")).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        "use a new id",
    );
}
