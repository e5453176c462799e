//! Which VMs a change of the store is about.

use std::sync::Arc;

use plasmavmc_core::reconcile::{Observed, OwnSession};
use plasmavmc_types::VmId;
use tokio::sync::watch;

use super::Vms;
use super::entry::Entry;
use crate::agent::beat::BeatState;
use crate::store::{Change, ParsedKey, StoredValue};

impl Vms {
    pub(super) fn note_changes(&mut self, batch: &[Change]) {
        let mut is_about_vms = false;
        for change in batch {
            match &change.key {
                ParsedKey::VmRecord(vm) | ParsedKey::Placement(vm) | ParsedKey::Status(vm) => {
                    self.dirty.insert(*vm);
                    is_about_vms = true;
                    if is_last_of(change) {
                        let (workshop, vm) = (Arc::clone(&self.parts.workshop), *vm);
                        self.tasks.spawn(async move { workshop.forget(vm).await });
                    }
                }
                ParsedKey::Operation(_) => {
                    let operations = [&change.before, &change.after].into_iter().flatten();
                    self.dirty.extend(operations.filter_map(vm_of));
                }
                ParsedKey::HostRecord(host) | ParsedKey::Session(host) if *host == self.parts.host => self.mark_all(),
                _ => {}
            }
        }
        if is_about_vms {
            self.dirty.extend(&self.waiting);
        }
    }

    pub(super) fn note_contact(&mut self, contact: &watch::Receiver<BeatState>) {
        let session = contact.borrow().held.map(|held| OwnSession {
            epoch: held.epoch(),
            revision: held.revision,
        });
        let lease = contact.borrow().lease;
        if lease != self.lease {
            self.lease = lease;
            self.mark_frozen();
        }
        if session != self.session {
            self.session = session;
            self.mark_all();
        }
    }

    /// What waits for a lease to go on.
    fn mark_frozen(&mut self) {
        let is_frozen = |entry: &Entry| {
            let seen = entry.holding.as_ref().map(|holding| holding.seen.observed);
            seen == Some(Observed::Frozen)
        };
        let frozen = self.entries.iter().filter(|(_, entry)| is_frozen(entry));
        let frozen: Vec<VmId> = frozen.map(|(vm, _)| *vm).collect();
        self.dirty.extend(frozen);
    }

    /// Everything that is here, or should be.
    pub(super) fn mark_all(&mut self) {
        let host = self.parts.host;
        let placed: Vec<VmId> = self.parts.mirror.read(|view| {
            let vms = view.vms.iter();
            let here = vms.filter(|(_, vm)| vm.placement.as_ref().is_some_and(|at| at.value.host == host));
            here.map(|(vm, _)| *vm).collect()
        });
        self.dirty.extend(placed);
        self.dirty.extend(self.entries.keys());
    }
}

/// A tombstone goes when nothing of its VM can run any more. A record that is merely missing proves nothing.
fn is_last_of(change: &Change) -> bool {
    let was_deleted = matches!(&change.before, Some(StoredValue::VmRecord(record)) if record.is_deleted());
    was_deleted && change.after.is_none() && !change.is_unreadable
}

fn vm_of(value: &StoredValue) -> Option<VmId> {
    match value {
        StoredValue::Operation(operation) => Some(operation.vm),
        _ => None,
    }
}
