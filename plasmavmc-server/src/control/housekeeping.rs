//! Forgetting what was kept long enough and is in no plan: old decisions, requests and tokens.
//!
//! Nothing depends on its success: what is not deleted now is deleted later. But it keeps pace: as long as there is
//! more than one transaction takes, it goes on at the next step.

use std::time::Duration;

use chainfire::kv::Kv;
use tokio::time::Instant;

use crate::store::{Mirror, Write, keys};

/// In one transaction, which has its limits.
const AT_ONCE: usize = 200;
/// A repeated request is answered like the first for so long,
const REQUESTS_KEPT_MS: u64 = 24 * 3600 * 1000;
/// or until there are more than these.
pub(super) const REQUESTS_KEPT: usize = 20_000;
/// A token that has expired is told apart from one that never was for so long.
const TOKENS_KEPT_MS: u64 = 24 * 3600 * 1000;
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    /// When to look for old requests and tokens; at once if unset.
    looks_at: Option<Instant>,
}

impl Housekeeping {
    pub async fn run(&mut self, kv: &dyn Kv, mirror: &Mirror, now_ms: u64) {
        let surplus = mirror.surplus_decisions(AT_ONCE);
        if !surplus.is_empty() {
            commit(kv, Write::new().delete_decisions(surplus)).await;
        }
        let now = Instant::now();
        if self.looks_at.is_none_or(|at| at <= now) {
            let has_more = [
                forget_requests(kv, mirror, now_ms).await,
                forget_tokens(kv, mirror, now_ms).await,
            ];
            self.looks_at = (!has_more.contains(&true)).then(|| now + LOOK_EVERY);
        }
    }
}

/// Whether there may be more.
async fn forget_requests(kv: &dyn Kv, mirror: &Mirror, now_ms: u64) -> bool {
    let old = mirror.old_requests(now_ms.saturating_sub(REQUESTS_KEPT_MS), REQUESTS_KEPT, AT_ONCE);
    let has_more = old.len() == AT_ONCE;
    let write = old.into_iter().fold(Write::new(), |write, (id, revision)| {
        write.expect(keys::request(&id), revision).delete(keys::request(&id))
    });
    commit(kv, write).await;
    has_more
}

async fn forget_tokens(kv: &dyn Kv, mirror: &Mirror, now_ms: u64) -> bool {
    let expired = mirror.tokens().into_iter().filter(|(_, token)| {
        let last_use = token.value.expires_at_ms.saturating_add(TOKENS_KEPT_MS);
        last_use < now_ms
    });
    let expired: Vec<_> = expired.take(AT_ONCE).collect();
    let has_more = expired.len() == AT_ONCE;
    let write = expired.into_iter().fold(Write::new(), |write, (id, token)| {
        write.expect(keys::token(&id), token.revision).delete(keys::token(&id))
    });
    commit(kv, write).await;
    has_more
}

async fn commit(kv: &dyn Kv, write: Write) {
    if write == Write::new() {
        return;
    }
    if let Err(error) = write.commit(kv).await {
        tracing::debug!(%error, "what was kept long enough is deleted later");
    }
}
