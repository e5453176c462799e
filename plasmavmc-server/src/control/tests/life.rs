//! Random clients, controllers that come and go or are two at once, hosts that are emptied, answers that get lost: in
//! the end every VM is where it should be, and nothing is left of those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plasmavmc_core::view::{ClusterView, VmView};
use plasmavmc_proto::api;
use plasmavmc_types::{HostId, HostMode, ObservedState, OperationKind, PowerWanted, VmId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::Code;

use crate::api::caller::Caller;
use crate::api::requests::Asked;
use crate::api::vms::act::{Order, act};
use crate::api::vms::{create, update};
use crate::api::{ApiError, Backend};
use crate::played::{Fault, Led, Played};
use crate::store::{Write, keys};

const SEEDS: u64 = 12;
const CLIENTS: u64 = 4;
const CALLS: usize = 40;
/// Few, so that clients meet.
const NAMES: u32 = 8;
const MEMORY_MB: u64 = 16_384;

#[tokio::test(start_paused = true)]
async fn whatever_clients_do_every_vm_ends_where_it_should_be() {
    for seed in 0..SEEDS {
        live(seed).await;
    }
}

async fn live(seed: u64) {
    let cluster = Played::of_hosts(3).await;
    let clients = (0..CLIENTS).map(|number| client(cluster.backend.clone(), seed * CLIENTS + number));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut controllers = vec![cluster.controller(true)];
    tokio::select! {
        _ = futures::future::join_all(clients) => {}
        () = trouble(&cluster, &mut controllers, &mut rng) => {}
    }
    for host in &cluster.hosts {
        set_mode(&cluster, *host, HostMode::Active).await;
    }
    controllers.push(cluster.controller(true));
    cluster.until("at rest", |view| is_at_rest(view).then_some(())).await;
    check_truth(&cluster, seed);
    for controller in controllers {
        controller.ends().await;
    }
}

/// Never ends: something is always the matter with the controllers and the hosts.
async fn trouble(cluster: &Played, controllers: &mut Vec<Led>, rng: &mut StdRng) {
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..200))).await;
        let controller = &controllers[rng.random_range(0..controllers.len())];
        match rng.random_range(0..10) {
            0 if controllers.len() < 3 => controllers.push(cluster.controller(true)),
            1 => {
                let ended = controllers.swap_remove(rng.random_range(0..controllers.len()));
                ended.ends().await;
                if controllers.is_empty() {
                    controllers.push(cluster.controller(true));
                }
            }
            2 => drop(controller.leads.send(false)),
            3 => {
                let host = cluster.hosts[rng.random_range(0..cluster.hosts.len())];
                let modes = [
                    HostMode::Active,
                    HostMode::Draining,
                    HostMode::Active,
                    HostMode::Maintenance,
                ];
                set_mode(cluster, host, modes[rng.random_range(0..modes.len())]).await;
            }
            4 => controller.link.next(Fault::AnswerLost),
            5 => controller.link.next(Fault::Lost),
            _ => drop(controller.leads.send(true)),
        }
    }
}

async fn set_mode(cluster: &Played, host: HostId, mode: HostMode) {
    let record = cluster.mirror.read(|view| view.hosts[&host].record.clone()).unwrap();
    let write = Write::new().expect(keys::host_record(host), record.revision);
    cluster.write(write.put_host(&record.value.with_mode(mode))).await;
}

/// Asks for all kinds of things, one after the other.
async fn client(backend: Backend, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for call in 0..CALLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
        let name = format!("vm{}", rng.random_range(0..NAMES));
        let request_id = format!("{seed}-{call}");
        let answered = match rng.random_range(0..10) {
            0..3 => create_one(&backend, name, &mut rng, request_id).await,
            3 => change(&backend, name, &mut rng, request_id).await,
            _ => order(&backend, name, &mut rng, &request_id).await,
        };
        if let Err(error) = answered {
            check_refusal(error);
        }
    }
}

/// What random calls may be refused with: never a mistake of the program, never an unknown outcome.
fn check_refusal(error: ApiError) {
    let text = error.to_string();
    let code = tonic::Status::from(error).code();
    let usual = [
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::DeadlineExceeded,
    ];
    assert!(usual.contains(&code), "{code:?}: {text}");
}

fn caller(rng: &mut StdRng) -> Caller {
    Caller::within(Duration::from_millis(rng.random_range(10..20_000)))
}

async fn create_one(backend: &Backend, name: String, rng: &mut StdRng, request_id: String) -> Result<(), ApiError> {
    let request = api::CreateVmRequest {
        name,
        vcpus: 1,
        memory_mb: rng.random_range(64..3000),
        vmid: if rng.random_bool(0.3) {
            rng.random_range(100..110)
        } else {
            0
        },
        powered_off: rng.random_bool(0.2),
        wait: rng.random_bool(0.5),
        request_id,
        ..Default::default()
    };
    create::create(backend, request, caller(rng)).await.map(drop)
}

async fn change(backend: &Backend, name: String, rng: &mut StdRng, request_id: String) -> Result<(), ApiError> {
    let spec = api::VmSpec {
        memory_mb: rng.random_range(64..3000),
        name: format!("vm{}", rng.random_range(0..NAMES)),
        ..Default::default()
    };
    let path = if rng.random_bool(0.3) { "name" } else { "memory_mb" };
    let request = api::UpdateVmRequest {
        id: name,
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
        request_id,
        ..Default::default()
    };
    update::update(backend, request).await.map(drop)
}

async fn order(backend: &Backend, vm: String, rng: &mut StdRng, request_id: &str) -> Result<(), ApiError> {
    let kinds = [
        OperationKind::Start,
        OperationKind::Stop { force: false },
        OperationKind::Stop { force: true },
        OperationKind::Restart { force: false },
        OperationKind::Reboot,
        OperationKind::Pause,
        OperationKind::Resume,
        OperationKind::Delete,
    ];
    let kind = kinds[rng.random_range(0..kinds.len())];
    let asked = Asked::new("Order", request_id, &())?;
    let mut order = Order::new(vm, kind, rng.random_bool(0.5), 0);
    order.force_delete = rng.random_bool(0.5);
    act(backend, order, asked, caller(rng)).await.map(drop)
}

fn is_at_rest(view: &ClusterView) -> bool {
    let has_ended = view.operations.values().all(|operation| operation.value.is_ended());
    has_ended && view.vms.values().all(is_as_wanted)
}

fn is_as_wanted(vm: &VmView) -> bool {
    let Some(record) = vm.record.as_ref().map(|record| &record.value) else {
        return false;
    };
    let state = vm.current_status().map(|status| &status.value.state);
    match record.power() {
        _ if record.is_deleted() => false,
        PowerWanted::On => matches!(state, Some(ObservedState::Running | ObservedState::Paused { .. })),
        PowerWanted::Off => vm.placement.is_none() || state == Some(&ObservedState::Stopped),
    }
}

/// What is stored fits together, and fits what really runs.
fn check_truth(cluster: &Played, seed: u64) {
    cluster.mirror.read(|view| {
        let runs = |vm: &VmView| {
            vm.record
                .as_ref()
                .is_some_and(|record| record.value.power() == PowerWanted::On)
        };
        let running = view.vms.iter().filter(|(_, vm)| runs(vm));
        let expected: BTreeMap<VmId, HostId> = running
            .map(|(id, vm)| (*id, vm.placement.as_ref().unwrap().value.host))
            .collect();
        assert_eq!(*cluster.book.lock(), expected, "seed {seed}");
        let records = || view.vms.values().map(|vm| &vm.record.as_ref().unwrap().value);
        let names: BTreeSet<_> = records()
            .map(|record| (record.spec().name.clone(), record.id()))
            .collect();
        let numbers: BTreeSet<_> = records().map(|record| (record.number(), record.id())).collect();
        assert_eq!(names, view.names.clone().into_iter().collect(), "seed {seed}");
        assert_eq!(numbers, view.numbers.clone().into_iter().collect(), "seed {seed}");
        let mut used = BTreeMap::<HostId, u64>::new();
        for (vm, host) in &expected {
            let memory_mb = view.vms[vm].record.as_ref().unwrap().value.spec().memory_mb;
            *used.entry(*host).or_default() += memory_mb;
        }
        assert!(
            used.values().all(|memory_mb| *memory_mb <= MEMORY_MB),
            "seed {seed}: {used:?}"
        );
    });
}
