//! Who leads acts, nobody else does, and two that believe in themselves do no harm.

use std::time::Duration;

use chainfire::kv::KvError;
use plasmavmc_core::plan::{ControlAction, plan};
use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::api;
use plasmavmc_types::{Incarnation, VmId};
use tokio::time::Instant;

use crate::api::caller::Caller;
use crate::api::vms::create;
use crate::clock::wall_ms;
use crate::control::{StepReport, step};
use crate::played::{Fault, Played};

/// Many looks of a controller.
const WHILE: Duration = Duration::from_secs(5);

async fn create(cluster: &Played, name: &str) -> VmId {
    let request = api::CreateVmRequest {
        name: name.to_owned(),
        vcpus: 1,
        memory_mb: 64,
        ..Default::default()
    };
    let vm = create::create(&cluster.backend, request, Caller::within(WHILE))
        .await
        .unwrap();
    vm.id.parse().unwrap()
}

fn is_placed(view: &ClusterView, vm: VmId) -> Option<()> {
    view.vms.get(&vm)?.placement.as_ref().map(drop)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_by_who_does_not_lead() {
    let cluster = Played::of_hosts(1).await;
    let controller = cluster.controller(false);
    let vm = create(&cluster, "one").await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(cluster.mirror.read(|view| is_placed(view, vm)), None);
    controller.leads.send(true).unwrap();
    cluster.until("placed", |view| is_placed(view, vm)).await;

    controller.leads.send(false).unwrap();
    let vm = create(&cluster, "two").await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(cluster.mirror.read(|view| is_placed(view, vm)), None);
    controller.ends().await;
    let next = cluster.controller(true);
    cluster.until("placed", |view| is_placed(view, vm)).await;
    next.ends().await;
}

#[tokio::test(start_paused = true)]
async fn two_at_once_place_everything_once() {
    let cluster = Played::of_hosts(3).await;
    let controllers = [cluster.controller(true), cluster.controller(true)];
    let names: Vec<String> = (0..40).map(|number| format!("vm{number}")).collect();
    let vms = futures::future::join_all(names.iter().map(|name| create(&cluster, name))).await;
    for vm in &vms {
        cluster.until("placed", |view| is_placed(view, *vm)).await;
    }
    tokio::time::sleep(WHILE).await;
    cluster.mirror.read(|view| {
        for vm in &vms {
            let placement = view.vms[vm].placement.as_ref().unwrap();
            assert_eq!(placement.value.incarnation, Incarnation::FIRST);
            let placed = view
                .decisions
                .values()
                .filter(|decision| decision.value.vm == Some(*vm));
            assert_eq!(placed.filter(|decision| decision.value.kind == "place").count(), 1);
        }
    });
    for controller in controllers {
        controller.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for() {
    let (cluster, controller) = Played::led(1).await;
    let reason = "three servers were switched off".to_owned();
    controller.link.set_down(Some(KvError::NoLeader { reason }));
    let vm = create(&cluster, "one").await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(cluster.mirror.read(|view| is_placed(view, vm)), None);
    controller.link.set_down(None);
    controller.link.next(Fault::Lost);
    cluster.until("placed", |view| is_placed(view, vm)).await;
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_tells_what_became_of_it() {
    let cluster = Played::of_hosts(1).await;
    for name in ["a", "b", "c"] {
        create(&cluster, name).await;
    }
    let heard = cluster.mirror.heard(Instant::now());
    let planned: Vec<ControlAction> = cluster.mirror.read(|view| plan(view, &heard, wall_ms()));
    assert_eq!(planned.len(), 3);
    let mut salt = 0;
    let mut salts = || {
        salt += 1;
        salt
    };
    let report = step(&*cluster.store, planned.clone(), &mut salts).await;
    let (done, decisions) = (report.done, report.decisions);
    assert_eq!((done, report.raced, report.failed, decisions), (3, 0, 0, 3));
    assert!(report.revision > 0);

    // All of it was decided on what has changed since.
    let again = step(&*cluster.store, planned.clone(), &mut salts).await;
    let raced = StepReport {
        raced: 3,
        ..StepReport::default()
    };
    assert_eq!(again, raced);
    let reason = "away".to_owned();
    cluster.link.set_down(Some(KvError::NoLeader { reason }));
    let away = step(&*cluster.link, planned, &mut salts).await;
    let failed = StepReport {
        failed: 3,
        ..StepReport::default()
    };
    assert_eq!(away, failed);
}
