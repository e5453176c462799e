//! What bad input gets: a code, a reason and a remedy, each its own; and nothing half made stays.

use plasmavmc_proto::api;
use plasmavmc_types::HostMode;

use super::*;
use crate::api::vms::{read, update};
use crate::api::{hosts, operations};

async fn create(cluster: &Played, request: api::CreateVmRequest) -> Result<api::Vm, ApiError> {
    create::create(&cluster.backend, request, patient()).await
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_cannot_be_is_refused_with_every_field_that_is_wrong() {
    let (cluster, _controller) = Played::led(1).await;
    let before = cluster.mirror.read(|view| view.vms.len());
    let named = |name: &str| create(&cluster, small(name));
    for name in ["", "7up", "Web", "web_1", "web-", &"a".repeat(64), NOBODY] {
        check_fields(named(name).await, &["name"]);
    }
    let edited = |edit: fn(&mut api::CreateVmRequest)| {
        let mut request = small("web");
        edit(&mut request);
        create(&cluster, request)
    };
    check_fields(
        edited(|vm| (vm.vcpus, vm.memory_mb) = (0, 0)).await,
        &["vcpus", "memory_mb"],
    );
    check_fields(
        edited(|vm| (vm.vcpus, vm.memory_mb) = (u32::MAX, u64::MAX)).await,
        &["vcpus", "memory_mb"],
    );
    let many = edited(|vm| (vm.name, vm.vcpus, vm.vmid) = (String::new(), 0, u32::MAX));
    check_fields(many.await, &["vmid", "name", "vcpus"]);
    // As a newer client might send it.
    check_fields(edited(|vm| vm.agent = 77).await, &["agent"]);
    let depends = |vm: &mut api::CreateVmRequest| {
        vm.depends_on = vec![api::Dependency {
            vm: "nobody".to_owned(),
            ..Default::default()
        }];
    };
    check_fields(edited(depends).await, &["depends_on[0].vm"]);
    check_fields(
        edited(|vm| vm.boot_order = vec!["disk9".to_owned()]).await,
        &["boot_order[0]"],
    );
    check_fields(
        edited(|vm| vm.request_id = "no spaces".to_owned()).await,
        &["request_id"],
    );
    check_fields(edited(|vm| vm.request_id = "x".repeat(200)).await, &["request_id"]);
    assert_eq!(cluster.mirror.read(|view| view.vms.len()), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_is_refused_and_the_rest_of_it_undone() {
    let cluster = Played::of_hosts(1).await;
    let first = made(&cluster, "web").await;
    check(
        create(&cluster, small("web")).await,
        Code::AlreadyExists,
        "NAME_TAKEN",
        "choose another name",
    );
    let numbered = api::CreateVmRequest {
        vmid: first.vmid,
        ..small("other")
    };
    check(
        create(&cluster, numbered).await,
        Code::AlreadyExists,
        "VMID_TAKEN",
        "leave it out",
    );
    let asked = |request_id: &str, memory_mb| api::CreateVmRequest {
        request_id: request_id.to_owned(),
        memory_mb,
        ..small("db")
    };
    create(&cluster, asked("r1", 64)).await.unwrap();
    check(
        create(&cluster, asked("r1", 65)).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
        "use a new id",
    );
    cluster.mirror.read(|view| {
        let numbers = (
            view.vms.len(),
            view.names.len(),
            view.numbers.len(),
            view.operations.len(),
        );
        assert_eq!(numbers, (2, 2, 2, 2));
    });
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_told_where_to_look() {
    let cluster = Played::of_hosts(1).await;
    let get = |id: &str| {
        let id = id.to_owned();
        read::get(&cluster.backend, api::GetVmRequest { id, stale: false })
    };
    for id in ["nobody", "4711", NOBODY] {
        check(get(id).await, Code::NotFound, "VM_NOT_FOUND", "'plasmavmc vm list'");
        check(
            order(&cluster, id, STOP).await,
            Code::NotFound,
            "VM_NOT_FOUND",
            "'plasmavmc vm list'",
        );
    }
    for id in ["", "No Name", "0", "99999999999999999999"] {
        check(get(id).await, Code::InvalidArgument, "INVALID_ARGUMENT", "names no VM");
        check(
            order(&cluster, id, STOP).await,
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
            "names no VM",
        );
    }
    for host in ["h9", NOBODY] {
        let drained = hosts::set_mode(&cluster.backend, host, HostMode::Draining).await;
        check(drained, Code::NotFound, "HOST_NOT_FOUND", "'plasmavmc host list'");
        let listed = api::ListVmsRequest {
            host: host.to_owned(),
            ..Default::default()
        };
        check(
            read::list(&cluster.backend, listed).await,
            Code::NotFound,
            "HOST_NOT_FOUND",
            "host list",
        );
    }
    check_fields(hosts::get(&cluster.backend, "").await, &["id"]);
    check_fields(operations::get(&cluster.backend, "seven").await, &["id"]);
    for answered in [
        operations::get(&cluster.backend, NOBODY).await,
        operations::cancel(&cluster.backend, NOBODY).await,
    ] {
        check(answered, Code::NotFound, "OPERATION_NOT_FOUND", "kept for a while");
    }
    let explained = read::explain(
        &cluster.backend,
        api::ExplainVmRequest {
            id: "nobody".to_owned(),
        },
    );
    check(explained.await, Code::NotFound, "VM_NOT_FOUND", "vm list");
}

#[tokio::test(start_paused = true)]
async fn lists_are_asked_for_in_words_that_there_are() {
    let cluster = Played::of_hosts(1).await;
    let page_token = || "somewhere".to_owned();
    let vms = |request| read::list(&cluster.backend, request);
    let bad_token = api::ListVmsRequest {
        page_token: page_token(),
        ..Default::default()
    };
    check_fields(vms(bad_token).await, &["page_token"]);
    let bad_state = api::ListVmsRequest {
        states: vec![3, 77],
        ..Default::default()
    };
    check_fields(vms(bad_state).await, &["states[1]"]);
    let bad_token = api::ListOperationsRequest {
        page_token: page_token(),
        ..Default::default()
    };
    check_fields(operations::list(&cluster.backend, bad_token).await, &["page_token"]);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_in_a_state_is_refused_with_what_to_do_first() {
    let (cluster, _controller) = Played::led(1).await;
    let refused = Code::FailedPrecondition;
    made(&cluster, "off").await;
    for kind in [
        OperationKind::Reboot,
        OperationKind::Pause,
        OperationKind::Reset,
        OperationKind::Resume,
    ] {
        check(
            order(&cluster, "off", kind).await,
            refused,
            "VM_NOT_RUNNING",
            "start it first",
        );
    }
    running(&cluster, "on").await;
    check(
        delete(&cluster, "on", false, 0).await,
        refused,
        "VM_RUNNING",
        "delete it with force",
    );
    done(&cluster, "on", OperationKind::Pause).await;
    check(
        order(&cluster, "on", STOP).await,
        refused,
        "VM_PAUSED",
        "resume it first, or use force",
    );
    check(
        order(&cluster, "on", OperationKind::Start).await,
        refused,
        "VM_PAUSED",
        "resume it",
    );

    // Nobody takes what a silent cluster is told.
    let cluster = Played::of_hosts(1).await;
    made(&cluster, "gone").await;
    delete(&cluster, "gone", false, 0).await.unwrap();
    check(
        order(&cluster, "gone", OperationKind::Start).await,
        refused,
        "VM_DELETED",
        "cannot be undone",
    );
    check(
        delete(&cluster, "gone", true, 0).await,
        refused,
        "VM_DELETED",
        "cannot be undone",
    );
    let change = api::UpdateVmRequest {
        id: "gone".to_owned(),
        spec: Some(api::VmSpec::default()),
        ..Default::default()
    };
    check(
        update::update(&cluster.backend, change).await,
        refused,
        "VM_DELETED",
        "cannot be undone",
    );
}

#[tokio::test(start_paused = true)]
async fn orders_do_not_run_into_each_other() {
    let (cluster, controller) = Played::led(1).await;
    let vm = running(&cluster, "web").await;
    // From now on nobody carries anything out.
    controller.ends().await;
    cluster.hosts_leave();
    let under_way = order(&cluster, "web", OperationKind::Reboot).await.unwrap();
    let second = order(&cluster, "web", OperationKind::Reset).await;
    let status = Status::from(second.clone().unwrap_err());
    let facts = status.get_error_details().error_info().unwrap().metadata.clone();
    assert_eq!(facts.get("operation"), Some(&under_way.id));
    check(second, Code::Aborted, "OPERATION_IN_PROGRESS", "cancel it");
    order(&cluster, &vm.id, OperationKind::Stop { force: true })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_old_generation_is_refused_with_the_one_there_is() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    let change = |generation| api::UpdateVmRequest {
        id: "web".to_owned(),
        generation,
        spec: Some(api::VmSpec {
            memory_mb: 64 + generation,
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["memory_mb".to_owned()],
        }),
        ..Default::default()
    };
    let changed = update::update(&cluster.backend, change(vm.generation)).await.unwrap();
    assert_eq!(changed.generation, vm.generation + 1);
    let refused = update::update(&cluster.backend, change(vm.generation)).await;
    let status = Status::from(refused.clone().unwrap_err());
    let facts = status.get_error_details().error_info().unwrap().metadata.clone();
    assert_eq!(facts.get("generation"), Some(&changed.generation.to_string()));
    check(refused, Code::Aborted, "STALE_GENERATION", "read it again");
    check(
        delete(&cluster, "web", false, vm.generation).await,
        Code::Aborted,
        "STALE_GENERATION",
        "read it again",
    );
    delete(&cluster, "web", false, changed.generation).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changes_and_times_are_asked_for_in_words_that_there_are() {
    let cluster = Played::of_hosts(1).await;
    made(&cluster, "web").await;
    let change = |spec: Option<api::VmSpec>, paths: &[&str]| api::UpdateVmRequest {
        id: "web".to_owned(),
        spec,
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..Default::default()
    };
    let update = |request| update::update(&cluster.backend, request);
    check_fields(update(change(None, &[])).await, &["spec"]);
    let unknown = change(Some(api::VmSpec::default()), &["memory_mb", "colour"]);
    check_fields(update(unknown).await, &["update_mask.paths[1]"]);
    let zero = change(Some(api::VmSpec::default()), &["memory_mb", "vcpus"]);
    check_fields(update(zero).await, &["vcpus", "memory_mb"]);
    let mut late = Order::new("web".to_owned(), STOP, false, 24 * 3600 + 1);
    check_fields(
        act(&cluster.backend, late.clone(), anonymous(), patient()).await,
        &["timeout_s"],
    );
    late.timeout_s = 24 * 3600;
    act(&cluster.backend, late, anonymous(), patient()).await.unwrap();
    cluster.mirror.read(|view| {
        let record = view.vms.values().next().unwrap().record.as_ref().unwrap();
        assert_eq!(record.value.spec().memory_mb, 64);
    });
}

#[tokio::test(start_paused = true)]
async fn without_room_the_caller_is_told_what_every_host_lacks() {
    let (cluster, _controller) = Played::led(2).await;
    let huge = api::CreateVmRequest {
        memory_mb: 1 << 20,
        wait: true,
        ..small("huge")
    };
    let waited = create::create(&cluster.backend, huge, Caller::within(Duration::from_secs(2))).await;
    check(
        waited,
        Code::DeadlineExceeded,
        "STILL_UNDER_WAY",
        "no host fits: h1: needs 1048576 MB, 16384 of 16384 free; h2: needs 1048576 MB",
    );
    let explained = read::explain(&cluster.backend, api::ExplainVmRequest { id: "huge".to_owned() })
        .await
        .unwrap();
    assert_eq!(explained.hosts.iter().filter(|host| host.fits).count(), 0);
    assert!(explained.summary.contains("no host fits"), "{}", explained.summary);
    // Whoever waits for it hears that it will never be.
    let start = Order::new("huge".to_owned(), OperationKind::Start, true, 0);
    let waits = act(&cluster.backend, start, anonymous(), patient());
    let deletes = async {
        let joined = |view: &plasmavmc_core::view::ClusterView| (view.operations.len() == 2).then_some(());
        cluster.until("joined", joined).await;
        delete(&cluster, "huge", false, 0).await.unwrap()
    };
    let (waited, _) = tokio::join!(waits, deletes);
    check(waited, Code::Aborted, "VM_DELETED", "deleted meanwhile");
    cluster.until("gone", |view| view.vms.is_empty().then_some(())).await;
}
