//! Whether commits come: what was not heard says nothing of a time in which nothing could be heard.
//!
//! A member that starts lists what its own disk knows, and then replays what was committed before it began. Beats among
//! that look as if they were heard, though their hosts may have lost power with everything else. So listening begins
//! later, at a revision that a linearizable read of this process has answered with, once the view shows it. Whatever was
//! committed before the read was asked for is in it. Nor is there anything older that could still be committed: what was
//! taken in an earlier term is committed or lost before the first such read of a term is answered. So a beat with a
//! revision above it was committed in the life of this process, however it came here.

use chainfire::kv::Revision;
use plasmavmc_core::liveness::gap_ms;
use plasmavmc_core::view::Contact;
use plasmavmc_types::Timings;
use tokio::time::Instant;

use crate::clock::millis;

/// When commits came, by this server's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// When commits began to be heard as they come, and the revision that was shown then.
    listening_since: Option<(Instant, Revision)>,
    /// Of the first commit after the last gap.
    flowing_since: Option<Instant>,
    last: Option<Instant>,
}

impl Flow {
    /// Everything was listed. What came since the listing before cannot be told apart in time.
    pub fn note_listing(&mut self, now: Instant) {
        self.flowing_since = Some(now);
        self.last = Some(now);
    }

    /// Everything that was committed before this process began is shown: it is in `revision`.
    pub fn note_listening(&mut self, now: Instant, revision: Revision) {
        self.listening_since.get_or_insert((now, revision));
    }

    /// Whatever was committed above it, was committed in the life of this process.
    pub fn listens_since(&self) -> Option<Revision> {
        self.listening_since.map(|(_, revision)| revision)
    }

    /// Something was committed.
    pub fn note_commit(&mut self, now: Instant, timings: &Timings) {
        if self.is_gap(now, timings) {
            self.flowing_since = Some(now);
        }
        self.last = Some(now);
    }

    pub fn contact(&self, now: Instant, timings: &Timings) -> Contact {
        let since = |at: Option<Instant>| at.map_or(0, |at| millis(now.saturating_duration_since(at)));
        Contact {
            quorum_ago_ms: None,
            flowing_for_ms: if self.is_gap(now, timings) {
                0
            } else {
                since(self.flowing_since)
            },
            listening_for_ms: since(self.listening_since.map(|(at, _)| at)),
            heard_since_revision: self.listens_since(),
        }
    }

    fn is_gap(&self, now: Instant, timings: &Timings) -> bool {
        self.last
            .is_none_or(|last| millis(now.saturating_duration_since(last)) > gap_ms(timings))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_gap_begins_the_flow_anew_and_the_listening_goes_on() {
        let (timings, start) = (Timings::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut flow = Flow::default();
        assert_eq!(flow.contact(at(0), &timings), Contact::default());
        flow.note_listing(at(0));
        assert_eq!(flow.contact(at(500), &timings).heard_since_revision, None);
        assert_eq!(flow.contact(at(500), &timings).listening_for_ms, 0);
        flow.note_listening(at(0), 7);
        for ms in [1000, 2000, 4000] {
            flow.note_commit(at(ms), &timings);
        }
        let contact = flow.contact(at(5000), &timings);
        assert_eq!((contact.flowing_for_ms, contact.listening_for_ms), (5000, 5000));
        assert_eq!(flow.contact(at(6001), &timings).flowing_for_ms, 0, "none came lately");
        flow.note_commit(at(6001), &timings);
        let contact = flow.contact(at(7000), &timings);
        assert_eq!((contact.flowing_for_ms, contact.listening_for_ms), (999, 7000));
        flow.note_listing(at(7000));
        flow.note_listening(at(7000), 9);
        let contact = flow.contact(at(8000), &timings);
        assert_eq!(
            (contact.listening_for_ms, contact.heard_since_revision),
            (8000, Some(7))
        );
    }
}
