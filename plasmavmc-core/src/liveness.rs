//! Which hosts are given up, and on which evidence (item 4 of the design).
//!
//! ```text
//!   beat heard -- silent for failover_after --> overdue --+-- fence: the session is over, durably
//!                                                         |
//!            held back while the reader itself was deaf: -+
//!              no majority has just confirmed that it leads
//!              commits flow again for too short a time: nobody could be heard in the gap
//!              after a cold start (no member process that lives is older than the host's last beat) the host gets
//!              its time to come
//!              most hosts seem to be gone at once: it listens for one beat more
//! ```
//! None of this keeps a VM from running twice: the guards do, and the transaction that fences, which compares the
//! beat that was seen. It keeps a switch that reboots from looking like the death of everybody.
//!
//! How long the silence must last is said by the beat that was heard last, and by the timings of today if that is longer:
//! see [`crate::terms`], with the proof that no change of timings lets a fence come before a lease is over.
//!
//! Must never: take silence for death while nobody could be heard.

use plasmavmc_types::{HostId, Timings};

use crate::terms;
use crate::view::{ClusterView, Heard, HostView};
use crate::visible::seconds;

/// A host whose last beat is older than every member process that lives gets this long: the whole cluster may have lost
/// power, and some machines take minutes to start.
pub const BOOT_GRACE_MS: u64 = 180_000;
/// Commits must have flowed again for so long, or two beats if that is longer.
const LEAST_FLOW_MS: u64 = 2500;
/// Fences within this time count together.
const TOGETHER_MS: u64 = 10_000;
/// The kind of a decision to fence.
pub const FENCE: &str = "fence";

/// A host to be fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    pub host: HostId,
    pub silent_for_ms: u64,
    /// So long is long enough for this host.
    pub patience_ms: u64,
}

/// What is to be done about silent hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Possibly none.
    Fence(Vec<Overdue>),
    /// Some are overdue, and it is too early to say so: why.
    Wait(String),
}

/// For how long commits must have flowed before silence counts.
pub fn least_flow_ms(timings: &Timings) -> u64 {
    (2 * timings.beat_ms).max(LEAST_FLOW_MS)
}

/// The same for one host: under other timings than those of today it may beat less often. Two of its beats fit into its
/// lease in any case.
fn flow_for_ms(view: &ClusterView, host: HostId) -> u64 {
    let least_ms = least_flow_ms(&view.timings);
    let is_under_others = |host: &&HostView| terms::says_them(host) && terms::is_under_others(view, host);
    let known = view.hosts.get(&host).filter(is_under_others);
    known.map_or(least_ms, |host| least_ms.max(terms::lease_ms(view, host)))
}

/// After how long without a commit nobody can have been heard.
pub fn gap_ms(timings: &Timings) -> u64 {
    2 * timings.beat_ms
}

/// How much later than others a guard may act that is not scheduled first, or whose memory may be swapped out.
const UNPUNCTUAL_MS: u64 = 2000;

/// So much sooner than its lease says does a host hold still: what its guard may be late, as far as the time between
/// freezing and fencing does not cover it.
pub fn early_ms(timings: &Timings, is_punctual: bool) -> u64 {
    let lateness_ms = if is_punctual { 0 } else { UNPUNCTUAL_MS };
    let needed_ms = (timings.freeze_after_ms / 4).max(1000) + lateness_ms;
    needed_ms.saturating_sub(timings.failover_after_ms.saturating_sub(timings.freeze_after_ms))
}

/// How old the word of a majority may be.
fn fresh_ms(timings: &Timings) -> u64 {
    timings.beat_ms
}

/// Which hosts are to be fenced now.
pub fn judge(view: &ClusterView, heard: &Heard, now_ms: u64) -> Judgement {
    if heard.leading_for_ms.is_none() {
        return Judgement::Fence(Vec::new());
    }
    let sessions = open_sessions(view);
    let overdue: Vec<Overdue> = sessions.iter().filter_map(|host| overdue(view, heard, *host)).collect();
    // A host that is alone has nobody to take over from it.
    let hosts = view.hosts.values().filter(|host| !host.is_witness()).count();
    if overdue.is_empty() || hosts < 2 {
        return Judgement::Fence(Vec::new());
    }
    let timings = &view.timings;
    let Some(quorum_ago_ms) = heard.contact.quorum_ago_ms.filter(|ago| *ago <= fresh_ms(timings)) else {
        return Judgement::Wait("no majority has confirmed lately that this server leads".to_owned());
    };
    let of_overdue = overdue.iter().map(|overdue| flow_for_ms(view, overdue.host));
    let (flowing_ms, least_ms) = (heard.contact.flowing_for_ms, of_overdue.max().unwrap_or_default());
    if flowing_ms < least_ms {
        let (flowing, least) = (seconds(flowing_ms), seconds(least_ms));
        return Judgement::Wait(format!(
            "commits have come again for {flowing} only, and hosts get {least} to be heard"
        ));
    }
    let gone = overdue.len() + fenced_lately(view, now_ms);
    let is_most = gone * 2 > sessions.len().max(2);
    // One more word of the majority, given when they were overdue already.
    let for_ms = overdue
        .iter()
        .map(|overdue| overdue.silent_for_ms.saturating_sub(overdue.patience_ms));
    let confirmed = for_ms.min().unwrap_or_default() >= timings.beat_ms + quorum_ago_ms;
    if is_most && !confirmed {
        return Judgement::Wait(format!(
            "{gone} of {} hosts seem to be gone: looking once more",
            sessions.len()
        ));
    }
    Judgement::Fence(overdue)
}

fn open_sessions(view: &ClusterView) -> Vec<HostId> {
    let is_open = |host: &HostId| {
        let session = view.hosts.get(host).and_then(|host| host.session.as_ref());
        session.is_some_and(|session| session.value.is_open())
    };
    view.hosts.keys().copied().filter(is_open).collect()
}

fn overdue(view: &ClusterView, heard: &Heard, host: HostId) -> Option<Overdue> {
    let listening_ms = heard.contact.listening_for_ms;
    let silent_for_ms = heard.ago_ms.get(&host).copied().unwrap_or(listening_ms);
    let known = view.hosts.get(&host)?;
    let was_heard = silent_for_ms < listening_ms || was_outlived(known, heard);
    let told_ms = terms::patience_ms(view, known);
    let patience_ms = match was_heard {
        true => told_ms,
        false => told_ms.max(BOOT_GRACE_MS),
    };
    (silent_for_ms >= patience_ms).then_some(Overdue {
        host,
        silent_for_ms,
        patience_ms,
    })
}

/// Whether its last beat was committed in the life of a member process that lives: so the cluster as a whole has not been
/// without power since.
fn was_outlived(host: &HostView, heard: &Heard) -> bool {
    let beat = host.beat.as_ref();
    let since = heard.contact.heard_since_revision;
    beat.zip(since).is_some_and(|(beat, since)| beat.revision > since)
}

fn fenced_lately(view: &ClusterView, now_ms: u64) -> usize {
    let decisions = view.decisions.values().rev();
    let lately = decisions.take_while(|decision| decision.value.at_ms.saturating_add(TOGETHER_MS) >= now_ms);
    lately.filter(|decision| decision.value.kind == FENCE).count()
}

#[cfg(test)]
mod tests;
