//! What calls are answered with: the store, its mirror, and what this server may not do too much of.
//!
//! Must never: answer from a mirror that has not seen what was acknowledged before the call (unless the caller
//! said `stale`), or wait longer than the caller does.

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::{Consistency, Kv};
use plasmavmc_core::view::{ClusterView, Heard};
use plasmavmc_types::HostId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::numbers::Numbers;
use crate::store::{Mirror, MirrorError, keys};

/// How long an answer waits for this server to catch up, if its caller would wait longer.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(5);
/// Open watches of VMs, events and operations on one server.
const WATCHES: usize = 1000;

/// One for all calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Backend {
    pub kv: Arc<dyn Kv>,
    pub mirror: Mirror,
    /// The host that answers.
    pub host: HostId,
    pub numbers: Numbers,
    /// Ends every stream.
    pub stop: CancellationToken,
    /// How many members of the store vote.
    pub voters: watch::Receiver<usize>,
    watches: Arc<Semaphore>,
}

impl Backend {
    pub fn new(
        kv: Arc<dyn Kv>,
        mirror: Mirror,
        host: HostId,
        voters: watch::Receiver<usize>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            voters,
            kv,
            mirror,
            host,
            numbers: Numbers::default(),
            stop,
            watches: Arc::new(Semaphore::new(WATCHES)),
        }
    }

    /// Returns once the mirror shows all that was acknowledged before this call.
    pub async fn catch_up(&self) -> Result<(), ApiError> {
        let answer = self.kv.get(keys::config(), Consistency::Linearizable).await?;
        self.reached(answer.revision).await
    }

    /// Returns once the mirror shows this revision.
    pub async fn reached(&self, revision: u64) -> Result<(), ApiError> {
        self.mirror
            .reached(revision, CATCH_UP_WITHIN)
            .await
            .map_err(|error| match error {
                MirrorError::Stopped => ApiError::Stopping,
                _ => ApiError::Behind(CATCH_UP_WITHIN),
            })
    }

    /// Reads the mirror, with what is known of the hosts' beats.
    pub fn look<R>(&self, read: impl FnOnce(&ClusterView, &Heard) -> R) -> R {
        self.mirror.look(Instant::now(), |view, heard| read(view, &heard))
    }

    /// Looks at the view, and again after every change, until there is what is looked for.
    pub async fn wait_for<R>(&self, mut find: impl FnMut(&ClusterView) -> Option<R>) -> Result<R, ApiError> {
        let mut revision = self.mirror.revision();
        loop {
            // Before the look: what changes after it wakes us up again.
            revision.borrow_and_update();
            if let Some(found) = self.mirror.read(&mut find) {
                return Ok(found);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(ApiError::Stopping),
                changed = revision.changed() => changed.map_err(|_| ApiError::Stopping)?,
            }
        }
    }

    /// The right to watch, for as long as it is kept.
    pub fn watch_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.watches)
            .try_acquire_owned()
            .map_err(|_| ApiError::TooManyWatches { limit: WATCHES })
    }
}
