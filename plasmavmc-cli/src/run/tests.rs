use std::sync::Mutex;

use plasmavmc_proto::api::{
    CreateVmRequest, DeleteVmRequest, GetOperationRequest, ListVmsResponse, Operation, OperationError,
    SetTimingsRequest, SetTimingsResponse, StopVmRequest, UpdateVmRequest, Vm, VmSpec, operation,
};
use tonic::{Code, Status};

use super::*;
use crate::fake::{Fake, nobody, one};

const OP: &str = "6f1c1c5e-7a52-4a55-9d8b-0e6f5a3c2b11";

async fn plasmavmc(server: &str, line: &str) -> Exit {
    let words = ["plasmavmc", "--server", server]
        .into_iter()
        .chain(line.split_whitespace());
    run(words.map(OsString::from)).await
}

fn web() -> Vm {
    let spec = VmSpec {
        name: "web".to_owned(),
        vcpus: 1,
        memory_mb: 512,
        ..VmSpec::default()
    };
    Vm {
        id: "7d0c0b5e-0000-4000-8000-000000000001".to_owned(),
        name: "web".to_owned(),
        generation: 4,
        spec: Some(spec),
        operation: OP.to_owned(),
        ..Vm::default()
    }
}

fn op(state: operation::State, error: Option<Code>) -> Operation {
    let error = error.map(|code| OperationError {
        code: code as u32,
        ..OperationError::default()
    });
    Operation {
        id: OP.to_owned(),
        kind: "stop".to_owned(),
        state: state.into(),
        error,
        ..Operation::default()
    }
}

/// A cluster whose operations end like this.
async fn ending(state: operation::State, error: Option<Code>) -> Fake {
    Fake::answering(move |call, _| match call {
        "ListVms" => one(&ListVmsResponse {
            vms: vec![web()],
            ..ListVmsResponse::default()
        }),
        "GetVm" | "CreateVm" | "UpdateVm" => one(&web()),
        "WatchOperation" => {
            let under_way = op(operation::State::Running, None);
            Ok([under_way, op(state, error)]
                .iter()
                .map(prost::Message::encode_to_vec)
                .collect())
        }
        _ => one(&op(operation::State::Pending, None)),
    })
    .await
}

#[tokio::test]
async fn what_an_operation_comes_to_is_the_exit_status() {
    let table = [
        (operation::State::Done, None, Exit::Ok),
        (operation::State::Failed, Some(Code::FailedPrecondition), Exit::Refused),
        (operation::State::Failed, Some(Code::DeadlineExceeded), Exit::TimedOut),
        (operation::State::Failed, Some(Code::Internal), Exit::Failed),
        (operation::State::Cancelled, None, Exit::Failed),
    ];
    for (state, error, exit) in table {
        let fake = ending(state, error).await;
        for line in [
            "vm stop web",
            "vm create web --vcpus 1 --memory 1G -q",
            "op wait 6f1c1c5e7a524a559d8b0e6f5a3c2b11",
        ] {
            assert_eq!(plasmavmc(&fake.address, line).await, exit, "{line} {state:?} {error:?}");
        }
    }
}

#[tokio::test]
async fn what_a_server_answers_is_the_exit_status() {
    let table = [
        (Code::NotFound, 3),
        (Code::FailedPrecondition, 4),
        (Code::Unavailable, 5),
        (Code::DeadlineExceeded, 6),
        (Code::AlreadyExists, 7),
        (Code::InvalidArgument, 2),
        (Code::Internal, 1),
    ];
    for (code, exit) in table {
        let fake = Fake::answering(move |_, _| Err(Status::new(code, "on purpose"))).await;
        for line in [
            "vm get web",
            "vm start web -o json",
            "vm list",
            "cluster status",
            "vm watch",
        ] {
            assert_eq!(plasmavmc(&fake.address, line).await as u8, exit, "{line} {code:?}");
        }
    }
    assert_eq!(plasmavmc(&nobody().await, "vm list").await, Exit::Unavailable);
}

#[tokio::test]
async fn of_timings_only_what_is_given_is_sent() {
    let fake = Fake::answering(|call, request| {
        assert_eq!(call, "SetTimings");
        let asked = <SetTimingsRequest as prost::Message>::decode(request).unwrap();
        let expected = SetTimingsRequest {
            beat_ms: Some(500),
            failover_after_ms: Some(90_000),
            ..SetTimingsRequest::default()
        };
        assert_eq!(asked, expected);
        one(&SetTimingsResponse::default())
    })
    .await;
    let line = "cluster set-timings --beat 500ms --failover-after 90s";
    assert_eq!(plasmavmc(&fake.address, line).await, Exit::Ok);
}

#[tokio::test]
async fn what_is_wrong_on_the_command_line_reaches_nobody() {
    let fake = ending(operation::State::Done, None).await;
    let both = format!("{},{}", fake.address, fake.address);
    let lines = [
        "vm stop",
        "vm delete",
        "vm create web",
        "vm update web",
        "vm update web --set vcpu=2",
        "vm get Web/1",
        "cluster set-timings",
    ];
    for line in lines {
        assert_eq!(plasmavmc(&fake.address, line).await, Exit::Usage, "{line}");
    }
    for line in ["cluster init", "cluster join --via h1:1 --token t"] {
        assert_eq!(plasmavmc(&both, line).await, Exit::Usage, "{line}");
    }
    assert_eq!(plasmavmc("h1", "vm list").await, Exit::Usage);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn every_change_carries_a_request_id() {
    let fake = ending(operation::State::Done, None).await;
    for line in [
        "vm stop web --within 90s",
        "vm delete web --force --request-id mine",
        "vm update web --vcpus 2",
    ] {
        assert_eq!(plasmavmc(&fake.address, line).await, Exit::Ok, "{line}");
    }
    assert_eq!(
        plasmavmc(&fake.address, "vm create web --vcpus 1 --memory 1G --stopped").await,
        Exit::Ok
    );
    let stop: Vec<StopVmRequest> = fake.requests("StopVm");
    assert!(
        stop[0].request_id.len() == 36 && stop[0].timeout_s == 90 && !stop[0].wait,
        "{stop:?}"
    );
    let delete: Vec<DeleteVmRequest> = fake.requests("DeleteVm");
    assert!(
        delete[0].request_id == "mine" && delete[0].force && delete[0].id == "web",
        "{delete:?}"
    );
    let create: Vec<CreateVmRequest> = fake.requests("CreateVm");
    assert!(!create[0].request_id.is_empty() && create[0].powered_off, "{create:?}");
    let update: Vec<UpdateVmRequest> = fake.requests("UpdateVm");
    let mask = update[0].update_mask.clone().unwrap().paths;
    assert_eq!(
        (update[0].generation, mask, update[0].spec.as_ref().unwrap().vcpus),
        (4, vec!["vcpus".to_owned()], 2)
    );
}

#[tokio::test]
async fn a_change_that_somebody_was_faster_with_is_looked_at_again() {
    let refused = Mutex::new(2);
    let fake = Fake::answering(move |call, _| match call {
        "UpdateVm" => {
            let mut left = refused.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(Status::aborted("it is generation 5"));
            }
            one(&web())
        }
        _ => one(&web()),
    })
    .await;
    assert_eq!(
        plasmavmc(&fake.address, "vm update web --vcpus 2 --generation 4").await,
        Exit::Conflict
    );
    assert_eq!(plasmavmc(&fake.address, "vm update web --vcpus 2").await, Exit::Ok);
    let ids: Vec<String> = fake
        .requests::<UpdateVmRequest>("UpdateVm")
        .into_iter()
        .map(|sent| sent.request_id)
        .collect();
    assert!(
        ids.len() == 3 && ids[1] != ids[2],
        "another content needs another id: {ids:?}"
    );
}

#[tokio::test]
async fn an_operation_is_followed_at_another_server_when_the_first_is_lost() {
    let losing = Fake::answering(|call, _| match call {
        "WatchOperation" => Err(Status::unavailable("going down")),
        _ => one(&op(operation::State::Running, None)),
    })
    .await;
    let good = ending(operation::State::Done, None).await;
    let both = format!("{},{}", losing.address, good.address);
    assert_eq!(plasmavmc(&both, "vm stop web").await, Exit::Ok);
    assert_eq!(good.requests::<GetOperationRequest>("WatchOperation")[0].id, OP);
}

#[tokio::test]
async fn whoever_stops_waiting_is_told_that_it_goes_on() {
    let fake = Fake::answering(|call, _| match call {
        "WatchOperation" => Ok(Vec::new()),
        _ => one(&op(operation::State::Running, None)),
    })
    .await;
    assert_eq!(
        plasmavmc(&fake.address, "vm stop web --timeout 600ms").await,
        Exit::TimedOut
    );
    assert_eq!(plasmavmc(&fake.address, "vm stop web --no-wait").await, Exit::Ok);
}

#[tokio::test]
async fn nothing_at_all_teaches_the_first_steps() {
    assert_eq!(run([OsString::from("plasmavmc")]).await, Exit::Ok);
    assert_eq!(run(["plasmavmc", "--help"].map(OsString::from)).await, Exit::Ok);
    assert_eq!(run(["plasmavmc", "vm"].map(OsString::from)).await, Exit::Usage);
}
