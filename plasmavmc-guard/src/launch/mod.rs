//! From an order to a process, without the guard waiting for anything.
//!
//! The guard never forks itself into a QEMU. It starts its own program a second time, as a *launcher*, which
//! may hang on a slow log folder or a dead mount without anybody else noticing. The launcher becomes the
//! program by exec, so its pid, start time and parent are the child's from the beginning:
//!
//! ```text
//!   guard                                 launcher (stdin is a socket to the guard)
//!     | order, descriptors ------------------> |  session, limits, cgroup, folder, log, descriptors,
//!     |                                        |  user, death signal
//!     | <------------------------- prepared    |  (or: failed at this step, errno)
//!     |  writes the record                     |  waits
//!     | go ----------------------------------> |
//!     | <--------- socket closed by exec       |  executes the program (or: failed, errno)
//! ```
//!
//! Must never happen: a program executed that has no record. The launcher executes on the word "go" alone,
//! and the guard says it after the record is in place; if the guard dies before, the socket closes and the
//! launcher ends.

mod descriptors;
mod launcher;
mod start;
mod steps;

use plasmavmc_types::VmId;
use rustix::process::{Resource, Rlimit, getrlimit};
use serde::{Deserialize, Serialize};

use crate::records::CgroupMark;
use crate::wire::{SpawnOrder, Step};

pub use launcher::run;
pub use start::{Launch, PATIENCE, Progress, Started, start};

/// The word on the command line that makes this program a launcher.
pub const COMMAND: &str = "launch";

/// The arguments after the program's name. The VM's id makes the launcher recognisable, as its program will be.
fn arguments(vm: VmId) -> [String; 2] {
    [COMMAND.to_owned(), vm.to_string()]
}

#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    order: SpawnOrder,
    guard_pid: i32,
    limits: OriginalLimits,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToLauncher {
    Prepare(Box<Assignment>),
    Go,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromLauncher {
    Prepared(Prepared),
    Failed(Failure),
}

/// What a launcher found out on its way.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Prepared {
    pub notes: Vec<String>,
    pub cgroup: Option<CgroupMark>,
}

/// Where a launch ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub step: Step,
    pub errno: Option<i32>,
    pub problem: String,
}

/// The limits the guard was started with. It raises its own and gives these to its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalLimits {
    open_files: Pair,
    locked_memory: Pair,
}

/// A soft and a hard limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    soft: Option<u64>,
    hard: Option<u64>,
}

impl OriginalLimits {
    /// Those of this process now: to be read before it changes any.
    pub fn read() -> Self {
        let read = |resource| {
            let limit = getrlimit(resource);
            Pair {
                soft: limit.current,
                hard: limit.maximum,
            }
        };
        Self {
            open_files: read(Resource::Nofile),
            locked_memory: read(Resource::Memlock),
        }
    }
}

impl From<Pair> for Rlimit {
    fn from(pair: Pair) -> Self {
        Self {
            current: pair.soft,
            maximum: pair.hard,
        }
    }
}
