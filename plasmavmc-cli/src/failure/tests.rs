use plasmavmc_proto::api::{OperationError, operation};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn answered(code: Code) -> Failure {
    let answer = Answer::of(&Status::new(code, "why"));
    Failure::Answered {
        doing: "stop web".to_owned(),
        answer: Box::new(answer),
    }
}

fn ended(state: operation::State, code: u32) -> Failure {
    let error = OperationError {
        code,
        reason: "AGENT_SILENT".to_owned(),
        message: "the agent is silent".to_owned(),
    };
    let operation = Operation {
        id: "op-1".to_owned(),
        kind: "stop".to_owned(),
        vm_name: "web".to_owned(),
        state: state.into(),
        error: (code != 0).then_some(error),
        ..Operation::default()
    };
    Failure::Operation {
        operation: Box::new(operation),
    }
}

fn nobody(whys: Vec<Why>) -> Failure {
    let tried = whys
        .into_iter()
        .map(|why| Tried {
            server: "h1:50051".to_owned(),
            why,
        })
        .collect();
    Failure::Nobody {
        doing: "stop web".to_owned(),
        tried,
        request_id: Some("r-1".to_owned()),
    }
}

fn refused() -> Why {
    Why::NotReached("connection refused".to_owned())
}

fn no_quorum() -> Why {
    Why::Cannot(Answer::of(&Status::unavailable("there is no quorum")))
}

#[test]
fn exit_statuses_tell_failures_apart() {
    let silent = || Why::Silent(Duration::from_secs(3));
    let table = [
        (Failure::Usage("why".to_owned()), Exit::Usage),
        (answered(Code::InvalidArgument), Exit::Usage),
        (answered(Code::OutOfRange), Exit::Usage),
        (answered(Code::NotFound), Exit::NotFound),
        (answered(Code::FailedPrecondition), Exit::Refused),
        (answered(Code::ResourceExhausted), Exit::Refused),
        (answered(Code::PermissionDenied), Exit::Refused),
        (answered(Code::Unavailable), Exit::Unavailable),
        (answered(Code::DeadlineExceeded), Exit::TimedOut),
        (answered(Code::AlreadyExists), Exit::Conflict),
        (answered(Code::Aborted), Exit::Conflict),
        (answered(Code::Internal), Exit::Failed),
        (answered(Code::Unimplemented), Exit::Failed),
        (
            ended(operation::State::Failed, Code::FailedPrecondition as u32),
            Exit::Refused,
        ),
        (
            ended(operation::State::Failed, Code::DeadlineExceeded as u32),
            Exit::TimedOut,
        ),
        (ended(operation::State::Failed, 0), Exit::Failed),
        (ended(operation::State::Failed, 9_999), Exit::Failed),
        (ended(operation::State::Cancelled, 0), Exit::Failed),
        (nobody(vec![refused(), refused()]), Exit::Unavailable),
        (nobody(vec![refused(), no_quorum()]), Exit::Unavailable),
        (nobody(vec![silent(), no_quorum()]), Exit::Unavailable),
        (nobody(vec![refused(), silent()]), Exit::TimedOut),
        (Failure::Interrupted { operation: None }, Exit::Interrupted),
        (Failure::NotConfirmed, Exit::Failed),
        (Failure::Unhealthy(2), Exit::Failed),
        (Failure::io("write", io::ErrorKind::BrokenPipe.into()), Exit::Ok),
        (Failure::io("write", io::ErrorKind::StorageFull.into()), Exit::Failed),
    ];
    for (failure, exit) in table {
        assert_eq!(failure.exit(), exit, "{failure:?}");
        let listed = EXIT_STATUSES.contains(&format!("\n  {}  ", exit as u8));
        assert!(listed || exit == Exit::Interrupted, "{exit:?} is not in --help");
    }
}

#[test]
fn a_refusal_is_told_with_its_fields_and_its_remedy() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("disks[0].size_mb", "is 0, allowed is 1 to 5");
    details.add_bad_request_violation("name", "is empty");
    details.set_error_info(
        "INVALID_SPEC",
        "plasmavmc",
        [("remedy".to_owned(), "correct them".to_owned())],
    );
    details.add_help_link("correct them", "");
    let status = Status::with_error_details(Code::InvalidArgument, "the spec is invalid: name is empty", details);
    let answer = Box::new(Answer::of(&status));
    let failure = Failure::Answered {
        doing: "create web".to_owned(),
        answer,
    };
    assert_eq!(
        failure.for_people(),
        "plasmavmc: cannot create web: the spec is invalid: name is empty\n  \
         disks[0].size_mb is 0, allowed is 1 to 5\n  -> correct them\n  (INVALID_SPEC)"
    );
    let object = failure.for_programs();
    assert_eq!(object["error"]["code"], "INVALID_ARGUMENT");
    assert_eq!(object["error"]["reason"], "INVALID_SPEC");
    assert_eq!(object["error"]["exit_status"], 2);
}

#[test]
fn servers_that_are_not_there_are_listed_with_what_to_do() {
    let text = nobody(vec![refused()]).for_people();
    assert!(
        text.contains("h1:50051: connection refused") && text.contains("--server"),
        "{text}"
    );
    assert!(!text.contains("--request-id"), "nothing was sent: {text}");
}

#[test]
fn an_outcome_that_is_not_known_says_how_to_repeat_it_safely() {
    let text = nobody(vec![Why::Silent(Duration::from_millis(2500)), refused()]).for_people();
    assert!(
        text.contains("no answer within 2s") && text.contains("--request-id r-1"),
        "{text}"
    );
}

#[test]
fn a_failed_operation_says_why() {
    let failure = ended(operation::State::Failed, Code::FailedPrecondition as u32);
    assert_eq!(
        failure.for_people(),
        "plasmavmc: stop web: the agent is silent\n  (AGENT_SILENT)"
    );
    assert_eq!(failure.for_programs()["error"]["code"], "FAILED_PRECONDITION");
}

#[test]
fn what_goes_on_is_told_how_to_wait_for() {
    let operation = Operation {
        id: "op-1".to_owned(),
        kind: "stop".to_owned(),
        ..Operation::default()
    };
    let failure = Failure::StillRunning {
        operation: Box::new(operation),
        waited: Duration::from_secs(61),
    };
    let text = failure.for_people();
    assert!(
        text.contains("after 1m 1s") && text.contains("plasmavmc op wait op-1"),
        "{text}"
    );
}
