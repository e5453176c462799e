use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use plasmavmc_proto::api::{GetVmRequest, StopVmRequest, Vm};
use tokio::net::TcpListener;
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::failure::Exit;
use crate::fake::{Fake, nobody, one};

fn reach(addresses: &[&str], within: Duration) -> Reach {
    Reach::new(
        addresses.iter().map(|address| parse_server(address).unwrap()).collect(),
        within,
    )
}

const WITHIN: Duration = Duration::from_secs(10);

fn get() -> GetVmRequest {
    GetVmRequest {
        id: "web".to_owned(),
        stale: false,
    }
}

fn stop() -> StopVmRequest {
    StopVmRequest {
        id: "web".to_owned(),
        request_id: "r-1".to_owned(),
        ..StopVmRequest::default()
    }
}

async fn good() -> Fake {
    Fake::answering(|_, _| {
        one(&Vm {
            name: "web".to_owned(),
            ..Vm::default()
        })
    })
    .await
}

async fn failing(status: Status) -> Fake {
    Fake::answering(move |_, _| Err(status.clone())).await
}

#[tokio::test]
async fn a_refused_connection_moves_on_and_the_one_that_answered_is_asked_next_time() {
    let (dead, good) = (nobody().await, good().await);
    let reach = reach(&[&dead, &good.address], WITHIN);
    for _ in 0..2 {
        assert_eq!(reach.ask("look", get()).await.unwrap().name, "web");
    }
    assert_eq!(reach.preferred.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn unavailable_moves_on_with_the_same_request_id() {
    let (sick, good) = (failing(Status::unavailable("no quorum")).await, good().await);
    let reach = reach(&[&sick.address, &good.address], WITHIN);
    reach.ask("stop", stop()).await.unwrap();
    for fake in [&sick, &good] {
        assert_eq!(fake.requests::<StopVmRequest>("StopVm"), [stop()]);
    }
}

#[tokio::test]
async fn an_answer_is_final() {
    let (missing, good) = (failing(Status::not_found("there is no vm web")).await, good().await);
    let reach = reach(&[&missing.address, &good.address], WITHIN);
    let failure = reach.ask("look", get()).await.unwrap_err();
    assert_eq!((failure.exit(), good.calls().len()), (Exit::NotFound, 0));
}

#[tokio::test]
async fn a_server_that_breaks_off_moves_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let breaking = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let good = good().await;
    let reach = reach(&[&address, &good.address], WITHIN);
    assert_eq!(reach.ask("stop", stop()).await.unwrap().id, Vm::default().id);
    breaking.abort();
}

#[tokio::test]
async fn a_silent_server_gets_its_share_of_the_time_only() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let good = good().await;
    let both = reach(&[&address, &good.address], Duration::from_secs(2));
    assert_eq!(both.ask("look", get()).await.unwrap().name, "web");
    let alone = reach(&[&address], Duration::from_millis(300));
    let failure = alone.ask("stop", stop()).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::TimedOut);
    assert!(
        failure.for_people().contains("--request-id r-1"),
        "{}",
        failure.for_people()
    );
}

#[tokio::test]
async fn if_nobody_answers_everybody_who_was_asked_is_named() {
    let (dead, other) = (nobody().await, nobody().await);
    let failure = reach(&[&dead, &other], WITHIN).ask("look", get()).await.unwrap_err();
    let text = failure.for_people();
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(
        text.contains(&dead) && text.contains(&other) && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn a_cluster_that_says_when_to_come_back_is_asked_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let electing = Fake::answering(move |_, _| {
        if counted.fetch_add(1, Ordering::Relaxed) < 2 {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(10)));
            return Err(Status::with_error_details(
                Code::Unavailable,
                "a leader is being elected",
                details,
            ));
        }
        one(&Vm::default())
    })
    .await;
    reach(&[&electing.address], WITHIN).ask("look", get()).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn no_quorum_anywhere_is_said_with_its_reason() {
    let mut details =
        ErrorDetails::with_error_info("NO_QUORUM", "plasmavmc", [("remedy".to_owned(), "start h2".to_owned())]);
    details.add_help_link("start h2", "");
    let sick = failing(Status::with_error_details(
        Code::Unavailable,
        "there is no quorum",
        details,
    ))
    .await;
    let failure = reach(&[&sick.address], WITHIN).ask("stop", stop()).await.unwrap_err();
    let text = failure.for_people();
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(
        text.contains("there is no quorum (NO_QUORUM)") && text.contains("-> start h2"),
        "{text}"
    );
}

#[test]
fn what_is_about_one_host_takes_one_server() {
    assert!(reach(&["h1:1"], WITHIN).only_server("cluster init").is_ok());
    let failure = reach(&["h1:1", "h2:1"], WITHIN)
        .only_server("cluster init")
        .unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
}
