//! Holding a leased guest still when the lease ends, and letting it go on.
//!
//! ```text
//!   executes --freeze--> marked, QMP stop --(the guard's SIGSTOP)--> still
//!      ^                                                              |
//!      +--- unmarked <-- QMP cont, if it was marked <-- thaw (after the guard's SIGCONT)
//! ```
//! The mark lies in the runtime folder: a server that comes after this one knows by it that nobody asked for the
//! pause. What is under way meanwhile (a graceful stop, say) stays under way.
//!
//! Must never happen: a guest let go on that somebody paused; a wait for an answer of QEMU's before the freeze counts
//! as done, since it may hang on a disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plasmavmc_types::QemuRunState;
use serde_json::json;

use super::course::{Answer, Pending, reply};
use super::handle::Done;
use super::hands::{Channels, query_status};
use super::task::{Monitor, Task};
use super::{Phase, patience};
use crate::qmp::{Qmp, QmpError};

/// For a guest's agent to set the clock. It is a courtesy.
const CLOCK_WITHIN: Duration = Duration::from_secs(5);

/// A thaw under way.
pub(super) struct Thaw {
    answer: Answer,
    /// Absent as long as the monitor does not answer.
    course: Pending<Result<QemuRunState, QmpError>>,
}

pub(super) async fn poll_thaw(thaw: &mut Option<Thaw>) -> Result<QemuRunState, QmpError> {
    match thaw.as_mut().and_then(|thaw| thaw.course.as_mut()) {
        Some(course) => course.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Task {
    pub(super) fn freeze(&mut self, answer: Answer) {
        let phase = self.state.borrow().phase;
        let executes = matches!(phase, Phase::Running | Phase::Stopping | Phase::Rebooting);
        if let Monitor::Connected(connection) = &self.monitor
            && executes
        {
            // Without the mark the guest is stopped by the guard alone, and goes on as it was.
            match self.folder.mark_frozen() {
                Ok(()) => stop(connection.qmp.clone()),
                Err(error) => tracing::warn!(vm = %self.key.vm, %error, "its clocks are not held"),
            }
        }
        self.note_frozen(answer);
    }

    pub(super) fn note_frozen(&mut self, answer: Answer) {
        self.state.send_if_modified(|state| {
            let is_new = !state.frozen && !state.phase.is_gone();
            state.frozen |= is_new;
            is_new
        });
        reply(Some(answer), Ok(Done::default()));
    }

    pub(super) fn begin_thaw(&mut self, answer: Answer) {
        if !self.state.borrow().frozen {
            reply(Some(answer), Ok(Done::default()));
            return;
        }
        // Whoever waited before has given up, and asks again.
        self.thaw = Some(Thaw { answer, course: None });
        self.go_on_thawing();
    }

    /// As soon as somebody wants it and the monitor answers.
    pub(super) fn go_on_thawing(&mut self) {
        let Some(thaw) = self.thaw.as_mut().filter(|thaw| thaw.course.is_none()) else {
            return;
        };
        if let Monitor::Connected(connection) = &self.monitor {
            let (qmp, goes_on) = (connection.qmp.clone(), self.folder.is_marked_frozen());
            thaw.course = Some(Box::pin(async move { go_on(&qmp, goes_on).await }));
        }
    }

    pub(super) fn thawed(&mut self, result: Result<QemuRunState, QmpError>) {
        let Some(thaw) = self.thaw.take() else { return };
        let state = match result {
            Ok(state) => state,
            Err(error) => {
                // It comes again with the monitor.
                self.thaw = Some(Thaw { course: None, ..thaw });
                self.lose_monitor(&error.to_string());
                return;
            }
        };
        if let Err(error) = self.folder.unmark_frozen() {
            tracing::warn!(vm = %self.key.vm, %error, "the mark of a freeze stays behind");
        }
        self.report(state);
        self.state.send_modify(|state| state.frozen = false);
        set_clock(Arc::clone(&self.channels));
        reply(Some(thaw.answer), Ok(Done::default()));
    }
}

/// Its answer may hang on a disk, and counts for nothing.
fn stop(qmp: Qmp) {
    tokio::spawn(async move {
        let _ = qmp.execute_raw("stop", json!({}), patience::COMMAND).await;
    });
}

async fn go_on(qmp: &Qmp, goes_on: bool) -> Result<QemuRunState, QmpError> {
    if goes_on {
        match qmp.execute_raw("cont", json!({}), patience::COMMAND).await {
            // Its guest has powered off or panicked meanwhile: what it is, is asked next.
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    query_status(qmp, patience::COMMAND).await
}

/// The guest has slept: without this its clock would stay behind for good.
fn set_clock(channels: Arc<Channels>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    tokio::spawn(async move {
        // A guest without an agent, or with one that may not, has to see for itself.
        let _ = channels.agent.set_time(now, CLOCK_WITHIN).await;
    });
}
