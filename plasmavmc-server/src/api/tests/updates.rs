//! Changing what is wanted, and reading it in pages.

use std::collections::BTreeSet;

use plasmavmc_proto::api;
use plasmavmc_proto::api::prepare_host_shutdown_request::Vms;
use plasmavmc_types::{HostMode, Leaving};

use super::*;
use crate::api::hosts;
use crate::api::vms::{read, update};
use crate::store::{Write, keys};

async fn change(cluster: &Played, vm: &str, paths: &[&str], spec: api::VmSpec) -> Result<api::Vm, ApiError> {
    let request = api::UpdateVmRequest {
        id: vm.to_owned(),
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        ..Default::default()
    };
    update::update(&cluster.backend, request).await
}

fn nic(name: &str) -> api::Nic {
    api::Nic {
        name: name.to_owned(),
        network: Some(api::nic::Network::User(true)),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_mask_says_which_fields_count() {
    let cluster = Played::of_hosts(1).await;
    let request = api::CreateVmRequest {
        priority: Some(7),
        powered_off: true,
        nics: vec![nic("net0")],
        ..small("web")
    };
    let vm = create::create(&cluster.backend, request, patient()).await.unwrap();
    let mac = vm.spec.as_ref().unwrap().nics[0].mac.clone();
    assert!(mac.starts_with("52:54:00:"), "{mac}");

    let wanted = || api::VmSpec {
        memory_mb: 128,
        vcpus: 4,
        nics: vec![nic("net0"), nic("net1")],
        ..Default::default()
    };
    let bigger = change(&cluster, "web", &["memory_mb"], wanted())
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!((bigger.memory_mb, bigger.vcpus, bigger.priority), (128, 1, Some(7)));
    let both = change(&cluster, "web", &["spec.vcpus", "nics"], wanted())
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!((both.vcpus, both.nics.len()), (4, 2));
    assert_eq!(both.nics[0].mac, mac, "a NIC keeps its address");
    assert_ne!(both.nics[1].mac, mac);

    // Without a mask all of it counts: what is left out is at its default.
    let whole = api::VmSpec {
        name: "web".to_owned(),
        ..wanted()
    };
    let whole = change(&cluster, "web", &[], whole).await.unwrap();
    assert_eq!(whole.spec.unwrap().priority, Some(100));
    assert_eq!(whole.generation, vm.generation + 3);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_changed_with_all_that_knows_it() {
    let cluster = Played::of_hosts(1).await;
    let web = made(&cluster, "web").await;
    made(&cluster, "db").await;
    let named = |name: &str| api::VmSpec {
        name: name.to_owned(),
        ..Default::default()
    };
    check(
        change(&cluster, "web", &["name"], named("db")).await,
        Code::AlreadyExists,
        "NAME_TAKEN",
        "another name",
    );
    let renamed = change(&cluster, "web", &["name"], named("www")).await.unwrap();
    assert_eq!((renamed.id, renamed.vmid), (web.id.clone(), web.vmid));
    let get = |id: String| read::get(&cluster.backend, api::GetVmRequest { id, stale: false });
    check(get("web".to_owned()).await, Code::NotFound, "VM_NOT_FOUND", "vm list");
    for id in ["www".to_owned(), web.vmid.to_string(), web.id.clone()] {
        assert_eq!(get(id).await.unwrap().id, web.id);
    }
    // The old name is free again.
    made(&cluster, "web").await;
}

#[tokio::test(start_paused = true)]
async fn of_many_that_change_one_generation_one_does() {
    let cluster = Played::of_hosts(1).await;
    let vm = made(&cluster, "web").await;
    let changes = (0..16).map(|number| {
        let request = api::UpdateVmRequest {
            id: vm.id.clone(),
            generation: vm.generation,
            spec: Some(api::VmSpec {
                memory_mb: 100 + number,
                ..vm.spec.clone().unwrap()
            }),
            ..Default::default()
        };
        update::update(&cluster.backend, request)
    });
    let answers = futures::future::join_all(changes).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    for refused in refused {
        check(refused, Code::Aborted, "STALE_GENERATION", "read it again");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_together_are_the_list() {
    let (cluster, _controller) = Played::led(2).await;
    for number in 0..7 {
        running(&cluster, &format!("on{number}")).await;
    }
    for number in 0..4 {
        made(&cluster, &format!("off{number}")).await;
    }
    let all = async |filter: api::ListVmsRequest| {
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let asked = api::ListVmsRequest {
                page_size: 2,
                page_token,
                ..filter.clone()
            };
            let page = read::list(&cluster.backend, asked).await.unwrap();
            assert!(page.vms.len() <= 2);
            names.extend(page.vms.into_iter().map(|vm| vm.name));
            if page.next_page_token.is_empty() {
                return names;
            }
            page_token = page.next_page_token;
        }
    };
    let everything = all(api::ListVmsRequest::default()).await;
    assert_eq!(everything.len(), 11);
    assert_eq!(everything.iter().collect::<BTreeSet<_>>().len(), 11);
    let on = |host: &str| api::ListVmsRequest {
        host: host.to_owned(),
        ..Default::default()
    };
    let (first, second) = (all(on("h1")).await, all(on("h2")).await);
    assert_eq!(first.len() + second.len(), 7);
    let stopped = api::ListVmsRequest {
        states: vec![api::vm::State::Stopped.into()],
        ..Default::default()
    };
    assert_eq!(all(stopped).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_emptied_of_what_is_stopped_and_taken_back() {
    let (cluster, _controller) = Played::led(2).await;
    let vm = running(&cluster, "web").await;
    done(&cluster, "web", STOP).await;
    let drained = hosts::set_mode(&cluster.backend, &vm.host, HostMode::Draining)
        .await
        .unwrap();
    assert_eq!(drained.mode(), api::host::Mode::Draining);
    let id: plasmavmc_types::VmId = vm.id.parse().unwrap();
    cluster
        .until("moved", |view| {
            let placement = view.vms.get(&id)?.placement.as_ref()?;
            (view.host_name(placement.value.host) != vm.host).then_some(())
        })
        .await;
    let started = done(&cluster, "web", OperationKind::Start).await;
    assert_eq!(started.state(), api::operation::State::Done);
    let active = hosts::set_mode(&cluster.backend, &vm.host, HostMode::Active)
        .await
        .unwrap();
    assert_eq!(active.mode(), api::host::Mode::Active);
    let again = hosts::set_mode(&cluster.backend, &vm.host, HostMode::Active)
        .await
        .unwrap();
    assert_eq!(again.mode(), api::host::Mode::Active);
    let listed = hosts::list(&cluster.backend, false).await.unwrap().hosts;
    assert!(listed.iter().all(|host| host.state() == api::host::State::Alive));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_prepared_of_a_host_that_is_here_and_taken_back() {
    let (cluster, _controller) = Played::led(2).await;
    let prepare = async |id: &str, timeout_ms, vms: Vms| {
        let request = api::PrepareHostShutdownRequest {
            id: id.to_owned(),
            timeout_ms,
            vms: vms.into(),
        };
        hosts::prepare_shutdown(&cluster.backend, request).await
    };
    for wrong in [1, 999, u64::MAX] {
        check_fields(prepare("h1", wrong, Vms::Unspecified).await, &["timeout_ms"]);
    }
    check(
        prepare("h9", 0, Vms::Unspecified).await,
        Code::NotFound,
        "HOST_NOT_FOUND",
        "'plasmavmc host list'",
    );
    // Without a name it is the host of the server that is asked.
    let own = cluster.mirror.read(|view| view.host_name(cluster.backend.host));
    let told = [
        ("", 0, Vms::Unspecified, Leaving::Move),
        ("", 5000, Vms::Stay, Leaving::Stay),
        (own.as_str(), 5000, Vms::Move, Leaving::Move),
    ];
    for (asked, timeout_ms, vms, leaving) in told {
        let prepared = prepare(asked, timeout_ms, vms).await.unwrap();
        assert_eq!((prepared.mode(), &prepared.name), (api::host::Mode::ShuttingDown, &own));
        let stored = cluster
            .mirror
            .read(|view| view.hosts[&cluster.backend.host].record.clone());
        let departure = stored.unwrap().value.departure().cloned();
        assert_eq!(departure.map(|departure| departure.leaving), Some(leaving));
    }
    let active = hosts::set_mode(&cluster.backend, &own, HostMode::Active).await.unwrap();
    assert_eq!(active.mode(), api::host::Mode::Active);

    let id = cluster.mirror.read(|view| view.host_named("h2")).unwrap();
    let session = cluster.mirror.read(|view| view.hosts[&id].session.clone()).unwrap();
    let fence = Write::new()
        .expect(keys::session(id), session.revision)
        .put_session(id, &session.value.fenced());
    cluster.write(fence).await;
    check(
        prepare("h2", 0, Vms::Unspecified).await,
        Code::FailedPrecondition,
        "HOST_IS_NOT_HERE",
        "as after a failure",
    );
}
