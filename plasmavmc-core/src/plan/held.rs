//! What is not moved and not started after the cluster was recovered from the loss of its majority.
//!
//! What is stored is then what one member knew. The hosts that were lost may run VMs, and some that were never heard of
//! here, until somebody who can see them says that they are off: by taking them out of the cluster.
//!
//! Must never: take the silence of a lost host, or what it said last, for the end of what it runs.

use plasmavmc_types::{VmId, VmRecord};

use super::Planning;
use crate::view::{ClusterView, VmView};
use crate::visible::is_unconfirmed;

impl Planning<'_> {
    /// Why a VM stays as it is, if it has to.
    pub(super) fn held_back(&self, vm: &VmView, record: &VmRecord) -> Option<String> {
        held_back(self.view, vm, record)
    }

    /// The same, and says so.
    pub(super) fn is_held_back(&mut self, id: VmId, vm: &VmView, record: &VmRecord) -> bool {
        let Some(text) = self.held_back(vm, record) else {
            return false;
        };
        if super::is_wanted_on(record) {
            self.note_waiting(id, vm, text, Vec::new());
        }
        true
    }
}

fn held_back(view: &ClusterView, vm: &VmView, record: &VmRecord) -> Option<String> {
    let host = match &vm.placement {
        Some(placement) => Some(placement.value.host).filter(|host| is_unconfirmed(view, *host)),
        // Where it is to run may have been decided by those who were lost.
        None if record.created_at_ms() < view.recovery.at_ms => {
            view.hosts.keys().copied().find(|host| is_unconfirmed(view, *host))
        }
        None => None,
    }?;
    let name = view.host_name(host);
    Some(format!(
        "host {name} was lost when the cluster was recovered, and may run it: once it is off, take it out with \
         'plasmavmc cluster remove {name} --dead'"
    ))
}
