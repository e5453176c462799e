//! One client of the race: it calls random nodes, repeats what was not answered, and keeps what it learned.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use plasmavmc_proto::api::{Operation, operation};
use rand::RngExt;
use rand::rngs::StdRng;
use tonic::{Code, Status};

use super::history::Event;
use crate::cluster::client::has_ended;
use crate::cluster::{Client, code_and_reason, until};

/// Elections and slow machines are waited out.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// So often a client hangs up before it is answered, and asks elsewhere: its first call may have been carried out, may
/// be under way, or may never have arrived.
const HUNG_UP: f64 = 0.1;
const HANGS_UP_WITHIN_US: std::ops::Range<u64> = 100..30_000;
/// So often an answered call is made once more.
const REPEATED: f64 = 0.05;

pub struct Asker {
    pub number: u64,
    pub random: StdRng,
    pub calls: u64,
    pub retries: u64,
    pub answers: BTreeMap<String, u64>,
    pub slowest: Duration,
    clients: Vec<Client>,
    begun: Instant,
    events: Vec<Event>,
    /// Ids of VMs that all fight for, newest last.
    pub known: Vec<String>,
}

/// A refusal: code and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub reason: String,
    pub text: String,
}

impl From<&Status> for Refusal {
    fn from(status: &Status) -> Self {
        let (code, reason) = code_and_reason(status);
        Self {
            code,
            reason,
            text: status.message().to_owned(),
        }
    }
}

/// What was answered, and when it was asked and answered.
pub struct Answered<T> {
    pub call_ns: u64,
    pub return_ns: u64,
    pub answer: Result<T, Refusal>,
}

impl Asker {
    pub fn new(number: u64, clients: Vec<Client>, random: StdRng, begun: Instant) -> Self {
        Self {
            number,
            random,
            calls: 0,
            retries: 0,
            answers: BTreeMap::new(),
            slowest: Duration::ZERO,
            clients,
            begun,
            events: Vec::new(),
            known: Vec::new(),
        }
    }

    /// An id for a request that nobody else uses.
    pub fn request_id(&self) -> String {
        format!("race-{}-{}", self.number, self.calls)
    }

    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    pub fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Calls until there is an answer. `is_idempotent`: the request has an id, or changes nothing.
    pub async fn ask<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut call: impl AsyncFnMut(Client) -> Result<T, Status>,
    ) -> Result<Answered<T>> {
        self.calls += 1;
        let call_ns = self.now();
        let begun = Instant::now();
        loop {
            let node = self.random.random_range(0..self.clients.len());
            let asked = call(self.clients[node].clone());
            let answer = if self.random.random_bool(HUNG_UP) {
                let patience = Duration::from_micros(self.random.random_range(HANGS_UP_WITHIN_US));
                let answer = tokio::time::timeout(patience, asked).await;
                answer.unwrap_or_else(|_| Err(Status::cancelled("the client hung up")))
            } else {
                asked.await
            };
            match answer {
                Err(status) if is_no_answer(&status) => {
                    if begun.elapsed() > PATIENCE {
                        bail!("{what}: no answer within {PATIENCE:?}: {status}");
                    }
                    self.retries += 1;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                answer => {
                    self.slowest = self.slowest.max(begun.elapsed());
                    let answer = answer.map_err(|status| Refusal::from(&status));
                    let told = answer.as_ref().map_or_else(
                        |refusal| format!("{:?} {}", refusal.code, refusal.reason),
                        |_| "ok".to_owned(),
                    );
                    *self.answers.entry(format!("{what}: {told}")).or_default() += 1;
                    return Ok(Answered {
                        call_ns,
                        return_ns: self.now(),
                        answer,
                    });
                }
            }
        }
    }

    /// Makes a call that has a request id, and sometimes makes it again: the answer must be about the same thing.
    pub async fn ask_once<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut call: impl AsyncFnMut(Client) -> Result<T, Status>,
        identity: impl Fn(&T) -> String,
    ) -> Result<Answered<T>> {
        let first = self.ask(what, &mut call).await?;
        if self.random.random_bool(REPEATED)
            && let Ok(answer) = &first.answer
        {
            let again = self.ask(&format!("{what} again"), &mut call).await?;
            match &again.answer {
                Ok(again) if identity(again) == identity(answer) => {}
                other => bail!("{what}: repeated under its id, answered {other:?} after {answer:?}"),
            }
        }
        Ok(first)
    }

    /// Waits for the end of an operation whose call came back earlier. `Err` holds what it failed with.
    pub async fn end_of(&mut self, operation: Operation) -> Result<Result<(), Refusal>> {
        let mut ended = operation;
        if !has_ended(&ended) {
            let client = self.clients[0].clone();
            let id = ended.id.clone();
            ended = until(&format!("operation {id} to end"), PATIENCE, async || {
                let operation = client.operation(&id).await.map_err(|status| status.to_string())?;
                if has_ended(&operation) {
                    Ok(operation)
                } else {
                    Err(format!("{operation:?}"))
                }
            })
            .await?;
        }
        if ended.state() == operation::State::Done {
            return Ok(Ok(()));
        }
        let error = ended.error.clone().unwrap_or_default();
        let code = Code::from(i32::try_from(error.code)?);
        *self
            .answers
            .entry(format!("{} ended: {code:?} {}", ended.kind, error.reason))
            .or_default() += 1;
        Ok(Err(Refusal {
            code,
            reason: error.reason,
            text: error.message,
        }))
    }

    /// Since the race began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What says nothing about whether the call was carried out.
fn is_no_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}
