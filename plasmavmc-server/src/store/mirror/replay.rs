//! The store as it was at some revision, and from there every change, whole revisions in order.
//!
//! For clients that resume a stream: they are owed each change once, with what was before, and no other. The
//! mirror only knows what is now, so a replay lists at the revision where the client stopped and watches from
//! there.
//!
//! Must never: skip a revision, or go on after one that the store no longer keeps; then it ends with the
//! store's error.

use std::time::Duration;

use chainfire::kv::{Consistency, Key, Kv, KvError, RangeQuery, Revision, WatchStream};
use futures::StreamExt;
use plasmavmc_core::view::ClusterView;
use tokio::time::{Instant, timeout};

use super::super::keys;
use super::Change;
use super::follow::steps_of;
use super::replica::{Replica, Step};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A view of its own that moves forward one batch at a time.
pub struct Replay {
    replica: Replica,
    batches: WatchStream,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("revision", &self.replica.view.revision)
            .finish_non_exhaustive()
    }
}

impl Replay {
    /// Everything as it was at a revision; 0: as it is now.
    pub async fn at(kv: &dyn Kv, revision: Revision) -> Result<Self, KvError> {
        let mut query = Some(RangeQuery {
            revision,
            consistency: Consistency::Linearizable,
            ..RangeQuery::prefix(keys::ALL)
        });
        let mut steps = Vec::new();
        let mut listed = revision;
        while let Some(asked) = query {
            let page = in_time(kv.range(asked.clone())).await?;
            listed = page.revision;
            let ours = page
                .kvs
                .iter()
                .filter_map(|kv| Step::put(&kv.key, &kv.value, kv.mod_revision));
            steps.extend(ours);
            query = asked.next_page(&page);
        }
        let mut replica = Replica::default();
        replica.apply(steps, listed, Instant::now());
        let batches = in_time(kv.watch(Key::new(), listed + 1)).await?;
        Ok(Self { replica, batches })
    }

    /// What is shown now.
    pub fn view(&self) -> &ClusterView {
        &self.replica.view
    }

    /// Moves on by one batch and answers with what it changed, which may be nothing of ours. `None`: the store
    /// stops. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Result<Vec<Change>, KvError>> {
        let batch = match self.batches.next().await? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        // The first item only says where the watch begins.
        let revision = batch.next_revision.saturating_sub(1).max(self.replica.view.revision);
        Some(Ok(self.replica.apply(steps_of(&batch), revision, Instant::now())))
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, KvError>>) -> Result<T, KvError> {
    timeout(ANSWER_WITHIN, call).await.unwrap_or_else(|_| {
        Err(KvError::Timeout {
            waited_ms: u64::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(u64::MAX),
            reason: "the store did not answer".to_owned(),
        })
    })
}
