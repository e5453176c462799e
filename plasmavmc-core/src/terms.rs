//! The terms of a beat: for how long its host may let leased VMs execute, and from when it may be fenced. They are in the
//! beat, so that the timings of a cluster can be changed while it runs.
//!
//! ```text
//!   the host's clock       A sent, under the old timings        B sent, under shorter ones
//!   ----------------------|-----------------------------------|--------------------------------------------> time
//!   granted by A           <------------- lease of A ------------------------> <-- margin -->|
//!   B, if nothing is left                                      <- lease -> <- margin ->|     |
//!   what B says                                                <- the later of both ------->|
//! ```
//! # Why no fence comes before the lease and the margin, however old anybody's view of the timings is
//!
//! 1. *Every deadline is of a beat.* A host's guard holds the latest `sent + lease` of the beats that counted, whose
//!    timings were read once: for what the beat says and for the deadline. Timings that pass their check leave a margin
//!    between the two numbers.
//! 2. *A beat covers all that went before it.* Within a session a deadline never comes nearer, so a beat under shorter
//!    timings does not take back what an earlier one granted. Nor would it help if it did: that beat may be stored while
//!    its answer is lost, so that the leader goes by it and the host by the one before. Therefore [`Granted::terms`] says
//!    the later of both. A host knows at the sending all that it was granted: it takes an answer only before it sends
//!    the next beat. A server that starts anew in the same session asks the stored beat, which covered everything
//!    before it, and counts from the asking, which is later than its sending ([`Granted::inherited`]); an answer that
//!    was on its way to the server before goes to nobody.
//! 3. *The leader judges by the beat that it fences on.* It waits from when it applied that beat, which is after its
//!    sending, at least for what that beat says, and compares that beat in the transaction. If a later one is stored,
//!    the fence fails; if none is, then by 2 nothing was granted beyond it.
//!
//! So neither the leader's view of the timings nor the host's plays a part: the timings of today can only make the leader
//! wait for longer. A new session begins with nothing: it is opened after a fence, which came after the deadline, or by
//! another boot, whose guard holds none.
//!
//! Lengthening holds for the leader at once. Shortening holds for a host with its first beat that says so, or once the
//! leases of the beats before are over, if that is later.
//!
//! Must never: judge a host by the timings of today alone; say less in a beat than what is granted already.

use plasmavmc_types::{Beat, Timings};

use crate::view::{ClusterView, HostView};

/// What a beat says of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// After its sending, by the clock of its host, leased VMs may execute there for so long.
    pub lease_ms: u64,
    /// After it was heard, by any clock, its host may be fenced.
    pub failover_ms: u64,
}

impl Terms {
    /// Of a host that was granted nothing before.
    pub fn of(timings: &Timings) -> Self {
        Self {
            lease_ms: timings.freeze_after_ms,
            failover_ms: timings.failover_after_ms,
        }
    }

    /// What this beat was sent under. Of a version that says only how long the lease is: the least that belongs to it.
    pub fn told_by(beat: &Beat) -> Self {
        let lease_ms = beat.lease_ms;
        Self {
            lease_ms,
            failover_ms: match beat.failover_ms {
                0 => Timings::least_failover_ms(lease_ms),
                told => told,
            },
        }
    }
}

/// The most that its beats have granted to a host, by the clock of that host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Granted {
    runs_until_ms: u64,
    fenced_from_ms: u64,
}

impl Granted {
    /// What an earlier process of the same session may have been granted, as the stored beat says.
    pub fn inherited(stored: Terms, now_ms: u64) -> Self {
        let mut granted = Self::default();
        granted.add(now_ms, stored);
        granted
    }

    /// Of a beat that is sent now: no less than what is left of what is granted already.
    pub fn terms(&self, timings: &Timings, now_ms: u64) -> Terms {
        let own = Terms::of(timings);
        Terms {
            lease_ms: own.lease_ms.max(self.runs_until_ms.saturating_sub(now_ms)),
            failover_ms: own.failover_ms.max(self.fenced_from_ms.saturating_sub(now_ms)),
        }
    }

    /// A beat with these terms counted.
    pub fn add(&mut self, sent_ms: u64, terms: Terms) {
        let until = |ms: u64| sent_ms.saturating_add(ms);
        self.runs_until_ms = self.runs_until_ms.max(until(terms.lease_ms));
        self.fenced_from_ms = self.fenced_from_ms.max(until(terms.failover_ms));
    }
}

/// For how long a host must be silent to be given up.
pub fn patience_ms(view: &ClusterView, host: &HostView) -> u64 {
    let told = host.beat.as_ref().map(|beat| Terms::told_by(&beat.value).failover_ms);
    told.unwrap_or_default().max(view.timings.failover_after_ms)
}

/// For how long after its last beat a host lets leased VMs execute, at most.
pub fn lease_ms(view: &ClusterView, host: &HostView) -> u64 {
    let told = host.beat.as_ref().map(|beat| beat.value.lease_ms);
    told.unwrap_or(view.timings.freeze_after_ms)
}

/// Whether the last beat of a host was sent under other terms than those of today.
pub fn is_under_others(view: &ClusterView, host: &HostView) -> bool {
    let beat = host.beat.as_ref().map(|beat| &beat.value);
    beat.is_some_and(|beat| Terms::told_by(beat) != Terms::of(&view.timings))
}

/// Whether a host can follow a change: a version that does not say its terms cannot.
pub fn says_them(host: &HostView) -> bool {
    host.beat.as_ref().is_none_or(|beat| beat.value.failover_ms != 0)
}

#[cfg(test)]
mod tests;
