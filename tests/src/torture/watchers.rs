//! Watchers that resume over every failure, and record everything they are shown.

use std::time::{Duration, Instant};

use chainfire::kv::{Key, Revision};
use tokio::sync::watch;

use crate::history::{SeenBatch, WatchRun};
use crate::members::{MemberClient, WatchEnd};

/// Silence after which a watcher tries the next member.
const IDLE: Duration = Duration::from_millis(1000);
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// How long a watcher may take to be shown the rest once everything is mended.
const CATCH_UP: Duration = Duration::from_secs(20);

/// Who watches, and what.
#[derive(Debug, Clone)]
pub struct Watcher {
    pub name: String,
    pub prefix: Key,
    pub from: Revision,
    /// In turn.
    pub members: Vec<MemberClient>,
}

impl Watcher {
    /// Watches until everything up to and including the revision that `until` comes to hold has been
    /// shown. The error says that it never was.
    pub async fn watch(self, mut until: watch::Receiver<Option<Revision>>) -> (Vec<WatchRun>, Result<(), String>) {
        let mut runs = vec![self.run(self.from)];
        let mut deadline = None;
        for turn in 0.. {
            let member = &self.members[turn % self.members.len()];
            loop {
                let target = *until.borrow_and_update();
                let covered = runs.last().map_or(0, WatchRun::covered_to);
                if let Some(target) = target {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + CATCH_UP);
                    if covered > target {
                        return (runs, Ok(()));
                    }
                    if Instant::now() > deadline {
                        let problem = format!("{} got to {covered} of {target} in {CATCH_UP:?}", self.name);
                        return (runs, Err(problem));
                    }
                }
                let end = tokio::select! {
                    end = follow(member, &mut runs) => end,
                    Ok(()) = until.changed() => continue,
                };
                if end.lost_history() {
                    runs.push(self.run(0));
                }
                break;
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        (runs, Ok(()))
    }

    fn run(&self, from: Revision) -> WatchRun {
        WatchRun {
            watcher: self.name.clone(),
            prefix: self.prefix.clone(),
            from,
            batches: Vec::new(),
        }
    }
}

/// Follows one member as long as it talks. Dropping this between two messages loses nothing: what was
/// recorded was shown, and the next one resumes after it.
async fn follow(member: &MemberClient, runs: &mut [WatchRun]) -> WatchEnd {
    let Some(run) = runs.last_mut() else {
        return WatchEnd::Idle;
    };
    let mut watching = match member.watch(&run.prefix, run.covered_to()).await {
        Ok(watching) => watching,
        Err(failure) => return WatchEnd::Failed(failure),
    };
    loop {
        match watching.next(IDLE).await {
            Ok((events, next_revision)) => {
                // A run from "now" begins where the first message says.
                if run.from == 0 && run.batches.is_empty() {
                    run.from = next_revision;
                }
                run.batches.push(SeenBatch { events, next_revision });
            }
            Err(end) => return end,
        }
    }
}
