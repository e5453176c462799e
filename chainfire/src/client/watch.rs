//! A watch that outlives the connections and members it runs over.
//!
//! It resumes at the last `next_revision` it delivered, so nothing is skipped and nothing comes twice.
//! What cannot be resumed (history that is gone, a reader that is too slow) ends it with that error.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tonic::Streaming;

use crate::kv::{Key, KvError, Revision, WatchBatch, WatchStream};
use crate::proto;
use crate::wire::{CallKind, error_from_status};

use super::attempts::Pauses;
use super::{Client, check_request_size, kv_client};

/// A connection that lasted so long was a good one, even if nothing happened on it.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Resumed so often in a row without getting anywhere, a watch gives up: what comes next makes it fail.
const FRUITLESS_RESUMES: u32 = 100;

pub(super) async fn open(client: Client, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
    let request = proto::WatchRequest {
        prefix,
        from_revision: from,
    };
    check_request_size(&request)?;
    let timeout = client.inner.options.timeout;
    let (first, responses) = client.open_watch(timeout, request.clone(), |_| false).await?;
    let watch = ResumingWatch {
        client,
        prefix: request.prefix,
        next: first.next_revision,
        responses: Some(responses),
        opened: Instant::now(),
        fruitless: 0,
        pauses: Pauses::default(),
    };
    let rest = stream::unfold(Some(watch), ResumingWatch::step);
    Ok(stream::once(async { Ok(first) }).chain(rest).boxed())
}

impl Client {
    /// Opens a watch and waits for its first bookmark: before that, one from "now on" has no place that it
    /// could be resumed at.
    async fn open_watch(
        &self,
        timeout: Duration,
        request: proto::WatchRequest,
        or_retry: impl Fn(&KvError) -> bool,
    ) -> Result<(WatchBatch, Streaming<proto::WatchResponse>), KvError> {
        let opened = self
            .call_within(timeout, CallKind::Read, or_retry, |channel| {
                let request = request.clone();
                async move {
                    let mut responses = kv_client(channel).watch(request).await?.into_inner();
                    let first = responses.message().await?;
                    let first = first.ok_or_else(|| tonic::Status::unavailable("the watch ended at once"))?;
                    Ok(tonic::Response::new((first, responses)))
                }
            })
            .await?;
        Ok((opened.0.try_into()?, opened.1))
    }
}

struct ResumingWatch {
    client: Client,
    prefix: Key,
    next: Revision,
    /// `None` while it is cut off.
    responses: Option<Streaming<proto::WatchResponse>>,
    opened: Instant,
    /// Resumptions since the last one that was good for something, and the pauses between them.
    fruitless: u32,
    pauses: Pauses,
}

impl ResumingWatch {
    async fn step(watch: Option<Self>) -> Option<(Result<WatchBatch, KvError>, Option<Self>)> {
        let mut watch = watch?;
        match watch.next_batch().await {
            Ok(batch) => {
                watch.next = batch.next_revision;
                Some((Ok(batch), Some(watch)))
            }
            Err(error) => Some((Err(error), None)),
        }
    }

    async fn next_batch(&mut self) -> Result<WatchBatch, KvError> {
        loop {
            let Some(responses) = &mut self.responses else {
                let bookmark = self.resume().await?;
                if bookmark.next_revision > self.next {
                    return Ok(bookmark);
                }
                continue;
            };
            let error = match responses.message().await {
                Ok(Some(response)) => {
                    self.made_progress();
                    return response.try_into();
                }
                Ok(None) => KvError::Unavailable {
                    reason: "the watch was ended".to_owned(),
                },
                Err(status) => error_from_status(&status, CallKind::Read),
            };
            self.cut_off(error)?;
        }
    }

    fn made_progress(&mut self) {
        self.fruitless = 0;
        self.pauses = Pauses::default();
    }

    /// The watch ends with an error that no other member would answer differently.
    fn cut_off(&mut self, error: KvError) -> Result<(), KvError> {
        self.responses = None;
        if self.opened.elapsed() >= GOOD_CONNECTION {
            self.made_progress();
        }
        self.fruitless += 1;
        if !error.is_retryable() || self.fruitless > FRUITLESS_RESUMES {
            return Err(error);
        }
        tracing::debug!(%error, next = self.next, "a watch was cut off and resumes");
        Ok(())
    }

    async fn resume(&mut self) -> Result<WatchBatch, KvError> {
        // The first time at once: the member may have said goodbye.
        if self.fruitless > 1 {
            tokio::time::sleep(self.pauses.next()).await;
        }
        let request = proto::WatchRequest {
            prefix: self.prefix.clone(),
            from_revision: self.next,
        };
        // The member that is asked now may not have applied yet what the one before had.
        let lags = |error: &KvError| matches!(error, KvError::FutureRevision { .. });
        let timeout = self.client.inner.options.resume_timeout;
        let (bookmark, responses) = self.client.open_watch(timeout, request, lags).await?;
        self.responses = Some(responses);
        self.opened = Instant::now();
        Ok(bookmark)
    }
}
