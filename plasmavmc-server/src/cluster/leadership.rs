//! Whether this server's member of the store leads, as a value to watch. It stays true across restarts of the
//! member inside the process.

use chainfire::node::{Node, Phase};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Follows the member until `stop`, then says that it does not lead.
pub fn follow(node: Node, stop: CancellationToken) -> watch::Receiver<bool> {
    let (leads, leadership) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tell(&node, &leads) => {}
        }
        leads.send_replace(false);
    });
    leadership
}

/// How many members vote, as this one knows it, until `stop`. 0: it does not know yet.
pub fn voters(node: Node, stop: CancellationToken) -> watch::Receiver<usize> {
    let (count, voters) = watch::channel(0);
    tokio::spawn(async move {
        stop.run_until_cancelled(count_voters(&node, &count)).await;
    });
    voters
}

async fn count_voters(node: &Node, count: &watch::Sender<usize>) {
    let mut phase = node.phase();
    loop {
        let member = match &*phase.borrow_and_update() {
            Phase::Serving(member) => Some(std::sync::Arc::clone(member)),
            Phase::Down { .. } => None,
            Phase::Stopped => return,
        };
        let Some(member) = member else {
            if phase.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut state = member.raft().server_metrics();
        loop {
            let voters = state
                .borrow_and_update()
                .membership_config
                .membership()
                .voter_ids()
                .count();
            // What was known stays known while the member restarts.
            if voters > 0 {
                count.send_if_modified(|known| std::mem::replace(known, voters) != voters);
            }
            let goes_on = tokio::select! {
                changed = state.changed() => changed.is_ok(),
                changed = phase.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        if matches!(&*phase.borrow(), Phase::Serving(same) if std::sync::Arc::ptr_eq(same, &member))
            && phase.changed().await.is_err()
        {
            return;
        }
    }
}

async fn tell(node: &Node, leads: &watch::Sender<bool>) {
    let mut phase = node.phase();
    loop {
        let serving = match &*phase.borrow_and_update() {
            Phase::Serving(member) => Some(std::sync::Arc::clone(member)),
            Phase::Down { .. } => None,
            Phase::Stopped => return,
        };
        let Some(member) = serving else {
            note(leads, false);
            if phase.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut state = member.raft().server_metrics();
        loop {
            // Of this value itself: openraft publishes its others a moment later.
            let leads_now = state.borrow_and_update().state.is_leader();
            note(leads, leads_now);
            let goes_on = tokio::select! {
                changed = state.changed() => changed.is_ok(),
                changed = phase.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        // The member's end shows before the phase does.
        note(leads, false);
        if matches!(&*phase.borrow(), Phase::Serving(same) if std::sync::Arc::ptr_eq(same, &member))
            && phase.changed().await.is_err()
        {
            return;
        }
    }
}

fn note(leads: &watch::Sender<bool>, now: bool) {
    leads.send_if_modified(|known| std::mem::replace(known, now) != now);
}
