//! Operations: waiting for them, watching them, calling them off.

use plasmavmc_proto::api;

use super::*;
use crate::api::operations;

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_what_goes_on() {
    let cluster = Played::of_hosts(1).await;
    let request = api::CreateVmRequest {
        wait: true,
        ..small("web")
    };
    let began = tokio::time::Instant::now();
    let waited = create::create(&cluster.backend, request, Caller::within(Duration::from_secs(3))).await;
    assert!(began.elapsed() <= Duration::from_secs(3));
    check(waited, Code::DeadlineExceeded, "STILL_UNDER_WAY", "'plasmavmc op wait");
    let open = operations::list(&cluster.backend, Default::default())
        .await
        .unwrap()
        .operations;
    assert_eq!(open.len(), 1);
    let controller = cluster.controller(true);
    let operation = plasmavmc_types::OperationId::from_uuid(open[0].id.parse().unwrap());
    let ended = |view: &plasmavmc_core::view::ClusterView| view.operations[&operation].value.is_ended().then_some(());
    cluster.until("ended", ended).await;
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_is_called_off() {
    let cluster = Played::of_hosts(1).await;
    create::create(&cluster.backend, small("web"), patient()).await.unwrap();
    let open = operations::list(&cluster.backend, Default::default())
        .await
        .unwrap()
        .operations;
    let asked = operations::cancel(&cluster.backend, &open[0].id).await.unwrap();
    assert!(asked.cancel_requested && asked.state() == api::operation::State::Pending);
    let again = operations::cancel(&cluster.backend, &open[0].id).await.unwrap();
    assert_eq!(again, asked);
    // Whoever waits for it hears of it.
    let id = plasmavmc_types::OperationId::from_uuid(open[0].id.parse().unwrap());
    let waits = crate::api::vms::wait_for_done(&cluster.backend, id, patient());
    let controls = async { cluster.controller(true) };
    let (waited, controller) = tokio::join!(waits, controls);
    check(waited, Code::Aborted, "OPERATION_CANCELLED", "cancelled");
    let cancelled = operations::get(&cluster.backend, &open[0].id).await.unwrap();
    assert_eq!(cancelled.state(), api::operation::State::Cancelled);
    let ended = operations::cancel(&cluster.backend, &open[0].id).await.unwrap();
    assert_eq!(ended, cancelled, "what has ended stays as it is");
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn every_change_of_an_operation_is_shown_until_it_has_ended() {
    let cluster = Played::of_hosts(1).await;
    create::create(&cluster.backend, small("web"), patient()).await.unwrap();
    let open = operations::list(&cluster.backend, Default::default())
        .await
        .unwrap()
        .operations;
    let mut changes = operations::watch(cluster.backend.clone(), &open[0].id).await.unwrap();
    let controller = cluster.controller(true);
    let mut states = Vec::new();
    while let Some(change) = changes.recv().await {
        states.push(change.unwrap());
    }
    assert_eq!(states.first().unwrap(), &open[0]);
    assert_eq!(states.last().unwrap().state(), api::operation::State::Done);
    assert!(states.iter().any(|state| state.step == "placed on h1"), "{states:#?}");
    assert!(
        states.windows(2).all(|pair| pair[0] != pair[1]),
        "nothing is told twice"
    );
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_operations_come_first_in_pages() {
    let cluster = Played::of_hosts(1).await;
    for number in 0..5 {
        made(&cluster, &format!("vm{number}")).await;
        // By the wall clock, which does not fly with the test's.
        order(&cluster, &format!("vm{number}"), STOP).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let asked = api::ListOperationsRequest {
            include_ended: true,
            page_size: 3,
            page_token,
            ..Default::default()
        };
        let page = operations::list(&cluster.backend, asked).await.unwrap();
        seen.extend(page.operations);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted_by(|newer, older| newer.created_at_ms >= older.created_at_ms));
    let of_one = api::ListOperationsRequest {
        vm: "vm3".to_owned(),
        include_ended: true,
        ..Default::default()
    };
    let of_one = operations::list(&cluster.backend, of_one).await.unwrap().operations;
    assert!(of_one.len() == 2 && of_one.iter().all(|operation| operation.vm_name == "vm3"));
    let open = operations::list(&cluster.backend, Default::default()).await.unwrap();
    assert!(open.operations.is_empty());
}
