//! Forgetting what was kept long enough and is in no plan: old decisions, requests and tokens.
//!
//! Nothing depends on its success: what is not deleted now is deleted later.

use std::time::Duration;

use chainfire::kv::Kv;
use tokio::time::Instant;

use super::StepReport;
use crate::store::{Mirror, Write, keys};

/// In one transaction.
const AT_ONCE: usize = 200;
/// A repeated request is answered like the first for so long.
const REQUESTS_KEPT_MS: u64 = 24 * 3600 * 1000;
/// A token that has expired is told apart from one that never was for so long.
const TOKENS_KEPT_MS: u64 = 24 * 3600 * 1000;
const REQUESTS_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    requests_at: Option<Instant>,
}

impl Housekeeping {
    pub async fn run(&mut self, kv: &dyn Kv, mirror: &Mirror, now_ms: u64, report: &StepReport) {
        if report.decisions > 0 {
            let surplus = mirror.surplus_decisions(report.decisions, AT_ONCE);
            if !surplus.is_empty() {
                commit(kv, Write::new().delete_decisions(surplus)).await;
            }
        }
        let is_time = self.requests_at.is_none_or(|at| at.elapsed() >= REQUESTS_EVERY);
        if is_time {
            self.requests_at = Some(Instant::now());
            forget_old(kv, mirror, now_ms).await;
        }
    }
}

async fn forget_old(kv: &dyn Kv, mirror: &Mirror, now_ms: u64) {
    let requests = mirror.requests_before(now_ms.saturating_sub(REQUESTS_KEPT_MS), AT_ONCE);
    let expired = mirror.tokens().into_iter().filter(|(_, token)| {
        let last_use = token.value.expires_at_ms.saturating_add(TOKENS_KEPT_MS);
        last_use < now_ms
    });
    let write = requests.into_iter().fold(Write::new(), |write, (id, revision)| {
        write.expect(keys::request(&id), revision).delete(keys::request(&id))
    });
    let write = expired.take(AT_ONCE).fold(write, |write, (id, token)| {
        write.expect(keys::token(&id), token.revision).delete(keys::token(&id))
    });
    if write != Write::new() {
        commit(kv, write).await;
    }
}

async fn commit(kv: &dyn Kv, write: Write) {
    if let Err(error) = write.commit(kv).await {
        tracing::debug!(%error, "what was kept long enough is deleted later");
    }
}
