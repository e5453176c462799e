//! Places where a test kills this process, to see that nothing is lost whatever was half done.
//!
//! Every write to the store and every action on a QEMU is a [`Step`] with a place before and one after it.
//! A place that was armed ends the process with SIGKILL the given time it is reached: no destructor runs, no
//! buffer is written. `plasmavmc-server` arms none and has no way to; a program of the tests that is otherwise
//! the same does ([`arm`]).
//!
//! Must never: be armed by anything that is installed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use plasmavmc_core::plan::ControlKind;

/// Something that may be interrupted before it began or after it was done.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    before: &'static str,
    after: &'static str,
}

macro_rules! steps {
    ($($constant:ident = $name:literal: $what:literal;)*) => {
        $(
            #[doc = $what]
            pub const $constant: Step = Step { before: concat!($name, "-before"), after: concat!($name, "-after") };
        )*

        /// Every place there is.
        pub const NAMES: &[&str] = &[$(concat!($name, "-before"), concat!($name, "-after")),*];
    };
}

steps! {
    CREATE = "create": "A VM is written down, with its name and number.";
    UPDATE = "update": "Another specification is written down.";
    ORDER = "order": "A start, a stop, a deletion or the like is written down.";
    CANCEL = "cancel": "That an operation is to be given up is written down.";
    PLACE = "place": "The controller puts a VM on a host.";
    FENCE = "fence": "The controller ends the session of a host that is silent.";
    FAILOVER = "failover": "The controller puts a VM on another host, since its own was fenced.";
    FORGET = "forget": "The controller removes what is stored of a deleted VM.";
    FINISH = "finish": "The controller ends an operation.";
    WAIT = "wait": "The controller writes down why a VM waits.";
    SESSION = "session": "The session is opened.";
    BEAT = "beat": "A beat is sent.";
    CLAIM = "claim": "A VM is claimed for an attempt.";
    STATUS = "status": "A status is reported, alone or with the operation it ends.";
    OPERATION = "operation": "An operation is taken, moved or ended.";
    POWER = "power": "The power that is wanted is written by the host.";
    DISK = "disk": "A disk is made.";
    LAUNCH = "launch": "A QEMU is started.";
    CONT = "cont": "A guest is let loose.";
    STOP = "stop": "A guest is asked to power off, and its QEMU ended.";
    LEAVE = "leave": "A guest is asked to power off, since its host is about to be switched off.";
    REBOOT = "reboot": "A guest is asked to power off, and started anew.";
    RESET = "reset": "The reset button is pressed.";
    PAUSE = "pause": "A guest is held.";
    RESUME = "resume": "A guest is let go on.";
    KILL = "kill": "A QEMU is killed.";
    FREEZE = "freeze": "A guest is held still, since the lease is about to end.";
    THAW = "thaw": "The guard is told to let a frozen QEMU go on, with the proof at hand.";
    INHERIT = "inherit": "What runs on this host is taken over.";
}

impl Step {
    /// Does something, with a place before and one after it.
    pub async fn around<T>(self, work: impl Future<Output = T>) -> T {
        hit(self.before);
        let done = work.await;
        hit(self.after);
        done
    }
}

/// The step that an action of the controller is. What is collected is missed by nobody, and is no step.
pub fn of_control(kind: ControlKind) -> Option<Step> {
    match kind {
        ControlKind::Fence => Some(FENCE),
        ControlKind::Failover => Some(FAILOVER),
        ControlKind::Place | ControlKind::Replace | ControlKind::Retry => Some(PLACE),
        ControlKind::Forget => Some(FORGET),
        ControlKind::FinishOperation => Some(FINISH),
        ControlKind::NoteWaiting => Some(WAIT),
        ControlKind::CollectGarbage => None,
    }
}

/// A place, and the time at which it kills.
#[derive(Debug, PartialEq, Eq)]
struct Armed {
    name: &'static str,
    at: u64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();
static HITS: AtomicU64 = AtomicU64::new(0);

/// Arms a place: `claim-after:3` kills at the third time, `claim-after` at the first. False if there is no such
/// place, or another one is armed.
pub fn arm(text: &str) -> bool {
    read(text).is_some_and(|armed| ARMED.set(armed).is_ok())
}

fn read(text: &str) -> Option<Armed> {
    let (name, at) = text.split_once(':').unwrap_or((text, "1"));
    let name = NAMES.iter().find(|known| **known == name)?;
    Some(Armed {
        name,
        at: at.parse().ok()?,
    })
}

fn hit(name: &'static str) {
    let Some(armed) = ARMED.get() else { return };
    if armed.name == name && HITS.fetch_add(1, Ordering::SeqCst) + 1 == armed.at {
        // Nothing is run after it: it cannot be refused to oneself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_with_the_time_at_which_it_kills() {
        let check = |text, expected: Option<(&'static str, u64)>| {
            let expected = expected.map(|(name, at)| Armed { name, at });
            assert_eq!(read(text), expected, "{text}");
        };
        check("claim-after:3", Some(("claim-after", 3)));
        check("launch-before", Some(("launch-before", 1)));
        check("no-such-place:1", None);
        check("claim-after:soon", None);
    }

    #[test]
    fn no_two_places_have_one_name() {
        let names: std::collections::BTreeSet<_> = NAMES.iter().collect();
        assert_eq!(names.len(), NAMES.len());
    }
}
