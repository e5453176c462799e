//! The controller: on the leader it turns what is stored into what should be, one transaction at a time.
//!
//! ```text
//!            leadership               barrier, mirror caught up
//!   idle -----------------> arriving ---------------------------> leading --+
//!    ^                         |                                   |   ^    | change, or twice a second:
//!    +--- leadership lost -----+-----------------------------------+   +----+ step: look, plan, carry out
//! ```
//! Two leaders may believe in themselves for a moment. It does no harm: every action compares what it was decided
//! on, so of two that differ only one is carried out.
//!
//! Must never: decide here (that is [`plasmavmc_core::plan`]), or repeat a transaction that raced: it looks again.

mod elders;
mod housekeeping;
mod step;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::{Consistency, Kv};
use plasmavmc_core::liveness::gap_ms;
use plasmavmc_types::HostId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use elders::OtherMembers;
pub use step::{StepReport, step};

use crate::clock::{millis, wall_ms};
use crate::store::{Mirror, keys};
use housekeeping::Housekeeping;

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Deadlines and pauses pass without a change.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the store and the mirror have to show what was committed.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(5);
/// After a failure of the store.
const PAUSE: Duration = Duration::from_millis(250);

/// Whom a controller asks besides the store.
#[derive(Debug, Clone)]
pub struct Others {
    /// This server's host, which is not asked.
    pub own: HostId,
    pub members: Arc<dyn OtherMembers>,
}

/// A running controller.
#[derive(Debug)]
pub struct Controller {
    task: JoinHandle<()>,
}

impl Controller {
    /// Runs until `stop`; does something while `leadership` is true.
    pub fn start(
        kv: Arc<dyn Kv>,
        mirror: Mirror,
        leadership: watch::Receiver<bool>,
        others: Others,
        stop: CancellationToken,
    ) -> Self {
        let known = elders::Known::new();
        let asking = elders::Asking {
            own: others.own,
            mirror: mirror.clone(),
            members: others.members,
            leadership: leadership.clone(),
            known: known.clone(),
        };
        let lead = Lead {
            kv,
            mirror,
            leadership,
            elders: known,
        };
        let task = tokio::spawn(async move {
            let both = async { tokio::join!(lead.run(), asking.run()) };
            stop.run_until_cancelled(both).await;
        });
        Self { task }
    }

    /// Waits for its end, after `stop` was cancelled.
    pub async fn ended(self) {
        // A panic in there has been reported by its own message.
        let _ = self.task.await;
    }
}

struct Lead {
    kv: Arc<dyn Kv>,
    mirror: Mirror,
    leadership: watch::Receiver<bool>,
    elders: elders::Known,
}

impl Lead {
    /// Returns when nobody can tell any more who leads.
    async fn run(mut self) {
        while self.leadership.wait_for(|leads| *leads).await.is_ok() {
            let mut leadership = self.leadership.clone();
            tokio::select! {
                () = self.lead() => {}
                _ = leadership.wait_for(|leads| !leads) => tracing::info!("another server leads now"),
            }
        }
    }

    async fn lead(&self) {
        tracing::info!("this server leads: it runs the controller");
        let leads_since = Instant::now();
        let mut revision = self.mirror.revision();
        let mut timer = interval(LOOK_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut housekeeping = Housekeeping::default();
        let mut seen = 0;
        // When the last word of a majority was asked for that was given.
        let mut confirmed: Option<Instant> = None;
        loop {
            if self.somebody_is_silent() {
                seen = 0;
            }
            let asked = (seen == 0).then(Instant::now);
            // What was committed before this term must be in the view, and whatever was committed by us.
            if let Err(problem) = self.catch_up(seen).await {
                tracing::warn!(problem, "the controller waits for the store");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            confirmed = asked.or(confirmed);
            let began = Instant::now();
            revision.borrow_and_update();
            let now_ms = wall_ms();
            let planned = self.mirror.look(began, |view, mut heard| {
                heard.leading_for_ms = Some(millis(began - leads_since));
                heard.contact.quorum_ago_ms = confirmed.map(|at| millis(began - at));
                let own = heard.contact.heard_since_revision;
                heard.contact.heard_since_revision = self.elders.lowest(own, view, began);
                plasmavmc_core::plan::plan(view, &heard, now_ms)
            });
            let report = step(&*self.kv, planned, &mut rand::random).await;
            housekeeping.run(&*self.kv, &self.mirror, now_ms).await;
            seen = report.revision;
            if report.failed > 0 {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                changed = revision.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sleep_until(began + TOGETHER).await;
                }
                _ = timer.tick() => {}
            }
        }
    }

    /// Whether a host may have to be given up: then it must be known that this server still leads.
    fn somebody_is_silent(&self) -> bool {
        self.mirror.look(Instant::now(), |view, heard| {
            let is_open = |host: &HostId| {
                let session = view.hosts.get(host).and_then(|known| known.session.as_ref());
                session.is_some_and(|session| session.value.is_open())
            };
            let mut open = view.hosts.keys().filter(|host| is_open(host));
            let late_ms = gap_ms(&view.timings);
            open.any(|host| heard.ago_ms.get(host).is_none_or(|ago_ms| *ago_ms > late_ms))
        })
    }

    /// Waits until the view shows a revision; 0: everything that was committed up to now.
    async fn catch_up(&self, revision: u64) -> Result<(), String> {
        let wanted = match revision {
            0 => {
                let asked = timeout(CATCH_UP_WITHIN, self.kv.get(keys::config(), Consistency::Linearizable)).await;
                let answer = asked.map_err(|_| "it does not answer".to_owned())?;
                answer.map_err(|error| error.to_string())?.revision
            }
            revision => revision,
        };
        let reached = self.mirror.reached(wanted, CATCH_UP_WITHIN).await;
        reached.map_err(|error| error.to_string())
    }
}
