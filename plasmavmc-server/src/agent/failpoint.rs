//! Places where a test kills this process, to see that nothing is lost whatever was half done.
//!
//! Every write to the store and every action on a QEMU is a [`Step`] with a place before and one after it.
//! `PLASMAVMC_FAILPOINT=claim-after:3` aborts at the third time that place is reached: no destructor runs, as
//! with kill -9. Only builds with the feature `failpoints` can do it; in all others the calls are empty.
//!
//! Must never: be built into what is installed.

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
    REBOOT = "reboot": "A guest is asked to power off, and started anew.";
    RESET = "reset": "The reset button is pressed.";
    PAUSE = "pause": "A guest is held.";
    RESUME = "resume": "A guest is let go on.";
    KILL = "kill": "A QEMU is killed.";
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

#[cfg(not(feature = "failpoints"))]
fn hit(_: &'static str) {}

#[cfg(feature = "failpoints")]
fn hit(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| read(&std::env::var(ENV).ok()?));
    static HITS: AtomicU64 = AtomicU64::new(0);
    let Some((armed, at)) = ARMED.as_ref() else { return };
    if armed == name && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *at {
        std::process::abort();
    }
}

#[cfg(feature = "failpoints")]
const ENV: &str = "PLASMAVMC_FAILPOINT";

/// `claim-after:3`, or `claim-after` for the first time.
#[cfg(any(feature = "failpoints", test))]
fn read(text: &str) -> Option<(String, u64)> {
    let (name, at) = text.split_once(':').unwrap_or((text, "1"));
    let known = NAMES.contains(&name);
    known.then_some((name.to_owned(), at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_with_the_time_at_which_it_kills() {
        assert_eq!(read("claim-after:3"), Some(("claim-after".to_owned(), 3)));
        assert_eq!(read("launch-before"), Some(("launch-before".to_owned(), 1)));
        assert_eq!(read("no-such-place:1"), None);
        assert_eq!(read("claim-after:soon"), None);
    }

    #[test]
    fn no_two_places_have_one_name() {
        let names: std::collections::BTreeSet<_> = NAMES.iter().collect();
        assert_eq!(names.len(), NAMES.len());
    }
}
