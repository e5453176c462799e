//! What a decision rests on, in words, each fact with the revision it was read at.

use plasmavmc_types::{HostId, PowerWanted};

use super::Planning;
use crate::placement::{Asked, Verdict};
use crate::view::VmView;
use crate::visible::seconds;

/// More would only fill the store: a person looks at the first ones.
const MAX_HOSTS: usize = 16;

impl Planning<'_> {
    pub(super) fn facts_of_vm(&self, vm: &VmView) -> Vec<String> {
        let mut facts = Vec::new();
        if let Some(record) = &vm.record {
            let (spec, revision) = (record.value.spec(), record.revision);
            let power = match (record.value.is_deleted(), record.value.power()) {
                (true, _) => "deleted",
                (false, PowerWanted::On) => "wanted on",
                (false, PowerWanted::Off) => "wanted off",
            };
            let (vcpus, memory_mb, generation) = (spec.vcpus, spec.memory_mb, record.value.generation());
            facts.push(format!(
                "VM: {power}, generation {generation}, {vcpus} vcpus, {memory_mb} MB (revision {revision})"
            ));
        }
        match &vm.placement {
            None => facts.push("it is placed nowhere".to_owned()),
            Some(placement) => {
                let (host, revision) = (self.view.host_name(placement.value.host), placement.revision);
                let incarnation = placement.value.incarnation;
                facts.push(format!(
                    "placed on {host}, incarnation {incarnation} (revision {revision})"
                ));
            }
        }
        match vm.current_status() {
            Some(status) => {
                let (state, revision) = (status.value.state.vm_state(), status.revision);
                facts.push(format!("its host says: {state} (revision {revision})"));
            }
            None if vm.placement.is_some() => facts.push("its host has not claimed it".to_owned()),
            None => {}
        }
        facts
    }

    pub(super) fn facts_of_host(&self, host: HostId) -> String {
        let name = self.view.host_name(host);
        let Some(known) = self.view.hosts.get(&host) else {
            return format!("host {name} does not belong to the cluster");
        };
        let mut facts = Vec::new();
        if let Some(session) = &known.session {
            facts.push(format!(
                "session {} (revision {})",
                session.value.epoch, session.revision
            ));
        }
        match self.heard.ago_ms.get(&host) {
            Some(ago_ms) => facts.push(format!("heard {} ago", seconds(*ago_ms))),
            None => facts.push("not heard".to_owned()),
        }
        if let Some(beat) = &known.beat {
            let capacity = beat.value.capacity;
            facts.push(format!("{} processors, {} MB", capacity.vcpus, capacity.memory_mb));
        }
        format!("host {name}: {}", facts.join(", "))
    }

    pub(super) fn facts_of_hosts(asked: &Asked<'_>) -> Vec<String> {
        let text = |verdict: Verdict| match verdict.fits() {
            true if verdict.dislikes > 0 => {
                let (name, dislikes, score) = (verdict.host_name, verdict.dislikes, verdict.score);
                format!("{name} fits, {dislikes} preferences not met, score {score}")
            }
            true => format!("{} fits, score {}", verdict.host_name, verdict.score),
            false => format!("{} does not: {}", verdict.host_name, verdict.reasons.join(", ")),
        };
        asked.verdicts().take(MAX_HOSTS).map(text).collect()
    }
}
