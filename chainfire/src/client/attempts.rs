//! One call, several attempts: which error is worth another, where, and when.

use std::future::Future;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::kv::KvError;
use crate::wire::{CallKind, error_from_status};

use super::Client;

/// Pauses after every member was asked once, growing.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Why a call was given up.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: KvError,
    /// What the last member answered, if it did.
    pub(super) status: Option<Status>,
}

impl Failure {
    /// Silence lasted through all attempts, not only through the last one.
    fn after(mut self, started: Instant) -> Self {
        if let (KvError::Timeout { waited_ms, .. }, None) = (&mut self.error, &self.status) {
            *waited_ms = started.elapsed().as_millis() as u64;
        }
        self
    }
}

impl From<Failure> for KvError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Client {
    /// Makes a call within the client's timeout.
    pub(super) async fn call<T, Fut>(&self, kind: CallKind, send: impl Fn(Channel) -> Fut) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let timeout = self.inner.options.timeout;
        self.call_within(timeout, kind, |_| false, send).await
    }

    /// Makes a call within a timeout. `or_retry` names errors that are worth another attempt here though
    /// they are not in general.
    pub(super) async fn call_within<T, Fut>(
        &self,
        timeout: Duration,
        kind: CallKind,
        or_retry: impl Fn(&KvError) -> bool,
        send: impl Fn(Channel) -> Fut,
    ) -> Result<T, Failure>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let endpoints = &self.inner.endpoints;
        let started = Instant::now();
        let deadline = started + timeout;
        let mut pauses = Pauses::default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let chosen = endpoints.preferred();
            let outcome = self
                .attempt(deadline, kind, chosen.address, send(chosen.channel.clone()))
                .await;
            let failure = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.error.is_retryable() && !or_retry(&failure.error) {
                return Err(failure);
            }
            endpoints.move_on_from(&chosen);
            let round_ends = attempts % endpoints.count() == 0;
            // A member that is asked to slow down is not asked again.
            if round_ends && matches!(failure.error, KvError::Overloaded { .. } | KvError::TooMany { .. }) {
                return Err(failure);
            }
            if round_ends {
                let wake = Instant::now() + pauses.next();
                if wake >= deadline {
                    return Err(failure.after(started));
                }
                sleep_until(wake).await;
            }
            if Instant::now() >= deadline {
                return Err(failure.after(started));
            }
        }
    }

    async fn attempt<T>(
        &self,
        deadline: Instant,
        kind: CallKind,
        address: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        // A read that hangs is asked elsewhere in time. A write that hangs may have been carried out:
        // there is nothing to gain by giving it up early.
        let until = match kind {
            CallKind::Read => deadline.min(started + self.inner.options.read_attempt_timeout),
            CallKind::Write => deadline,
        };
        match timeout_at(until, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure {
                error: at_address(error_from_status(&status, kind), address),
                status: Some(status),
            }),
            Err(_) => {
                let waited_ms = started.elapsed().as_millis() as u64;
                let error = match kind {
                    CallKind::Read => KvError::Timeout {
                        waited_ms,
                        reason: format!("{address} is silent"),
                    },
                    CallKind::Write => KvError::OutcomeUnknown {
                        reason: format!("{address} did not answer within {waited_ms} ms"),
                    },
                };
                Err(Failure { error, status: None })
            }
        }
    }
}

/// Adds which member it was, where that helps.
fn at_address(error: KvError, address: &str) -> KvError {
    match error {
        KvError::Unavailable { reason } => KvError::Unavailable {
            reason: format!("{address}: {reason}"),
        },
        KvError::OutcomeUnknown { reason } => KvError::OutcomeUnknown {
            reason: format!("{address}: {reason}"),
        },
        other => other,
    }
}

/// Pauses that double, each cut short at random so that clients do not come back all at once.
#[derive(Debug)]
pub(super) struct Pauses {
    longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { longest: FIRST_PAUSE }
    }
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        pause
    }
}
