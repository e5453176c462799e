//! One host: its QEMU, which outlives its server, and the server, which knows what it was told.

use plasmavmc_types::{AgentHealth, AttemptId, PauseCause};

use super::super::*;
use crate::change::Change;
use crate::view::ClusterView;

/// A process, as it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qemu {
    pub attempt: AttemptId,
    pub observed: Observed,
    pub agent: AgentHealth,
}

impl Qemu {
    pub fn lives(&self) -> bool {
        !matches!(self.observed, Observed::Gone(_))
    }
}

/// A transaction that a server has sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub change: Change,
    /// What the store said, once it was there.
    pub outcome: Option<Option<u64>>,
}

/// What a server does with its machine.
#[derive(Debug, Clone)]
pub enum Work {
    Launch(AttemptId),
    Cont,
    Leave(AttemptId),
    Kill,
    Order(Box<Ordered>),
}

#[derive(Debug, Clone)]
pub struct Server {
    pub view: ClusterView,
    pub session: Option<OwnSession>,
    pub local: Local,
    pub writing: Option<Sent>,
    pub work: Option<Work>,
    pub looks_at_ms: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Site {
    pub number: u32,
    /// The last process here. One that is gone stays until somebody clears it away.
    pub qemu: Option<Qemu>,
    pub server: Option<Server>,
    pub down_since_ms: u64,
}

impl Site {
    pub fn living(&self) -> Option<&Qemu> {
        self.qemu.as_ref().filter(|qemu| qemu.lives())
    }

    /// The process becomes something else, if it lives.
    pub fn becomes(&mut self, observed: Observed) {
        if let Some(qemu) = self.qemu.as_mut().filter(|qemu| qemu.lives()) {
            qemu.observed = observed;
            if observed != Observed::Running {
                qemu.agent = AgentHealth::NotAsked;
            }
        }
    }

    /// What the server sees of it, if it has taken it over.
    pub fn machine(&self) -> Option<Machine> {
        let qemu = self.qemu?;
        Some(Machine {
            attempt: qemu.attempt,
            observed: qemu.observed,
            leased: false,
            process: qemu.lives().then(crate::samples::process),
            qemu: None,
            agent: qemu.agent,
            conditions: Vec::new(),
            last_words: String::new(),
        })
    }

    /// The server sees what became of the machine it has.
    pub fn notice(&mut self) {
        let seen = self.machine();
        if let Some(server) = &mut self.server
            && let Some(machine) = &server.local.machine
            && let Some(seen) = seen.filter(|seen| seen.attempt == machine.attempt)
        {
            server.local.machine = Some(seen);
        }
    }

    /// What could not be taken over is looked at again: as when a server starts.
    pub fn look_again(&mut self) {
        let seen = self.machine();
        let Some(server) = self.server.as_mut().filter(|server| server.local.left_alone.is_some()) else {
            return;
        };
        if server.local.doing.is_none() {
            server.local.left_alone = None;
            server.local.machine = seen;
        }
    }

    /// Something happens in the guest, or to its process.
    pub fn guest(&mut self, what: u8) {
        let Some(qemu) = self.living().copied() else { return };
        let next = match (what % 8, qemu.observed) {
            (0, _) => Observed::Gone(Ended::Signal(11)),
            (1, _) => Observed::Gone(Ended::OutOfMemory),
            (2, Observed::Running) => Observed::PoweredOff,
            (2, Observed::PoweredOff) => Observed::Gone(Ended::GuestPoweredOff),
            (3, Observed::Running) => Observed::Paused(PauseCause::IoError),
            (4, Observed::Running) => Observed::Unreachable,
            (4, Observed::Unreachable) => Observed::Running,
            (5, Observed::Running) => {
                let agent = match qemu.agent {
                    AgentHealth::Responding => AgentHealth::NotResponding,
                    _ => AgentHealth::Responding,
                };
                self.qemu = Some(Qemu { agent, ..qemu });
                return;
            }
            _ => return,
        };
        self.becomes(next);
    }
}
