use futures::{StreamExt, stream};
use prost::Message;
use tonic::Streaming;

use super::*;
use crate::fake::{Answers, Fake};
use crate::reach::parse_server;

const LINGER: Duration = Duration::from_millis(200);

fn reach(fakes: &[&Fake]) -> Reach {
    Reach::new(
        fakes.iter().map(|fake| parse_server(&fake.address).unwrap()).collect(),
        Duration::from_secs(10),
    )
}

fn said(text: &str, is_history: bool) -> Vec<u8> {
    ConsoleOutput {
        data: text.as_bytes().to_vec(),
        is_history,
        lost_bytes: 0,
    }
    .encode_to_vec()
}

/// Says its history, then what it is sent in capitals.
fn shouting(requests: Streaming<Vec<u8>>) -> Result<Answers, Status> {
    let history = stream::iter([Ok(said("login: ", true))]);
    let echo = requests.filter_map(|request| async {
        let input = ConsoleInput::decode(request.ok()?.as_slice()).ok()?;
        (!input.data.is_empty()).then(|| Ok(said(&String::from_utf8_lossy(&input.data).to_uppercase(), false)))
    });
    Ok(history.chain(echo).boxed())
}

fn keys(sent: Vec<Key>) -> mpsc::Receiver<Key> {
    let (sender, keys) = mpsc::channel(sent.len().max(1));
    for key in sent {
        sender.try_send(key).unwrap();
    }
    keys
}

async fn carried(reach: &Reach, sent: Vec<Key>, linger: Option<Duration>) -> (Result<Left, Failure>, String) {
    let mut out = Vec::new();
    let session = Session::open(reach, "web", false).await.unwrap();
    let left = session.carry(reach, keys(sent), &mut out, linger).await;
    (left, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn history_comes_first_and_what_is_piped_in_is_answered() {
    let fake = Fake::streaming(shouting).await;
    let piped = vec![Key::Bytes(b"root\n".to_vec()), Key::Bytes(b"ls\n".to_vec()), Key::End];
    let (left, shown) = carried(&reach(&[&fake]), piped, Some(LINGER)).await;
    assert_eq!((left.unwrap(), shown.as_str()), (Left::ByUser, "login: ROOT\nLS\n"));
}

#[tokio::test]
async fn ctrl_bracket_leaves() {
    let fake = Fake::streaming(shouting).await;
    let (left, _) = carried(&reach(&[&fake]), vec![Key::Leave], None).await;
    assert_eq!(left.unwrap(), Left::ByUser);
}

#[tokio::test]
async fn a_console_that_the_server_closes_is_over() {
    let fake = Fake::streaming(|_| Ok(stream::iter([Ok(said("bye", true))]).boxed())).await;
    let (sender, typed) = mpsc::channel(1);
    let mut out = Vec::new();
    let reach = reach(&[&fake]);
    let session = Session::open(&reach, "web", false).await.unwrap();
    let left = session.carry(&reach, typed, &mut out, None).await;
    assert_eq!((left.unwrap(), out.as_slice()), (Left::Closed, b"bye".as_slice()));
    drop(sender);
}

#[tokio::test]
async fn a_break_is_taken_up_at_another_server_without_the_history() {
    let breaking = Fake::streaming(|_| {
        let broken = Err(Status::unavailable("the host of web was lost"));
        Ok(stream::iter([Ok(said("one ", false)), broken]).boxed())
    })
    .await;
    let first = Session::open(&reach(&[&breaking]), "web", false).await.unwrap();
    let whole = Fake::streaming(|requests| {
        let first = requests.take(1).map(|request| {
            let input = ConsoleInput::decode(request?.as_slice()).unwrap();
            Ok(said(&format!("{} {}", input.id, input.no_history), false))
        });
        Ok(first.boxed())
    })
    .await;
    let (_sender, typed) = mpsc::channel(1);
    let mut out = Vec::new();
    let left = first.carry(&reach(&[&whole]), typed, &mut out, None).await.unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert_eq!(left, Left::Closed);
    assert!(shown.starts_with("one ") && shown.ends_with("web true"), "{shown}");
    assert!(
        shown.contains("the connection broke") && shown.contains("connected again"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_vm_without_a_console_is_refused_before_anything_else() {
    let fake = Fake::streaming(|_| Err(Status::failed_precondition("web is stopped"))).await;
    let failure = Session::open(&reach(&[&fake]), "web", false).await.unwrap_err();
    assert_eq!(failure.exit(), crate::failure::Exit::Refused);
    assert!(
        failure
            .to_string()
            .contains("cannot open the console of web: web is stopped"),
        "{failure}"
    );
}

#[test]
fn lost_bytes_are_told() {
    let mut out = Vec::new();
    show(
        &mut out,
        &ConsoleOutput {
            data: b"x".to_vec(),
            lost_bytes: 7,
            is_history: false,
        },
    )
    .unwrap();
    assert_eq!(
        out,
        b"\r\n[plasmavmc: 7 bytes were lost: this terminal is too slow]\r\nx"
    );
}
