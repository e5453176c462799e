//! Random clients that record what they are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chainfire::kv::{Key, KeyValue, Revision, Value};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use crate::history::reading::Scope;
use crate::history::{Action, Answer, End, Guard, Nanos, Op, Reading};
use crate::members::{Failure, MemberClient};

/// The deadline of a client's call. Short, so that a hanging member costs little time.
pub const CALL: Duration = Duration::from_millis(1500);
const AFTER_FAILURE_MS: u64 = 30;

/// What the clients of one phase share.
#[derive(Debug)]
pub struct Desk {
    pub prefix: Key,
    pub keys: u32,
    pub started: Instant,
    pub stop: CancellationToken,
    pub acknowledged: AtomicU64,
    pub transactions: AtomicU64,
}

impl Desk {
    pub fn now(&self) -> Nanos {
        Nanos::try_from(self.started.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn key(&self, number: u32) -> Key {
        [self.prefix.as_ref(), format!("k{number}").as_bytes()].concat().into()
    }
}

/// One client, which talks to one member at a time.
#[derive(Debug)]
pub struct Client {
    pub number: u32,
    pub desk: Arc<Desk>,
    pub members: Vec<MemberClient>,
    pub random: StdRng,
    at: usize,
    written: u64,
    /// What it last saw of each key, for compare-and-swap.
    seen: HashMap<Key, KeyValue>,
    ops: Vec<Op>,
    readings: Vec<Reading>,
}

impl Client {
    pub fn new(number: u32, desk: Arc<Desk>, members: Vec<MemberClient>, random: StdRng) -> Self {
        Self {
            at: number as usize % members.len(),
            number,
            desk,
            members,
            random,
            written: 0,
            seen: HashMap::new(),
            ops: Vec::new(),
            readings: Vec::new(),
        }
    }

    /// Works until it is stopped.
    pub async fn work(mut self) -> (Vec<Op>, Vec<Reading>) {
        while !self.desk.stop.is_cancelled() {
            if self.random.random_bool(0.02) {
                self.move_on();
            }
            let done = self.step().await;
            if done.is_err() {
                self.move_on();
            }
            // Several clients share two cores with all members: who never pauses starves the faults.
            let pause = if done.is_ok() {
                self.random.random_range(0..6)
            } else {
                AFTER_FAILURE_MS
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        (self.ops, self.readings)
    }

    fn move_on(&mut self) {
        self.at = (self.at + 1) % self.members.len();
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let number = self.random.random_range(0..self.desk.keys);
        let key = self.desk.key(number);
        match self.random.random_range(0..100) {
            0..30 => self.get(key).await,
            30..55 => self.put(key).await,
            55..75 => self.swap(key).await,
            75..81 => self.delete(key).await,
            81..87 => self.put_pair(number).await,
            87..94 => self.list(false).await,
            _ => self.list(true).await,
        }
    }

    fn member(&self) -> MemberClient {
        self.members[self.at].clone()
    }

    fn new_value(&mut self) -> Value {
        self.written += 1;
        let mut value = format!("client {} write {} ", self.number, self.written).into_bytes();
        let padding = if self.random.random_bool(0.02) {
            8000
        } else {
            self.random.random_range(0..200)
        };
        value.resize(value.len() + padding, b'.');
        value.into()
    }

    fn begin(&self, key: Key, action: Action) -> Op {
        Op {
            txn: self.desk.transactions.fetch_add(1, Ordering::Relaxed),
            client: self.number,
            key,
            action,
            invoked: self.desk.now(),
            end: End::Unknown,
        }
    }

    /// Records how a call ended. What was refused for sure has changed nothing and is left out.
    fn end(&mut self, ops: Vec<Op>, outcome: Result<(Revision, Answer), Failure>) -> Result<(), Failure> {
        let at = self.desk.now();
        match outcome {
            Ok((revision, answer)) => {
                for mut op in ops {
                    if op.is_write() {
                        self.desk.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    op.end = End::Known {
                        at,
                        revision,
                        answer: answer.clone(),
                    };
                    self.ops.push(op);
                }
                Ok(())
            }
            Err(failure) => {
                if failure.may_have_happened() {
                    self.ops.extend(ops.into_iter().filter(Op::is_write));
                }
                Err(failure)
            }
        }
    }

    async fn get(&mut self, key: Key) -> Result<(), Failure> {
        let op = self.begin(key.clone(), Action::Get);
        let outcome = self.member().get(&key, false).await;
        match &outcome {
            Ok((_, Some(row))) => drop(self.seen.insert(key, row.clone())),
            Ok((_, None)) => drop(self.seen.remove(&key)),
            Err(_) => {}
        }
        self.end(vec![op], outcome.map(|(revision, row)| (revision, Answer::Row(row))))
    }

    async fn put(&mut self, key: Key) -> Result<(), Failure> {
        let value = self.new_value();
        let op = self.begin(key.clone(), Action::Put { value: value.clone() });
        let outcome = self.member().put(&key, &value).await;
        self.end(vec![op], outcome.map(|revision| (revision, Answer::Written)))
    }

    /// Two keys at once.
    async fn put_pair(&mut self, number: u32) -> Result<(), Failure> {
        let keys = [self.desk.key(number), self.desk.key((number + 1) % self.desk.keys)];
        let puts = keys.map(|key| (key, self.new_value()));
        let mut first = self.begin(
            puts[0].0.clone(),
            Action::Put {
                value: puts[0].1.clone(),
            },
        );
        let second = Op {
            key: puts[1].0.clone(),
            action: Action::Put {
                value: puts[1].1.clone(),
            },
            ..first.clone()
        };
        first.end = End::Unknown;
        let outcome = self.member().put_together(&puts).await;
        self.end(vec![first, second], outcome.map(|revision| (revision, Answer::Written)))
    }

    async fn delete(&mut self, key: Key) -> Result<(), Failure> {
        let op = self.begin(key.clone(), Action::Delete);
        let outcome = self.member().delete(&key).await;
        self.end(
            vec![op],
            outcome.map(|(revision, existed)| (revision, Answer::Deleted { existed })),
        )
    }

    async fn swap(&mut self, key: Key) -> Result<(), Failure> {
        let value = self.new_value();
        let guard = match self.seen.get(&key) {
            None => Guard::Revision(0),
            Some(row) if self.random.random_bool(0.2) => Guard::Value(row.value.clone()),
            Some(row) => Guard::Revision(row.mod_revision),
        };
        let action = Action::Cas {
            guard: guard.clone(),
            value: value.clone(),
        };
        let op = self.begin(key.clone(), action);
        let outcome = self.member().swap(&key, &guard, &value).await;
        // Seen or not: the next guard should be new knowledge.
        self.seen.remove(&key);
        if let Ok((revision, true)) = &outcome {
            let row = KeyValue {
                key: key.clone(),
                value,
                create_revision: 0,
                mod_revision: *revision,
                version: 0,
            };
            self.seen.insert(key, row);
        }
        self.end(
            vec![op],
            outcome.map(|(revision, swapped)| (revision, Answer::Swapped(swapped))),
        )
    }

    async fn list(&mut self, stale: bool) -> Result<(), Failure> {
        let invoked = self.desk.now();
        let page = self.random.random_range(0..4);
        let listing = self.member().list(&self.desk.prefix, page, stale).await?;
        // Every page shows the revision of the first, so only the first promises to be up to date; a
        // listing that ends later than its first page is judged more mildly than it could be.
        self.readings.push(Reading {
            reader: format!("client {} at {}", self.number, self.members[self.at].address),
            invoked,
            returned: self.desk.now(),
            linearizable: !stale,
            scope: Scope::Prefix(self.desk.prefix.clone()),
            revision: listing.revision,
            rows: listing.rows,
        });
        Ok(())
    }
}
