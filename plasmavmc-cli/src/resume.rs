//! Streams that have no end, carried on at the next server where one breaks off: no change is shown twice, none is
//! left out.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::failure::{Answer, Failure};
use crate::reach::{Follow, Reach, may_go_on};

/// How long to look for a server that carries on.
const RECONNECT_WITHIN: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// What to do after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on; after a break begin behind this revision.
    From(u64),
    Enough,
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Enough,
    /// The server has no more to say.
    Ended,
    /// The store does not go back to the revision that was asked for.
    Compacted,
}

/// Follows a stream over breaks, from a revision on.
pub async fn resumed<Q: Follow>(
    reach: &Reach,
    doing: &str,
    mut from: u64,
    request: impl Fn(u64) -> Q,
    mut each: impl FnMut(Q::Item) -> Result<Next, Failure>,
) -> Result<End, Failure> {
    let mut heard = Instant::now();
    loop {
        let mut stream = match reach.follow(doing, request(from)).await {
            Ok(stream) => stream,
            Err(Failure::Nobody { .. }) if from > 0 && heard.elapsed() < RECONNECT_WITHIN => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            Err(Failure::Answered { answer, .. }) if answer.code == Code::OutOfRange => return Ok(End::Compacted),
            Err(failure) => return Err(failure),
        };
        loop {
            match stream.message().await {
                Ok(Some(item)) => {
                    heard = Instant::now();
                    match each(item)? {
                        Next::From(revision) => from = from.max(revision),
                        Next::Enough => return Ok(End::Enough),
                    }
                }
                Ok(None) => return Ok(End::Ended),
                Err(status) if status.code() == Code::OutOfRange => return Ok(End::Compacted),
                Err(status) if may_go_on(&status) && heard.elapsed() < RECONNECT_WITHIN => break,
                Err(status) => {
                    let answer = Box::new(Answer::of(&status));
                    return Err(Failure::Answered {
                        doing: doing.to_owned(),
                        answer,
                    });
                }
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}
