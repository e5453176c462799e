//! What the controller does: on the leader, whenever something has changed and twice a second.
//!
//! ```text
//!   finish    operations that nobody else will end
//!   fence     hosts that are silent for too long
//!   failover  what ran leased on a host that was fenced
//!   forget    what was deleted and can no longer run
//!   held      what was known before the cluster was recovered, and may run on a host that was lost
//!   place     what is wanted on and is nowhere
//!   moves     what is stopped on a host that cannot start it, or is being emptied
//!   notes     why something waits
//!   garbage   operations that were kept long enough
//! ```
//! Each action is one transaction that compares all it was decided on, and carries the decision with its evidence.
//! A plan never touches one thing twice; after all of it was carried out, the next plan is empty.
//!
//! Must never: move a VM that may run (only its owner's word that nothing does, that it was never claimed, or that it
//! was leased and its host is fenced); act on a fence that is not stored yet; write what it did not compare; decide
//! differently on the same view.

mod evidence;
mod failover;
mod fence;
mod finish;
mod forget;
mod garbage;
mod held;
mod moves;
mod notes;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_types::{Decision, HostId, Operation, OperationId, OperationKind, PowerWanted, VmId, VmRecord};

use crate::change::{Change, OPERATIONS_AT_ONCE};
use crate::placement::{Loads, Roll};
use crate::view::{ClusterView, Heard, Stored, VmView};

/// The kind of a decision to wait.
pub const WAIT: &str = "wait";

/// One thing for the controller to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAction {
    pub kind: ControlKind,
    pub vm: Option<VmId>,
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlKind {
    /// A silent host loses its right to write, and to thaw.
    Fence,
    Place,
    /// On another host, since nothing of it runs on the one where it is.
    Replace,
    /// On another host, since the one where it is gave it up.
    Retry,
    /// On another host, since it was leased and the one where it is was fenced.
    Failover,
    Forget,
    FinishOperation,
    NoteWaiting,
    CollectGarbage,
}

impl ControlKind {
    pub const fn word(self) -> &'static str {
        match self {
            ControlKind::Fence => "fence",
            ControlKind::Failover => "failover",
            ControlKind::Place => "place",
            ControlKind::Replace => "relocate",
            ControlKind::Retry => "retry-elsewhere",
            ControlKind::Forget => "forget",
            ControlKind::FinishOperation => "finish",
            ControlKind::NoteWaiting => WAIT,
            ControlKind::CollectGarbage => "collect",
        }
    }
}

/// What is to be done now. `now_ms` is the wall clock, for deadlines and pauses.
pub fn plan(view: &ClusterView, heard: &Heard, now_ms: u64) -> Vec<ControlAction> {
    let mut planning = Planning::of(view, heard, now_ms);
    planning.fence_silent();
    planning.forget_deleted();
    planning.finish_operations();
    planning.fail_over();
    planning.place_all();
    planning.move_stopped();
    planning.collect_garbage();
    planning.actions
}

/// A plan in the making.
struct Planning<'a> {
    view: &'a ClusterView,
    heard: &'a Heard,
    now_ms: u64,
    /// What has not ended, oldest first.
    open: BTreeMap<VmId, Vec<&'a Stored<Operation>>>,
    /// The newest decision about each VM.
    newest: BTreeMap<VmId, &'a Decision>,
    loads: Loads,
    roll: Roll<'a>,
    /// Operations that an action of this plan writes already.
    touched: BTreeSet<OperationId>,
    actions: Vec<ControlAction>,
}

impl<'a> Planning<'a> {
    fn of(view: &'a ClusterView, heard: &'a Heard, now_ms: u64) -> Self {
        let mut open = BTreeMap::<VmId, Vec<&Stored<Operation>>>::new();
        for operation in view.operations.values().filter(|operation| !operation.value.is_ended()) {
            open.entry(operation.value.vm).or_default().push(operation);
        }
        for operations in open.values_mut() {
            operations.sort_by_key(|operation| (operation.value.created_at_ms, operation.value.id));
        }
        let about = |decision: &'a Stored<Decision>| Some((decision.value.vm?, &decision.value));
        Self {
            view,
            heard,
            now_ms,
            open,
            newest: view.decisions.values().filter_map(about).collect(),
            loads: Loads::of(view),
            roll: Roll::of(view, heard),
            touched: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    fn act(&mut self, kind: ControlKind, vm: Option<VmId>, change: Change) {
        self.actions.push(ControlAction { kind, vm, change });
    }

    fn decision(&self, kind: ControlKind, vm: VmId, host: Option<HostId>, text: String) -> Decision {
        Decision {
            at_ms: self.now_ms,
            kind: kind.word().to_owned(),
            vm: Some(vm),
            host,
            text,
            evidence: Vec::new(),
        }
    }

    /// The operations that wait for this VM to start, and that this plan has not touched yet: as many as one
    /// transaction takes.
    fn starts_of(&self, vm: VmId) -> Vec<&'a Stored<Operation>> {
        let open = self.open.get(&vm).into_iter().flatten().copied();
        open.filter(|operation| starts(operation.value.kind) && !self.touched.contains(&operation.value.id))
            .take(OPERATIONS_AT_ONCE)
            .collect()
    }

    /// Whether a host carries out an order at this VM.
    fn is_being_ordered(&self, vm: VmId) -> bool {
        let mut open = self.open.get(&vm).into_iter().flatten();
        open.any(|operation| operation.value.kind.is_order() && operation.value.runner.is_some())
    }
}

fn starts(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Create | OperationKind::Start)
}

/// The record of a VM that exists and was not deleted.
fn living(vm: &VmView) -> Option<&Stored<VmRecord>> {
    vm.record.as_ref().filter(|record| !record.value.is_deleted())
}

fn is_wanted_on(record: &VmRecord) -> bool {
    record.power() == PowerWanted::On && !record.is_deleted()
}

#[cfg(test)]
mod tests;
