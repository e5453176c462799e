//! What this process may do before others: keep its memory, run first, be killed last.
//!
//! A guard that is swapped out or waits for its turn while a host is overloaded acts late. Where the host does
//! not permit one of these, the guard works all the same and says so in its status, so that whoever sets the
//! times knows.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Why something could not be had; `None` when it could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub memory_not_locked: Option<String>,
    pub not_realtime: Option<String>,
}

/// Takes all there is to have. Everything is given back to children at their launch.
pub fn take() -> Standing {
    raise_open_files();
    // Lowest of all; who may not lower it keeps what it has.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    Standing {
        memory_not_locked: lock_memory().err(),
        not_realtime: crate::sys::schedule_round_robin()
            .err()
            .map(|error| format!("SCHED_RR is refused ({error}): give it CAP_SYS_NICE or LimitRTPRIO=1")),
    }
}

/// Only where no limit applies: under one, a later allocation would fail, and the guard with it.
fn lock_memory() -> Result<(), String> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let is_exempt = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let Err(errno) = setrlimit(Resource::Memlock, unlimited)
        && !is_exempt
    {
        return Err(format!(
            "the limit for locked memory stays ({errno}): give it CAP_IPC_LOCK or LimitMEMLOCK=infinity"
        ));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).map_err(|errno| format!("mlockall is refused ({errno})"))
}

/// Two for a child, one for a client.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Below the hard limit this needs no privilege.
    let _ = setrlimit(Resource::Nofile, raised);
}
