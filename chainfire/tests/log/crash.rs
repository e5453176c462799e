//! A writer that is killed at random, again and again: what it acknowledged is there, and nothing else is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use chainfire::log::LogStore;
use chainfire::raft::types::{Ballot, Entry};
use openraft::storage::RaftLogStorage;

use crate::site::{Dice, LEADER, Site, all_entries, append, entry, log_id};

const ROUNDS: u64 = 15;
const SITE_VARIABLE: &str = "CHAINFIRE_TEST_SITE";
const SEED_VARIABLE: &str = "CHAINFIRE_TEST_SEED";

/// What the writer says it does. Acknowledgements are said after, everything that takes back before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Voted { term: u64 },
    Appended { term: u64, index: u64 },
    WillTruncate { from: u64 },
    WillPurge { upto: u64 },
}

impl Said {
    fn line(self) -> String {
        match self {
            Said::Voted { term } => format!("said voted {term} 0"),
            Said::Appended { term, index } => format!("said appended {term} {index}"),
            Said::WillTruncate { from } => format!("said truncate {from} 0"),
            Said::WillPurge { upto } => format!("said purge {upto} 0"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        // The harness may have left its own words on the line.
        let words: Vec<&str> = line[line.find("said ")?..].split_whitespace().collect();
        let [_, what, a, b] = words[..] else { return None };
        let (a, b) = (a.parse().ok()?, b.parse().ok()?);
        match what {
            "voted" => Some(Said::Voted { term: a }),
            "appended" => Some(Said::Appended { term: a, index: b }),
            "truncate" => Some(Said::WillTruncate { from: a }),
            "purge" => Some(Said::WillPurge { upto: a }),
            _ => None,
        }
    }
}

/// What must be in the log, by what the writer said.
#[derive(Debug, Default)]
struct Promised {
    term_voted: u64,
    /// Terms by index.
    entries: BTreeMap<u64, u64>,
    may_be_purged_upto: Option<u64>,
}

impl Promised {
    fn hear(&mut self, said: Said) {
        match said {
            Said::Voted { term } => self.term_voted = term,
            Said::Appended { term, index } => drop(self.entries.insert(index, term)),
            Said::WillTruncate { from } => drop(self.entries.split_off(&from)),
            Said::WillPurge { upto } => self.may_be_purged_upto = Some(upto),
        }
    }

    /// What of the promises is broken.
    async fn broken(&mut self, store: &mut LogStore) -> Vec<String> {
        let mut broken = Vec::new();
        let state = store.get_log_state().await.unwrap();
        let purged = state.last_purged_log_id.map(|id| id.index);
        let voted = store
            .read_vote()
            .await
            .unwrap()
            .map_or(0, |ballot| ballot.leader_id.term);
        if voted < self.term_voted {
            broken.push(format!("voted in term {}, remembers {voted}", self.term_voted));
        }
        if purged > self.may_be_purged_upto {
            broken.push(format!("purged {purged:?}, asked for {:?}", self.may_be_purged_upto));
        }
        let found: BTreeMap<u64, Entry> = all_entries(store)
            .await
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect();
        for (index, found) in &found {
            if *found != entry(found.log_id.leader_id.term, *index) {
                broken.push(format!("entry {index} is not what was written"));
            }
        }
        for (index, term) in &self.entries {
            let found = found.get(index).map(|entry| entry.log_id.leader_id.term);
            if Some(*index) > purged && found != Some(*term) {
                broken.push(format!(
                    "entry {index} of term {term} was acknowledged; found: {found:?}"
                ));
            }
        }
        // What was written but not yet acknowledged counts from now on.
        self.entries = found
            .iter()
            .map(|(index, entry)| (*index, entry.log_id.leader_id.term))
            .collect();
        broken
    }
}

/// Kills the writer `rounds` times and answers with all that was lost.
async fn losses(rounds: u64, environment: &[(&str, &str)]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let site = Site::new(root.path());
    let mut promised = Promised::default();
    let mut dice = Dice::new(std::process::id().into());
    let mut broken = Vec::new();
    let mut heard = 0;
    for round in 0..rounds {
        let life = Duration::from_micros(dice.below(120_000));
        for said in run_and_kill(&site, round, life, environment) {
            heard += 1;
            promised.hear(said);
        }
        match site.open_with_small_chunks() {
            Ok(mut store) => broken.extend(promised.broken(&mut store).await),
            Err(error) => {
                broken.push(format!("round {round}: {error}"));
                break;
            }
        }
    }
    println!(
        "{rounds} kills, {heard} things said, {} entries at the end",
        promised.entries.len()
    );
    assert!(heard > rounds, "the writer hardly wrote: nothing was tested");
    broken
}

fn run_and_kill(site: &Site, seed: u64, life: Duration, environment: &[(&str, &str)]) -> Vec<Said> {
    const DEADLINE: Duration = Duration::from_secs(20);
    let mut child = spawn_writer(site, seed, environment);
    let output = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::sync_channel(1 << 16);
    let listen = move || {
        output
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| Said::parse(&line))
            .for_each(|said| {
                let _ = tell.send(said);
            });
    };
    let reader = std::thread::Builder::new().spawn(listen).unwrap();
    let mut heard = vec![told.recv_timeout(DEADLINE).expect("the writer says something in time")];
    let end = Instant::now() + life;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match told.recv_timeout(left) {
            Ok(said) => heard.push(said),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => panic!("the writer ended by itself"),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    heard.extend(told.try_iter());
    heard
}

fn spawn_writer(site: &Site, seed: u64, environment: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crash::writer", "--exact", "--nocapture"])
        .env(SITE_VARIABLE, &site.root)
        .env(SEED_VARIABLE, seed.to_string())
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn say(said: Said) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", said.line()).unwrap();
    out.flush().unwrap();
}

/// Not a test: the process that gets killed.
#[tokio::test]
async fn writer() {
    let Some(root) = std::env::var_os(SITE_VARIABLE) else {
        return;
    };
    let mut dice = Dice::new(std::env::var(SEED_VARIABLE).unwrap().parse().unwrap());
    let mut store = Site::new(root.as_ref()).open_with_small_chunks().unwrap();
    let mut term = store
        .read_vote()
        .await
        .unwrap()
        .map_or(0, |ballot| ballot.leader_id.term);
    term = vote(&mut store, term + 1).await;
    let mut next = store
        .get_log_state()
        .await
        .unwrap()
        .last_log_id
        .map_or(0, |id| id.index + 1);
    loop {
        match dice.below(60) {
            0 if next > 10 => {
                next -= 1 + dice.below(5);
                say(Said::WillTruncate { from: next });
                store.truncate(log_id(term, next)).await.unwrap();
                term = vote(&mut store, term + 1).await;
            }
            1 if next > 300 => purge(&mut store, next - 200).await,
            2 if next > 20 => commit(&mut store, next - 20).await,
            _ => {
                let count = 1 + dice.below(4);
                let entries: Vec<Entry> = (next..next + count).map(|index| entry(term, index)).collect();
                append(&mut store, entries).await.unwrap();
                for index in next..next + count {
                    say(Said::Appended { term, index });
                }
                next += count;
            }
        }
    }
}

async fn vote(store: &mut LogStore, term: u64) -> u64 {
    store.save_vote(&Ballot::new_committed(term, LEADER)).await.unwrap();
    say(Said::Voted { term });
    term
}

async fn purge(store: &mut LogStore, upto: u64) {
    let Some(id) = id_at(store, upto).await else { return };
    say(Said::WillPurge { upto });
    store.purge(id).await.unwrap();
}

async fn commit(store: &mut LogStore, upto: u64) {
    if let Some(id) = id_at(store, upto).await {
        store.save_committed(Some(id)).await.unwrap();
    }
}

async fn id_at(store: &mut LogStore, index: u64) -> Option<chainfire::raft::types::LogId> {
    let entries = openraft::RaftLogReader::try_get_log_entries(store, index..=index)
        .await
        .unwrap();
    entries.first().map(|entry| entry.log_id)
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_kills() {
    assert_eq!(losses(ROUNDS, &[]).await, Vec::<String>::new());
}

/// The test above can fail: a log that acknowledges first is caught by it.
#[cfg(feature = "faults")]
#[tokio::test]
async fn a_log_that_acknowledges_before_it_writes_is_caught() {
    let lies = [("CHAINFIRE_FAULT_BREAK", "ack-before-fsync")];
    assert_ne!(losses(ROUNDS, &lies).await, Vec::<String>::new());
}
