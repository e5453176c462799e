//! Ending the session of a host that is silent for too long: only then may what it ran leased start elsewhere.
//!
//! The transaction compares the beat that was last seen. A host that beats in time is not fenced, whatever the
//! controller believed; one that is fenced knows that its lease was over long before.

use plasmavmc_types::Decision;

use super::{ControlKind, Planning};
use crate::change::{Change, Part, Put};
use crate::liveness::{Judgement, Overdue, judge};
use crate::visible::seconds;

impl Planning<'_> {
    pub(super) fn fence_silent(&mut self) {
        let Judgement::Fence(overdue) = judge(self.view, self.heard, self.now_ms) else {
            return;
        };
        for overdue in overdue {
            self.fence(overdue);
        }
    }

    fn fence(&mut self, overdue: Overdue) {
        let host = overdue.host;
        let Some(known) = self.view.hosts.get(&host) else {
            return;
        };
        let Some(session) = &known.session else { return };
        let name = self.view.host_name(host);
        let silent = seconds(overdue.silent_for_ms);
        let failover_after = seconds(overdue.patience_ms);
        let text = format!("host {name} was not heard for {silent}: what it ran leased may start elsewhere");
        let contact = &self.heard.contact;
        let decision = Decision {
            at_ms: self.now_ms,
            kind: ControlKind::Fence.word().to_owned(),
            vm: None,
            host: Some(host),
            text,
            evidence: vec![
                self.facts_of_host(host),
                format!("by its last beat and the timings of the cluster it is given up after {failover_after}"),
                format!(
                    "a majority confirmed {} ago that this server leads; commits have flowed for {}",
                    seconds(contact.quorum_ago_ms.unwrap_or_default()),
                    seconds(contact.flowing_for_ms)
                ),
            ],
        };
        let change = Change::new()
            .expect(Part::Session(host), session.revision)
            .expect_seen(Part::Beat(host), known.beat.as_ref())
            .put(Put::Session(host, session.value.fenced()))
            .because(decision);
        self.act(ControlKind::Fence, None, change);
    }
}
