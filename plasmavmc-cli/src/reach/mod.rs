//! Talking to a cluster through whichever of its servers answers.
//!
//! A server that cannot be reached, breaks off, is silent or says `UNAVAILABLE` is left for the next one. Every
//! call that changes something carries a request id, so that asking the next server can never do it twice; the few
//! that have none mean the same however often they come.
//!
//! Must never: wait without an end, or report as refused what may have been done.

mod calls;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::failure::{Answer, Failure, Tried, Why};

pub use calls::{Ask, Follow, LARGEST_ANSWER};
pub use server::{Server, parse_server};

/// How long an answer may take where nobody said otherwise.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A host that is off does not refuse a connection, it is silent.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The longest pause between two rounds over all servers.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The servers of one command.
#[derive(Debug)]
pub struct Reach {
    servers: Vec<Server>,
    /// The one that answered last; asked first.
    preferred: AtomicUsize,
    answer_within: Duration,
}

impl Reach {
    /// At least one server, by the command line's rules.
    pub fn new(servers: Vec<Server>, answer_within: Duration) -> Self {
        Self {
            servers,
            preferred: AtomicUsize::new(0),
            answer_within,
        }
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The one server that is meant, where another would be the wrong one.
    pub fn only_server(&self, doing: &str) -> Result<&Server, Failure> {
        match self.servers.as_slice() {
            [server] => Ok(server),
            servers => Err(Failure::Usage(format!(
                "{doing} is about one host, but {} servers are given; name it with --server HOST:PORT",
                servers.len()
            ))),
        }
    }

    /// Asks until one server answers.
    pub async fn ask<Q: Ask>(&self, doing: &str, request: Q) -> Result<Q::Answer, Failure> {
        let request_id = request.request_id().map(str::to_owned);
        self.go_round(doing, request_id, |channel, limit| request.clone().send(channel, limit))
            .await
    }

    /// Opens a stream on one server.
    pub async fn follow<Q: Follow>(&self, doing: &str, request: Q) -> Result<Streaming<Q::Item>, Failure> {
        self.go_round(doing, None, |channel, _| request.clone().open(channel))
            .await
    }

    /// Makes one kind of attempt on one server after the other, and round again where a server asked for it.
    pub async fn go_round<T, F, A>(&self, doing: &str, request_id: Option<String>, attempt: A) -> Result<T, Failure>
    where
        A: Fn(Channel, Duration) -> F,
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        loop {
            let mut tried = Vec::new();
            for nth in 0..self.servers.len() {
                let index = (self.preferred.load(Ordering::Relaxed) + nth) % self.servers.len();
                let left = self.answer_within.saturating_sub(begun.elapsed());
                let share = left / u32::try_from(self.servers.len() - nth).unwrap_or(1);
                let server = &self.servers[index];
                match attempt_on(server, share, &attempt).await {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Setback::Final(status)) => {
                        let answer = Box::new(Answer::of(&status));
                        return Err(Failure::Answered {
                            doing: doing.to_owned(),
                            answer,
                        });
                    }
                    Err(Setback::Next(why)) => tried.push(Tried {
                        server: server.to_string(),
                        why,
                    }),
                }
            }
            let left = self.answer_within.saturating_sub(begun.elapsed());
            match wait_asked_for(&tried).filter(|pause| *pause < left) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    return Err(Failure::Nobody {
                        doing: doing.to_owned(),
                        tried,
                        request_id,
                    });
                }
            }
        }
    }
}

/// Why one attempt gave nothing.
enum Setback {
    /// The cluster's answer; another server would say the same.
    Final(Status),
    Next(Why),
}

async fn attempt_on<T, F, A>(server: &Server, limit: Duration, attempt: &A) -> Result<T, Setback>
where
    A: Fn(Channel, Duration) -> F,
    F: Future<Output = Result<T, Status>>,
{
    let begun = Instant::now();
    let channel = server.channel(limit.min(CONNECT_WITHIN)).await;
    let channel = channel.map_err(|why| Setback::Next(Why::NotReached(why)))?;
    let left = limit.saturating_sub(begun.elapsed());
    let Ok(result) = tokio::time::timeout(left, attempt(channel, left)).await else {
        server.forget().await;
        return Err(Setback::Next(Why::Silent(left)));
    };
    match result {
        Ok(answer) => Ok(answer),
        Err(status) => {
            let setback = judge(status, left);
            if matches!(setback, Setback::Next(Why::Broken(_))) {
                server.forget().await;
            }
            Err(setback)
        }
    }
}

/// Tells what the cluster said from what the connection did: only the latter has a local cause.
fn judge(status: Status, limit: Duration) -> Setback {
    let is_local = std::error::Error::source(&status).is_some();
    match status.code() {
        _ if is_local && status.message().contains("Timeout expired") => Setback::Next(Why::Silent(limit)),
        _ if is_local => Setback::Next(Why::Broken(causes(&status))),
        // A member that is cut off runs into its deadline where others answer at once.
        Code::Unavailable | Code::DeadlineExceeded => Setback::Next(Why::Cannot(Answer::of(&status))),
        _ => Setback::Final(status),
    }
}

/// The innermost cause says what happened; the outer ones only that something did.
fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A server that knows when it can answer again gives a reason to believe in a second round.
fn wait_asked_for(tried: &[Tried]) -> Option<Duration> {
    let asked = tried.iter().filter_map(|tried| match &tried.why {
        Why::Cannot(answer) => answer.retry_after,
        _ => None,
    });
    asked
        .min()
        .map(|pause| pause.clamp(Duration::from_millis(50), MAX_PAUSE))
}

/// Whether a stream that ended like this may go on at another server.
pub fn may_go_on(status: &Status) -> bool {
    matches!(judge(status.clone(), Duration::ZERO), Setback::Next(_))
}

#[cfg(test)]
mod tests;
