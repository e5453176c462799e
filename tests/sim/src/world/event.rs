//! What may be due.

use plasmavmc_types::{AttemptId, Epoch, VmId};

use super::elders::Question;
use crate::outside::Outside;
use crate::store::Outcome;

/// What a server orders its guard: to let a guest go on, as far as the lease of that epoch goes.
#[derive(Debug, Clone, Copy)]
pub struct ThawOrder {
    pub vm: VmId,
    pub life: u64,
    pub number: u64,
    pub epoch: Epoch,
    pub attempt: AttemptId,
}

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    Raft,
    Arrive(u64),
    Commit(u64),
    Answered {
        proposal: u64,
        outcome: Outcome,
    },
    Apply {
        site: usize,
        life: u64,
        upto: usize,
    },
    ReadArrive(u64),
    ReadConfirm(u64),
    ReadAnswer {
        read: u64,
        index: usize,
    },
    StartServer {
        site: usize,
    },
    Ready {
        site: usize,
        life: u64,
        index: usize,
    },
    Beat {
        site: usize,
        life: u64,
    },
    GiveUpAnswer {
        site: usize,
        life: u64,
        number: u64,
    },
    Tick {
        site: usize,
        life: u64,
    },
    Look {
        site: usize,
        life: u64,
    },
    GiveUpWrite {
        site: usize,
        life: u64,
        vm: VmId,
        number: u64,
    },
    Work {
        site: usize,
        life: u64,
        vm: VmId,
        number: u64,
    },
    Frozen {
        site: usize,
        vm: VmId,
        life: u64,
        number: u64,
    },
    ThawOrder {
        site: usize,
        order: ThawOrder,
    },
    GiveUpThaw {
        site: usize,
        vm: VmId,
        life: u64,
        number: u64,
    },
    PowersOff {
        site: usize,
        vm: VmId,
        attempt: AttemptId,
    },
    Control {
        site: usize,
        life: u64,
        term: u64,
    },
    Plan {
        site: usize,
        life: u64,
        round: u64,
        index: usize,
    },
    EndRound {
        site: usize,
        life: u64,
        round: u64,
    },
    Listen {
        site: usize,
        life: u64,
    },
    Listens {
        site: usize,
        life: u64,
        index: usize,
        revision: u64,
    },
    AskElders {
        site: usize,
        life: u64,
        term: u64,
    },
    ElderAsked(Question),
    ElderSays {
        question: Question,
        revision: u64,
    },
    StartGuard {
        site: usize,
    },
    GuardTick {
        site: usize,
        life: u64,
    },
    GuardKills {
        site: usize,
        vm: VmId,
        attempt: AttemptId,
    },
    Outside(Outside),
}

impl Event {
    /// The host that this happens on, if it waits while that host is paused.
    pub(super) fn site(&self) -> Option<usize> {
        match self {
            Event::Apply { site, .. }
            | Event::Ready { site, .. }
            | Event::Beat { site, .. }
            | Event::GiveUpAnswer { site, .. }
            | Event::Tick { site, .. }
            | Event::Look { site, .. }
            | Event::GiveUpWrite { site, .. }
            | Event::Work { site, .. }
            | Event::Frozen { site, .. }
            | Event::ThawOrder { site, .. }
            | Event::GiveUpThaw { site, .. }
            | Event::PowersOff { site, .. }
            | Event::Control { site, .. }
            | Event::Plan { site, .. }
            | Event::EndRound { site, .. }
            | Event::Listen { site, .. }
            | Event::Listens { site, .. }
            | Event::AskElders { site, .. }
            | Event::ElderAsked(Question { to: site, .. })
            | Event::ElderSays {
                question: Question { from: site, .. },
                ..
            }
            | Event::StartGuard { site }
            | Event::StartServer { site }
            | Event::GuardTick { site, .. }
            | Event::GuardKills { site, .. } => Some(*site),
            _ => None,
        }
    }
}
