//! Dialogues with a hostile peer, one a file in `tests/qmp/corpus`. After each the next good command works.
//!
//! ```text
//! # why the dialogue is there
//! ask NAME                the client asks; the peer reads the command as $1, $2, ...
//! ask-briefly NAME        the same, with a deadline of 150 ms
//! send TEXT               the peer sends a line; $1 is the id of the first command
//! part TEXT               the peer sends it without an end of line
//! byte FF                 the peer sends a byte
//! expect NAME value JSON  the command was answered so
//! expect NAME refused     and: no-answer, interrupted
//! event NAME              the next event is this
//! end                     the peer ends; the dialogue is over
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use plasmavmc_kvm::qmp::{Connection, QmpError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::faithful::{Monitor, Peer, SOON};

const BRIEFLY: Duration = Duration::from_millis(150);

struct Dialogue {
    connection: Connection,
    peer: Peer,
    asked: BTreeMap<String, JoinHandle<Result<Value, QmpError>>>,
    ids: Vec<Value>,
    ended: bool,
}

impl Dialogue {
    async fn ask(&mut self, name: &str, within: Duration) {
        let (qmp, command) = (self.connection.qmp.clone(), name.to_owned());
        let asking = tokio::spawn(async move { qmp.execute_raw(&command, Value::Null, within).await });
        self.asked.insert(name.to_owned(), asking);
        let command = self.peer.read().await;
        assert_eq!(command["execute"], *name);
        self.ids.push(command["id"].clone());
    }

    fn with_ids(&self, text: &str) -> String {
        let numbered = self.ids.iter().enumerate().rev();
        numbered.fold(text.to_owned(), |text, (index, id)| {
            text.replace(&format!("${}", index + 1), &id.to_string())
        })
    }

    async fn expect(&mut self, text: &str) {
        let mut parts = text.splitn(3, ' ');
        let (name, verdict, value) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
        let asking = self.asked.remove(name).expect("it was asked");
        let answer = tokio::time::timeout(SOON, asking).await.expect("no hang").unwrap();
        let fits = match (verdict, &answer) {
            ("value", Ok(answer)) => {
                let expected: Value = serde_json::from_str(value.expect("a value")).unwrap();
                *answer == expected
            }
            ("refused", Err(QmpError::Refused { .. }))
            | ("no-answer", Err(QmpError::NoAnswer { .. }))
            | ("interrupted", Err(QmpError::Interrupted { .. })) => true,
            _ => false,
        };
        assert!(fits, "expected {text:?}, got {answer:?}");
    }

    async fn step(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "ask" => self.ask(rest, SOON).await,
            "ask-briefly" => self.ask(rest, BRIEFLY).await,
            "send" => self.peer.send(format!("{}\n", self.with_ids(rest)).as_bytes()).await,
            "part" => self.peer.send(self.with_ids(rest).as_bytes()).await,
            "byte" => self.peer.send(&[u8::from_str_radix(rest, 16).unwrap()]).await,
            "expect" => self.expect(rest).await,
            "event" => {
                let event = tokio::time::timeout(SOON, self.connection.events.next()).await;
                assert_eq!(event.expect("no hang").unwrap().name, rest);
            }
            "end" => {
                self.peer.end();
                self.ended = true;
            }
            other => panic!("unknown step {other:?}"),
        }
    }
}

async fn play(path: &Path) {
    let monitor = Monitor::new();
    let (connection, peer) = monitor.connected().await;
    let mut dialogue = Dialogue {
        connection,
        peer,
        asked: BTreeMap::new(),
        ids: Vec::new(),
        ended: false,
    };
    let script = std::fs::read_to_string(path).unwrap();
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        dialogue.step(line).await;
    }
    assert!(dialogue.asked.is_empty(), "every command is expected to end");
    if dialogue.ended {
        // The owner connects anew.
        tokio::time::timeout(SOON, dialogue.connection.qmp.ended())
            .await
            .expect("the end is seen");
        (dialogue.connection, dialogue.peer) = monitor.connected().await;
    }
    dialogue.ask("good", SOON).await;
    let id = dialogue.ids.last().cloned().unwrap();
    dialogue.peer.answer(&json!({ "id": id }), json!("good")).await;
    dialogue.expect("good value \"good\"").await;
}

#[tokio::test]
async fn no_dialogue_of_the_corpus_leads_to_a_wrong_answer_or_a_hang() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qmp/corpus");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        play(&path).await;
        played += 1;
    }
    assert!(played >= 15, "only {played} dialogues were found");
}
