//! Leased VMs: frozen before the deadline, thawed on proof.
//!
//! Must never: thaw without a read that was sent after a beat of the open session counted.

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::{Consistency, Kv};
use plasmavmc_core::reconcile::{FREEZE_EARLY_MS, Holding, Observed, OwnLease};
use plasmavmc_kvm::machine::Machine;
use plasmavmc_types::{AttemptId, Epoch, HostId, Incarnation, VmId};
use tokio::time::{Instant, timeout};

use super::Vms;
use super::work::News;
use crate::agent::prepare::Workshop;
use crate::chain::chain;
use crate::failpoint;
use crate::store::{codec, keys};

/// For the proof.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// For QEMU to answer after it was stopped for long.
const THAW_WITHIN: Duration = Duration::from_secs(10);

impl Vms {
    /// The lease of the session that is open: one of an earlier session proves nothing about this one. Before this process
    /// knows of any, nothing is frozen for want of one: the guard holds the deadline of the process before.
    pub(super) fn own_lease(&self) -> OwnLease {
        let epoch = self.session.map(|session| session.epoch);
        let left_ms = match self.lease {
            None => FREEZE_EARLY_MS + 1,
            Some(lease) if epoch.is_none_or(|epoch| lease.epoch == epoch) => lease.left_ms(),
            Some(_) => 0,
        };
        OwnLease {
            left_ms,
            voters: *self.parts.voters.borrow(),
        }
    }

    /// When guests have to be held still, if any is leased and executes.
    pub(super) fn lease_ends(&self) -> Option<Instant> {
        let executes = self.entries.values().any(|entry| {
            let seen = entry.holding.as_ref().map(|holding| &holding.seen);
            let is_due = |seen: &&plasmavmc_core::reconcile::Machine| seen.leased && seen.observed != Observed::Frozen;
            entry.lease_work.is_none() && seen.filter(is_due).is_some_and(|seen| seen.process.is_some())
        });
        let left_ms = self.lease?.left_ms();
        let rests_ms = left_ms.saturating_sub(FREEZE_EARLY_MS);
        // Over already: once more in a moment, for those that became leased since.
        executes.then(|| Instant::now() + Duration::from_millis(rests_ms.max(20)))
    }

    pub(super) fn mark_leased(&mut self) {
        let is_leased = |entry: &super::entry::Entry| entry.holding.as_ref().is_some_and(|holding| holding.seen.leased);
        let leased = self.entries.iter().filter(|(_, entry)| is_leased(entry));
        let leased: Vec<VmId> = leased.map(|(vm, _)| *vm).collect();
        self.dirty.extend(leased);
    }

    /// The guard holds it still.
    pub(super) fn note_frozen(&mut self, vm: VmId, attempt: AttemptId) {
        let Some(machine) = self
            .entries
            .get(&vm)
            .and_then(|entry| entry.machine_of(attempt))
            .cloned()
        else {
            return;
        };
        let number = self.begin_lease_work(vm, Holding::Freezing);
        self.spawn(async move {
            let result = machine.note_frozen().await.map_err(|error| chain(&error));
            News::Held { vm, number, result }
        });
    }

    pub(super) fn freeze(&mut self, vm: VmId, machine: Machine) {
        tracing::warn!(%vm, "this host loses its lease: holding it still");
        let number = self.begin_lease_work(vm, Holding::Freezing);
        self.spawn(async move {
            let frozen = failpoint::FREEZE.around(machine.freeze()).await;
            let result = frozen.map_err(|error| chain(&error));
            News::Held { vm, number, result }
        });
    }

    pub(super) fn thaw(&mut self, vm: VmId, machine: Machine, incarnation: Incarnation, epoch: Epoch) {
        let number = self.begin_lease_work(vm, Holding::Thawing);
        let (kv, host) = (Arc::clone(&self.parts.kv), self.parts.host);
        let workshop = Arc::clone(&self.parts.workshop);
        self.spawn(async move {
            let result = prove_and_thaw(&*kv, &workshop, (vm, host, incarnation), machine, epoch).await;
            News::Held { vm, number, result }
        });
    }

    fn begin_lease_work(&mut self, vm: VmId, holding: Holding) -> u64 {
        let number = self.number();
        self.entries.entry(vm).or_default().lease_work = Some((holding, number));
        number
    }

    pub(super) fn held(&mut self, vm: VmId, number: u64, result: Result<(), String>) {
        self.dirty.insert(vm);
        let Some(entry) = self.entries.get_mut(&vm) else { return };
        if let Some(holding) = &mut entry.holding {
            holding.refresh();
        }
        let Some((what, _)) = entry.lease_work.take_if(|(_, ours)| *ours == number) else {
            return;
        };
        match (what, result) {
            (Holding::Thawing, Ok(())) => tracing::info!(%vm, "it goes on"),
            (_, Ok(())) => {}
            (_, Err(error)) => {
                tracing::warn!(%vm, error, "it stays frozen");
                self.rest(vm);
            }
        }
    }
}

/// Reads where the VM is now, and lets it go on if that is here.
async fn prove_and_thaw(
    kv: &dyn Kv,
    workshop: &Workshop,
    (vm, host, incarnation): (VmId, HostId, Incarnation),
    machine: Machine,
    epoch: Epoch,
) -> Result<(), String> {
    let read = timeout(READ_WITHIN, kv.get(keys::placement(vm), Consistency::Linearizable)).await;
    let answer = read.map_err(|_| "where it is placed could not be read in time".to_owned())?;
    let stored = answer.map_err(|error| chain(&error))?.kv;
    let Some(stored) = stored else {
        return Err("nothing is stored of its placement, which proves nothing".to_owned());
    };
    let placement = codec::decode_placement(&stored.value).map_err(|error| chain(&error))?;
    if placement.host != host || placement.incarnation != incarnation {
        return Err(format!(
            "it is placed on host {} as incarnation {}",
            placement.host, placement.incarnation
        ));
    }
    let thawed = failpoint::THAW
        .around(workshop.kvm.keeper.thaw(machine.key(), epoch))
        .await;
    thawed.map_err(|error| chain(&error))?;
    let thawed = timeout(THAW_WITHIN, machine.thaw()).await;
    let thawed = thawed.map_err(|_| "QEMU does not answer yet".to_owned())?;
    thawed.map_err(|error| chain(&error))
}
