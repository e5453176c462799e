//! Where streams begin, and how many there may be.

use plasmavmc_proto::api;

use super::*;
use crate::api::vms::watch;
use crate::api::{events, operations};

#[tokio::test(start_paused = true)]
async fn streams_begin_where_there_is_something() {
    let cluster = Played::of_hosts(1).await;
    made(&cluster, "web").await;
    let now = cluster.mirror.read(|view| view.revision);
    let vms = |from_revision, id: &str| {
        let id = id.to_owned();
        watch::watch(cluster.backend.clone(), api::WatchVmsRequest { from_revision, id })
    };
    let events = |from_revision, vm: &str, host: &str| {
        let (vm, host) = (vm.to_owned(), host.to_owned());
        events::watch(
            cluster.backend.clone(),
            api::WatchEventsRequest {
                from_revision,
                vm,
                host,
            },
        )
    };
    let ahead = now + 1000;
    check(
        vms(ahead, "").await,
        Code::OutOfRange,
        "REVISION_AHEAD",
        "this cluster gave out",
    );
    check(
        events(ahead, "", "").await,
        Code::OutOfRange,
        "REVISION_AHEAD",
        "this cluster gave out",
    );
    check(vms(0, "nobody").await, Code::NotFound, "VM_NOT_FOUND", "vm list");
    check(events(0, "nobody", "").await, Code::NotFound, "VM_NOT_FOUND", "vm list");
    check(
        events(0, "", "nobody").await,
        Code::NotFound,
        "HOST_NOT_FOUND",
        "host list",
    );
    check(
        operations::watch(cluster.backend.clone(), NOBODY).await,
        Code::NotFound,
        "OPERATION_NOT_FOUND",
        "a while",
    );
    cluster.store.compact(now).unwrap();
    check(vms(1, "").await, Code::OutOfRange, "REVISION_COMPACTED", "begin again");
    check(
        events(1, "", "").await,
        Code::OutOfRange,
        "REVISION_COMPACTED",
        "begin again",
    );
}

#[tokio::test(start_paused = true)]
async fn streams_have_a_bound() {
    let cluster = Played::of_hosts(1).await;
    let attach = || watch::watch(cluster.backend.clone(), api::WatchVmsRequest::default());
    let mut open = Vec::new();
    while let Ok(stream) = attach().await {
        open.push(stream);
        assert!(open.len() <= 1000, "watches have a bound");
    }
    check(
        attach().await,
        Code::ResourceExhausted,
        "TOO_MANY_WATCHES",
        "close some",
    );
    open.clear();
    while attach().await.is_err() {
        tokio::task::yield_now().await;
    }
}
