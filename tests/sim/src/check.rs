//! What must be so, by what is true and not by what anybody knows.
//!
//! ```text
//!   after every step   I1: of one VM at most one QEMU executes, none of an incarnation below one that has executed
//!   at every commit    I5: no reassignment of a claimed VM without a fence or its owner's word
//!                      I6: one writer for each key, everything written is compared
//!                      epochs, incarnations and beats only go up; the owner's word that nothing runs is true
//!   at every fence     a host whose last beat is older than every process that lives had its time to come
//!   at every kill      there is proof
//!   at every thaw      the VM is still this host's, in the store, now
//!   at the end         what is wanted runs
//! ```
//! Must never: use what the sides believe where the truth is at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plasmavmc_core::change::{Change, Put};
use plasmavmc_core::view::ClusterView;
use plasmavmc_core::visible::{has_lost_host, runs_nowhere};
use plasmavmc_types::{HostId, Incarnation, ObservedState, PowerWanted, SessionState, VmId};

mod cold;

use crate::host::Run;
use crate::store::{By, Txn};
use crate::world::World;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub at_ms: u64,
    pub rule: &'static str,
    pub text: String,
}

#[derive(Debug, Clone, Default)]
pub struct Checker {
    pub violations: Vec<Violation>,
    /// The highest incarnation that has executed.
    pub executed: BTreeMap<VmId, Incarnation>,
    /// VMs whose creation was acknowledged, and those whose deletion was asked for.
    pub acknowledged: BTreeSet<VmId>,
    pub deleted: BTreeSet<VmId>,
    /// When the last beat of each host was committed.
    pub beats: BTreeMap<HostId, u64>,
    /// Servers that have ended: from when to when they lived.
    pub ended: Vec<(u64, u64)>,
}

impl World {
    pub fn violated(&mut self, rule: &'static str, text: String) {
        let at_ms = self.now_ms;
        self.fact(|| format!("VIOLATION {rule}: {text}"));
        self.check.violations.push(Violation { at_ms, rule, text });
    }

    pub fn check_now(&mut self) {
        let mut found = Vec::new();
        let mut executing: BTreeMap<VmId, (usize, Incarnation)> = BTreeMap::new();
        for site in self.sites.iter().filter(|site| site.powered && !site.paused) {
            for (vm, qemu) in site.qemus.iter().filter(|(_, qemu)| qemu.executes()) {
                if let Some((other, _)) = executing.insert(*vm, (site.index, qemu.incarnation)) {
                    found.push((
                        "I1",
                        format!("{vm} executes on {} and on {}", self.sites[other].name, site.name),
                    ));
                }
                let highest = self.check.executed.entry(*vm).or_insert(qemu.incarnation);
                if qemu.incarnation < *highest {
                    let text = format!("{vm} executes as incarnation {}, after {highest}", qemu.incarnation);
                    found.push(("incarnations only go up", text));
                }
                *highest = (*highest).max(qemu.incarnation);
            }
        }
        for (rule, text) in found {
            self.violated(rule, text);
        }
        self.check_locks();
    }

    /// The lock of a disk is held once.
    fn check_locks(&mut self) {
        let mut held: BTreeMap<VmId, usize> = BTreeMap::new();
        for site in self.sites.iter().filter(|site| site.powered) {
            for (vm, _) in site.qemus.iter().filter(|(_, qemu)| qemu.shared && qemu.lives()) {
                *held.entry(*vm).or_default() += 1;
            }
        }
        if let Some((vm, count)) = held.into_iter().find(|(_, count)| *count > 1) {
            self.violated("one lock", format!("{count} QEMUs have the disk of {vm}"));
        }
    }

    /// What a step function returned, before it goes anywhere.
    pub fn check_change(&mut self, change: &Change) {
        let unguarded = change.unguarded();
        if !unguarded.is_empty() {
            self.violated("I6", format!("written without a compare: {unguarded:?}"));
        }
    }

    /// A transaction that holds, at the moment when it becomes true.
    pub fn check_commit(&mut self, before: &Arc<ClusterView>, txn: &Txn, _revision: u64) {
        self.check_session(before, txn);
        if let Some((host, _)) = &txn.beat {
            self.check.beats.insert(*host, self.now_ms);
        }
        for put in &txn.change.puts {
            match put {
                Put::Placement(vm, placement) => self.check_placement(before, txn, *vm, placement),
                Put::Status(vm, status) => self.check_status(before, txn, *vm, status),
                Put::Session(host, session) => {
                    let was_open = before.hosts.get(host).and_then(|host| host.session.as_ref());
                    let is_fence = matches!(txn.by, By::Controller(_)) && session.state == SessionState::Fenced;
                    if !is_fence || was_open.is_none_or(|was| was.value.epoch != session.epoch) {
                        self.violated("one writer", format!("a session was written by {:?}", txn.by));
                    }
                    self.note_fence(*host);
                    self.check_cold(txn.by, *host);
                }
                Put::VmRecord(_) | Put::HostRecord(_) | Put::Operation(_) => {}
            }
        }
    }

    fn check_session(&mut self, before: &ClusterView, txn: &Txn) {
        if let Some((host, session)) = &txn.opens {
            let stored = before.hosts.get(host).and_then(|host| host.session.as_ref());
            if stored.is_some_and(|stored| stored.value.epoch >= session.epoch) {
                self.violated(
                    "epochs only go up",
                    format!("{} opens again: {stored:?}", session.epoch),
                );
            }
            let By::Heart(site) = txn.by else { return };
            let me = &self.sites[site];
            let mine = (me.instance, me.boot);
            let is_open = stored.is_some_and(|stored| stored.value.is_open());
            let own = stored.map(|stored| (stored.value.instance, stored.value.boot_id));
            let was_own = own.is_some_and(|own| own == mine || me.past.contains(&own)) && !me.is_clone;
            if is_open && !was_own {
                self.violated(
                    "one writer",
                    "another instance opened a session that was not fenced".to_owned(),
                );
            }
        } else if let (Some((host, beat)), By::Heart(_)) = (&txn.beat, txn.by) {
            let stored = before.hosts.get(host).and_then(|host| host.session.as_ref());
            if !stored.is_some_and(|stored| beat.belongs_to(&stored.value)) {
                self.violated("one writer", "a beat counted outside its session".to_owned());
            }
        }
    }

    fn check_placement(&mut self, before: &ClusterView, txn: &Txn, vm: VmId, placement: &plasmavmc_types::Placement) {
        if !matches!(txn.by, By::Controller(_)) {
            self.violated("one writer", format!("{:?} placed {vm}", txn.by));
        }
        let Some(known) = before.vms.get(&vm) else { return };
        let Some(was) = &known.placement else { return };
        if placement.incarnation <= was.value.incarnation {
            let text = format!(
                "{vm} placed as {} after {}",
                placement.incarnation, was.value.incarnation
            );
            self.violated("incarnations only go up", text);
        }
        let Some(status) = known.current_status() else { return };
        let session = before.hosts.get(&was.value.host).and_then(|host| host.session.as_ref());
        let is_fenced = session.is_some_and(|session| !session.value.is_open());
        let is_allowed = runs_nowhere(known) || has_lost_host(before, known) || (is_fenced && status.value.leased);
        if !is_allowed {
            self.violated(
                "I5",
                format!(
                    "{vm} was reassigned; fenced: {is_fenced}, leased: {}",
                    status.value.leased
                ),
            );
        }
        if is_fenced && !runs_nowhere(known) {
            self.counts.failovers += 1;
        }
    }

    fn check_status(&mut self, before: &ClusterView, txn: &Txn, vm: VmId, status: &plasmavmc_types::VmStatus) {
        let By::Agent(site) = txn.by else {
            return self.violated("one writer", format!("{:?} wrote the status of {vm}", txn.by));
        };
        let host = self.sites[site].host;
        let placement = before.vms.get(&vm).and_then(|vm| vm.placement.as_ref());
        let is_own = placement.is_some_and(|at| at.value.host == host && at.value.incarnation == status.incarnation);
        if !is_own {
            self.violated(
                "I6",
                format!(
                    "{} wrote the status of {vm}, which is not its own",
                    self.sites[site].name
                ),
            );
        }
        let session = before.hosts.get(&host).and_then(|host| host.session.as_ref());
        // A write of an earlier boot may arrive while its session still stands.
        let me = &self.sites[site];
        let is_mine = |session: &plasmavmc_types::Session| {
            session.is_open()
                && (session.instance == me.instance || me.past.contains(&(session.instance, session.boot_id)))
        };
        if !session.is_some_and(|session| is_mine(&session.value)) {
            let name = me.name.clone();
            self.violated("I6", format!("{name} wrote the status of {vm} outside its session"));
        }
        let is_over = matches!(status.state, ObservedState::Stopped | ObservedState::Failed { .. });
        let lives = self.sites[site]
            .living(vm)
            .is_some_and(|qemu| qemu.attempt == status.attempt);
        if is_over && lives {
            self.violated(
                "the owner's word",
                format!("{vm} was said to run nowhere, and its process lives"),
            );
        }
        let old = before.vms.get(&vm).and_then(|vm| vm.current_status());
        if let Some(old) = old.filter(|old| old.value.attempt == status.attempt && old.value.leased && !status.leased) {
            self.violated(
                "leases stay",
                format!("{vm}: the lease of {} was withdrawn", old.value.attempt),
            );
        }
        let is_claim = old.is_none_or(|old| old.value.attempt != status.attempt);
        let executes = self.sites[site].qemus.get(&vm).is_some_and(|qemu| qemu.executes());
        if is_claim && executes && self.sites[site].powered {
            self.violated(
                "one attempt",
                format!("{vm} was claimed anew while it executes on its host"),
            );
        }
    }

    /// A QEMU is killed though nobody ordered it: somebody else has the VM, or it was deleted.
    pub fn check_kill(&mut self, site: usize, vm: VmId, why: &str) {
        let Some(qemu) = self.sites[site].qemus.get(&vm).copied() else {
            return;
        };
        let host = self.sites[site].host;
        let view = self.store.newest().clone();
        let Some(known) = view.vms.get(&vm) else { return };
        let is_deleted = known.record.as_ref().is_none_or(|record| record.value.is_deleted());
        let placement = known.placement.as_ref().map(|placement| placement.value);
        let is_moved = placement.is_none_or(|at| at.host != host || at.incarnation > qemu.incarnation);
        let is_claimed = known
            .status
            .as_ref()
            .is_some_and(|status| status.value.attempt != qemu.attempt);
        if !(is_deleted || is_moved || is_claimed) {
            self.violated(
                "kill without proof",
                format!("{vm} on {} ({why})", self.sites[site].name),
            );
        }
    }

    pub fn check_thaw(&mut self, site: usize, vm: VmId) {
        let (local, host) = (self.local_ms(site), self.sites[site].host);
        let view = self.store.newest().clone();
        let Some(qemu) = self.sites[site].qemus.get(&vm).copied() else {
            return;
        };
        let placement = view
            .vms
            .get(&vm)
            .and_then(|vm| vm.placement.as_ref())
            .map(|placement| placement.value);
        if !placement.is_some_and(|at| at.host == host && at.incarnation == qemu.incarnation) {
            let name = self.sites[site].name.clone();
            self.violated("thaw without proof", format!("{vm} on {name} is placed {placement:?}"));
        }
        let is_ahead = self.sites[site]
            .guard
            .as_ref()
            .is_some_and(|guard| guard.deadman.may_thaw(local));
        if !is_ahead {
            self.violated("thaw without proof", format!("{vm}: the deadline has passed"));
        }
    }

    fn note_fence(&mut self, host: HostId) {
        self.counts.fences += 1;
        let leader = self.store.leader;
        let is_well = self.sites.iter().any(|site| {
            let hears = leader.is_some_and(|leader| self.connected(leader, site.index));
            site.host == host && !site.is_clone && site.is_up() && hears
        });
        if is_well {
            self.counts.false_fences += 1;
        }
    }

    /// What keeps the cluster from being as it is wanted; nothing: it is.
    pub fn unsettled(&self) -> Vec<String> {
        let view = self.store.newest();
        let mut missing = Vec::new();
        for (vm, known) in &view.vms {
            let Some(record) = &known.record else { continue };
            let name = self.vm_name(*vm);
            let running: Vec<&crate::host::Site> = self.sites.iter().filter(|site| site.executes(*vm)).collect();
            let living = self.sites.iter().filter(|site| site.living(*vm).is_some()).count();
            let status = known.current_status().map(|status| &status.value);
            let state = status.map(|status| &status.state);
            let is_on = record.value.power() == PowerWanted::On && !record.value.is_deleted();
            if !is_on {
                if living > 0 || record.value.is_deleted() {
                    missing.push(format!("{name} is wanted off, and {living} of it live"));
                }
                continue;
            }
            let is_paused = self.sites.iter().any(|site| {
                site.qemus
                    .get(vm)
                    .is_some_and(|qemu| matches!(qemu.run, Run::Paused(_)) && !qemu.freeze_mark && !qemu.stopped)
            });
            if matches!(state, Some(ObservedState::Failed { .. })) || is_paused {
                continue;
            }
            let is_so = running.len() == 1
                && living == 1
                && state == Some(&ObservedState::Running)
                && known
                    .placement
                    .as_ref()
                    .is_some_and(|at| at.value.host == running[0].host);
            if !is_so {
                let at = known.placement.as_ref().map(|at| self.host_name(at.value.host));
                missing.push(format!(
                    "{name}: {} execute, {living} live, placed on {at:?}, {state:?}",
                    running.len()
                ));
            }
        }
        missing
    }

    /// What was acknowledged and not deleted is still there.
    pub fn check_lost(&mut self) {
        let view = self.store.newest().clone();
        let lost = |vm: &&VmId| view.vms.get(vm).is_none_or(|vm| vm.record.is_none());
        let kept = self.check.acknowledged.difference(&self.check.deleted);
        let lost: Vec<VmId> = kept.filter(lost).copied().collect();
        for vm in lost {
            self.violated("nothing is lost", format!("{vm} was acknowledged, and is no more"));
        }
    }
}
