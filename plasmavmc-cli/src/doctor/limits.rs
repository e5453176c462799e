//! How much this process, and so a server started the same way, may use.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::{Finding, Verdict};

/// A VM costs a server about eight descriptors, and there may be hundreds.
const DESCRIPTORS: u64 = 8192;
/// A QEMU has a few threads.
const PROCESSES: u64 = 4096;

pub fn findings() -> Vec<Finding> {
    vec![
        at_least(
            "open files",
            getrlimit(Resource::Nofile),
            DESCRIPTORS,
            "LimitNOFILE=1048576 in the unit; ulimit -Hn",
        ),
        at_least(
            "processes",
            getrlimit(Resource::Nproc),
            PROCESSES,
            "TasksMax=infinity in the unit; ulimit -Hu",
        ),
        core_size(getrlimit(Resource::Core)),
    ]
}

/// The hard limit counts: a server raises its own up to it.
fn at_least(check: &str, limit: Rlimit, needed: u64, remedy: &str) -> Finding {
    match limit.maximum {
        None => Finding::good(check, "no limit"),
        Some(maximum) if maximum >= needed => Finding::good(check, format!("up to {maximum}")),
        Some(maximum) => {
            let says = format!("at most {maximum}; {needed} are needed for a few hundred VMs");
            Finding::new(check, Verdict::Warning, says).with(remedy)
        }
    }
}

/// A core of a QEMU is as large as its guest's memory.
fn core_size(limit: Rlimit) -> Finding {
    let check = "core dumps";
    match limit.current {
        Some(0) => Finding::good(check, "off"),
        _ => Finding::new(
            check,
            Verdict::Note,
            "on: a QEMU that crashes may write as much as its guest's memory",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_counts() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(at_least("x", limit(Some(1024), None), 8192, "").verdict, Verdict::Good);
        assert_eq!(
            at_least("x", limit(Some(1024), Some(8192)), 8192, "").verdict,
            Verdict::Good
        );
        assert_eq!(
            at_least("x", limit(Some(1024), Some(8191)), 8192, "").verdict,
            Verdict::Warning
        );
    }
}
