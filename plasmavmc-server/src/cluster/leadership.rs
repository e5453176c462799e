//! Whether this server's member of the store leads, and how many members vote, as values to watch. They stay true
//! across restarts of the member inside the process.

use std::sync::Arc;

use chainfire::node::{Node, Phase};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Follows the member until `stop`, then says that it does not lead.
pub fn follow(node: Node, stop: CancellationToken) -> watch::Receiver<bool> {
    let (leads, leadership) = watch::channel(false);
    tokio::spawn(async move {
        let tell = |state: Option<State>| note(&leads, state.is_some_and(|state| state.leads));
        stop.run_until_cancelled(each_state(&node, tell)).await;
        leads.send_replace(false);
    });
    leadership
}

/// How many members vote, as this one knows it, until `stop`. 0: it does not know yet.
pub fn voters(node: Node, stop: CancellationToken) -> watch::Receiver<usize> {
    let (count, voters) = watch::channel(0);
    tokio::spawn(async move {
        // What was known stays known while the member restarts.
        let tell = |state: Option<State>| {
            if let Some(state) = state.filter(|state| state.voters > 0) {
                note(&count, state.voters);
            }
        };
        stop.run_until_cancelled(each_state(&node, tell)).await;
    });
    voters
}

/// What a member says of itself and of the cluster.
struct State {
    leads: bool,
    voters: usize,
}

/// Tells every state of the member, and that there is none while it does not serve. Ends with the node.
async fn each_state(node: &Node, tell: impl Fn(Option<State>)) {
    let mut phase = node.phase();
    loop {
        let serving = match &*phase.borrow_and_update() {
            Phase::Serving(member) => Some(Arc::clone(member)),
            Phase::Down { .. } => None,
            Phase::Stopped => return,
        };
        if let Some(member) = serving {
            let mut metrics = member.raft().server_metrics();
            loop {
                // All of them of this value: openraft publishes its others a moment later.
                let state = {
                    let now = metrics.borrow_and_update();
                    State {
                        leads: now.state.is_leader(),
                        voters: now.membership_config.membership().voter_ids().count(),
                    }
                };
                tell(Some(state));
                tokio::select! {
                    changed = metrics.changed() => if changed.is_err() { break },
                    changed = phase.changed() => if changed.is_err() { return } else { break },
                }
            }
            // The member's end shows before the phase does.
            tell(None);
            if !matches!(&*phase.borrow(), Phase::Serving(same) if Arc::ptr_eq(same, &member)) {
                continue;
            }
        } else {
            tell(None);
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}

fn note<T: PartialEq>(known: &watch::Sender<T>, now: T) {
    known.send_if_modified(|known| {
        let is_new = *known != now;
        *known = now;
        is_new
    });
}
