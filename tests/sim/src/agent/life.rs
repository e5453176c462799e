//! Servers that start, catch up, take over what runs, and go.

use std::collections::BTreeMap;

use crate::breaks::Break;
use crate::host::{Entry, Heart, Run, Server, Work};
use crate::ids;
use crate::store::ReadFor;
use crate::world::{Event, World};

const TICK_MS: u64 = 200;
const CATCH_UP_EVERY_MS: u64 = 600;
const APPLIED_AGAIN_MS: u64 = 10;
const GUARD_BACK_MS: u64 = 100;

impl World {
    pub fn fresh_attempt(&mut self) -> plasmavmc_types::AttemptId {
        self.attempts += 1;
        ids::attempt(self.attempts)
    }

    pub fn start_server(&mut self, site: usize) {
        if !self.sites[site].powered || self.sites[site].server.is_some() {
            return;
        }
        let (life, local) = (self.life(), self.local_ms(site));
        // The first listing, of what its own disk knows.
        let hosts = &self.store.at(self.sites[site].applied).view.hosts;
        let with_beats = hosts.iter().filter(|(_, host)| host.beat.is_some());
        let listed: BTreeMap<_, _> = with_beats.map(|(host, _)| (*host, local)).collect();
        let here = &mut self.sites[site];
        here.leader_heard_ms = self.now_ms;
        // The guard knows until when the lease lasts: a server that was only restarted freezes nobody.
        let deadman = here.guard.as_ref().map(|guard| guard.deadman).unwrap_or_default();
        let heart = Heart {
            until_ms: deadman.until_ms(),
            lease_epoch: deadman.epoch(),
            ..Heart::default()
        };
        here.server = Some(Server {
            life,
            began_ms: self.now_ms,
            listens: None,
            elders: Default::default(),
            ready: false,
            applied: here.applied,
            apply_until: here.applied,
            heard: listed,
            last_applied_ms: local,
            flowing_since_ms: local,
            quorum_ms: None,
            leads: None,
            heart,
            entries: BTreeMap::new(),
            looks_at: None,
            round: 0,
            round_waits: 0,
            in_round: false,
            controls_at: None,
            control_due: false,
        });
        let name = here.name.clone();
        let runs_vms = !here.witness;
        self.fact(|| format!("server of {name} starts"));
        self.after(10, Event::Listen { site, life });
        if runs_vms {
            self.after(1, Event::Tick { site, life });
            self.after(20, Event::Beat { site, life });
            if self.breaks(Break::NoBarrierAtStart) {
                let applied = self.sites[site].applied;
                self.after(
                    5,
                    Event::Ready {
                        site,
                        life,
                        index: applied,
                    },
                );
            }
        }
    }

    /// The process is gone; what it had begun may have happened. QEMUs and the guard run on.
    pub fn stop_server(&mut self, site: usize, why: &str) {
        let Some(server) = self.sites[site].server.take() else {
            return;
        };
        self.leader_gone(site);
        self.check.note_end(server.began_ms, self.now_ms);
        let name = self.sites[site].name.clone();
        self.fact(|| format!("server of {name} {why}"));
        let begins = self.setup.delays.random;
        for (vm, entry) in server.entries {
            let Some(work) = entry.work.filter(|_| begins && self.sites[site].powered) else {
                continue;
            };
            if self.rng.percent(50)
                && let Work::Launch { .. } = work
            {
                drop(self.spawn_qemu(site, vm, &work));
            }
        }
    }

    pub fn tick(&mut self, site: usize, life: u64) {
        let now_ms = self.now_ms;
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        let ready = server.ready;
        self.after(TICK_MS, Event::Tick { site, life });
        if !ready && now_ms / CATCH_UP_EVERY_MS != now_ms.saturating_sub(TICK_MS) / CATCH_UP_EVERY_MS {
            self.read(site, life, ReadFor::CatchUp);
        }
        if self.sites[site].guard.is_none() {
            self.after(GUARD_BACK_MS, Event::StartGuard { site });
        }
        self.look_soon(site, 1);
    }

    /// What was acknowledged before now is in the view: what runs is taken over.
    pub fn caught_up(&mut self, site: usize, life: u64, index: usize) {
        let attempts = self.attempts;
        let here = &mut self.sites[site];
        let Some(server) = here
            .server
            .as_mut()
            .filter(|server| server.life == life && !server.ready)
        else {
            return;
        };
        if server.applied < index {
            return self.after(APPLIED_AGAIN_MS, Event::Ready { site, life, index });
        }
        server.ready = true;
        let mut fresh = attempts;
        for (vm, qemu) in &here.qemus {
            fresh += 1;
            let mut entry = Entry::new(ids::attempt(fresh));
            entry.has_machine = Some(qemu.attempt);
            server.entries.insert(*vm, entry);
        }
        self.attempts = fresh;
        self.look_soon(site, 1);
    }

    /// A machine comes up: another boot, another instance.
    pub fn power_on(&mut self, site: usize, server_in_ms: u64) {
        if self.sites[site].powered {
            return;
        }
        let number = self.life();
        let random = self.setup.delays.random;
        let offset_ms = if random {
            self.rng.within((0, 3_600_000))
        } else {
            number * 1000
        };
        let here = &mut self.sites[site];
        here.past.push((here.instance, here.boot));
        here.powered = true;
        here.paused = false;
        here.instance = ids::instance(number);
        here.boot = ids::boot(number);
        here.clock.offset_ms = offset_ms;
        self.after(server_in_ms, Event::StartGuard { site });
        self.after(server_in_ms + 1, Event::StartServer { site });
    }

    /// A power cut.
    pub fn power_off(&mut self, site: usize) {
        if !self.sites[site].powered {
            return;
        }
        self.sites[site].paused = false;
        self.sites[site].powered = false;
        self.stop_server(site, "has no power");
        let here = &mut self.sites[site];
        here.guard = None;
        let qemus = std::mem::take(&mut here.qemus);
        for (vm, _) in qemus.iter().filter(|(_, qemu)| qemu.lives() && qemu.shared) {
            let held = self.rng.within(self.setup.delays.lock_expiry);
            self.pool.held_until.insert(*vm, self.now_ms + held);
        }
    }

    pub fn kill_guard(&mut self, site: usize) {
        if self.sites[site].guard.take().is_none() {
            return;
        }
        let no_guard = self.breaks(Break::NoGuard);
        for qemu in self.sites[site].qemus.values_mut() {
            if qemu.leased && qemu.lives() && !no_guard {
                qemu.stopped = true;
            }
        }
        let name = self.sites[site].name.clone();
        self.fact(|| format!("guard of {name} dies: its leased VMs are stopped by that"));
        let held = self.sites[site].qemus.values().any(|qemu| qemu.run == Run::Running);
        if held {
            self.look_soon(site, 5);
        }
    }
}
