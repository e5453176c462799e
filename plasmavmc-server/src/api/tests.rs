//! The calls, on a cluster whose hosts are played.

mod operations;
mod refusals;
mod requests;
mod storeless;
mod streams;
mod updates;
mod watching;

use std::fmt::Debug;
use std::time::Duration;

use plasmavmc_proto::api;
use plasmavmc_types::OperationKind;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::DOMAIN;
use super::caller::Caller;
use super::error::ApiError;
use super::requests::Asked;
use super::vms::act::{Order, act};
use super::vms::create;
use crate::played::Played;

const STOP: OperationKind = OperationKind::Stop { force: false };
/// An id that nothing has.
const NOBODY: &str = "00000000-0000-4000-8000-00000000dead";
const PATIENCE: Duration = Duration::from_secs(60);

fn patient() -> Caller {
    Caller::within(PATIENCE)
}

/// A call is refused: with this code, for programs with this reason, for people with these words of remedy.
#[track_caller]
fn check<T: Debug>(answered: Result<T, ApiError>, code: Code, reason: &str, remedy: &str) {
    let status = Status::from(answered.expect_err("it is not refused"));
    let details = status.get_error_details();
    let info = details.error_info().expect("every refusal has a reason");
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    assert_eq!(info.domain, DOMAIN);
    assert!(
        status.message().contains(remedy),
        "{:?} does not say {remedy:?}",
        status.message()
    );
}

/// A request is refused for these fields, all of which are told at once.
#[track_caller]
fn check_fields<T: Debug>(answered: Result<T, ApiError>, fields: &[&str]) {
    let status = Status::from(answered.expect_err("it is not refused"));
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("what is wrong is listed").field_violations;
    let found: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(found, fields, "{violations:#?}");
    for violation in violations {
        let (field, description) = (&violation.field, &violation.description);
        assert!(
            !description.is_empty() && status.message().contains(description.as_str()),
            "{field}"
        );
    }
}

fn small(name: &str) -> api::CreateVmRequest {
    api::CreateVmRequest {
        name: name.to_owned(),
        vcpus: 1,
        memory_mb: 64,
        ..Default::default()
    }
}

/// A VM that nobody starts.
async fn made(cluster: &Played, name: &str) -> api::Vm {
    let request = api::CreateVmRequest {
        powered_off: true,
        ..small(name)
    };
    create::create(&cluster.backend, request, patient()).await.unwrap()
}

/// A VM that runs.
async fn running(cluster: &Played, name: &str) -> api::Vm {
    let request = api::CreateVmRequest {
        wait: true,
        ..small(name)
    };
    let vm = create::create(&cluster.backend, request, patient()).await.unwrap();
    assert_eq!(vm.state(), api::vm::State::Running, "{vm:#?}");
    vm
}

fn anonymous() -> Asked {
    Asked::new("Any", "", &()).unwrap()
}

async fn order(cluster: &Played, vm: &str, kind: OperationKind) -> Result<api::Operation, ApiError> {
    let order = Order::new(vm.to_owned(), kind, false, 0);
    act(&cluster.backend, order, anonymous(), patient()).await
}

/// As [`order`], and waits until it is done.
async fn done(cluster: &Played, vm: &str, kind: OperationKind) -> api::Operation {
    let order = Order::new(vm.to_owned(), kind, true, 0);
    act(&cluster.backend, order, anonymous(), patient()).await.unwrap()
}

async fn delete(cluster: &Played, vm: &str, force: bool, generation: u64) -> Result<api::Operation, ApiError> {
    let mut order = Order::new(vm.to_owned(), OperationKind::Delete, false, 0);
    order.force_delete = force;
    order.generation = generation;
    act(&cluster.backend, order, anonymous(), patient()).await
}
