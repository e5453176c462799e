//! Faults on demand, compiled only with the feature `faults`: members that break one promise each, to
//! show that the checks of the test suite can fail.

use std::sync::LazyLock;

use crate::kv::Event;

static BROKEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("CHAINFIRE_FAULT_BREAK").ok());

/// `stale-read`: linearizable reads are answered without asking anybody.
pub fn stale_reads() -> bool {
    BROKEN.as_deref() == Some("stale-read")
}

/// `watch-skip`: now and then one event of a watch is lost.
pub fn skip_an_event(events: &mut Vec<Event>, seen: usize) {
    if BROKEN.as_deref() == Some("watch-skip")
        && events.len() > seen
        && events.last().is_some_and(|event| event.kv.mod_revision % 97 == 0)
    {
        events.pop();
    }
}
