//! The session and the beats: each beat is sent once, and the lease counts from its sending.
//!
//! Must never happen (without a break): a deadline later than the sending of a beat that counted plus the lease.

use plasmavmc_core::change::{Change, Part};
use plasmavmc_core::terms::{Granted, Terms};
use plasmavmc_core::view::{ClusterView, VmView, revision_of};
use plasmavmc_core::visible::runs_nowhere;
use plasmavmc_types::{
    Beat, BeatFields, BeatSequence, Capacity, Epoch, HostFacts, HostId, PoolName, Session, SessionState, Usage,
};

use crate::breaks::Break;
use crate::host::Held;
use crate::store::{By, Outcome, ReadFor, Reply, Sent, Txn};
use crate::world::{Event, World};

const TRY_OPEN_MS: u64 = 1000;
const OPEN_WITHIN_MS: u64 = 3000;
const BUSY_AGAIN_MS: u64 = 50;

/// What to do about the session that is stored; `Err`: wait.
enum Opening {
    GoOn,
    Open(Epoch),
    Reopen(Epoch),
    Wait,
}

impl World {
    pub fn beat_due(&mut self, site: usize, life: u64) {
        let timings = self.timings(site);
        let clock = self.sites[site].clock;
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.heart.awaits.is_some() {
            return self.after(BUSY_AGAIN_MS, Event::Beat { site, life });
        }
        let Some(held) = server.heart.held else {
            self.after(clock.real(TRY_OPEN_MS), Event::Beat { site, life });
            return self.look_to_open(site, life);
        };
        server.heart.sequence += 1;
        let sequence = server.heart.sequence;
        // A longer time between beats holds once a beat has counted that came under it.
        let beat_ms = server
            .heart
            .pace_ms
            .map_or(timings.beat_ms, |ms| ms.min(timings.beat_ms));
        self.after(clock.real(beat_ms), Event::Beat { site, life });
        self.send_beat(site, life, held, sequence, beat_ms);
    }

    /// A beat that is sent now: all that it says of time comes of one look at the timings.
    fn sending(&mut self, site: usize, life: u64, is_first: bool) -> Sent {
        let (timings, at_ms) = (self.timings(site), self.local_ms(site));
        let forgets = self.breaks(Break::ShorterAtOnce) || is_first;
        let server = self.sites[site].server_of(life);
        let granted = server
            .filter(|_| !forgets)
            .map_or(Granted::default(), |server| server.heart.granted);
        Sent {
            at_ms,
            lasts_ms: timings.freeze_after_ms,
            beat_ms: timings.beat_ms,
            terms: granted.terms(&timings, at_ms),
        }
    }

    fn send_beat(&mut self, site: usize, life: u64, held: Held, sequence: u64, beat_ms: u64) {
        let (host, sent) = (self.sites[site].host, self.sending(site, life, false));
        let session = self.own_session(site, held.epoch);
        let Some(beat) = self.make_beat(site, session, sequence, sent.terms) else {
            return;
        };
        let mut change = Change::new();
        if !self.breaks(Break::NoSessionRevision) {
            change = change.expect(Part::Session(host), held.revision);
        }
        let txn = Txn {
            beat: Some((host, beat)),
            ..Txn::of(change, By::Heart(site), "beat")
        };
        let number = self.store.number();
        if let Some(server) = self.sites[site].server_of(life) {
            server.heart.awaits = Some(number);
        }
        self.propose(site, txn, Reply::Beat { life, sent, number });
        let within = 2 * beat_ms;
        if !self.breaks(Break::NoAnswerTimeout) {
            let within = self.sites[site].clock.real(within);
            self.after(within, Event::GiveUpAnswer { site, life, number });
        } else {
            self.after(20_000, Event::GiveUpAnswer { site, life, number });
        }
    }

    pub fn own_session(&self, site: usize, epoch: Epoch) -> Session {
        Session {
            epoch,
            instance: self.sites[site].instance,
            boot_id: self.sites[site].boot,
            state: SessionState::Open,
        }
    }

    fn make_beat(&self, site: usize, session: Session, sequence: u64, terms: Terms) -> Option<Beat> {
        let here = &self.sites[site];
        let shared: Vec<PoolName> = PoolName::new("shared")
            .into_iter()
            .filter(|_| here.shared_pool)
            .collect();
        let pools = shared.iter().cloned().chain(PoolName::new("local")).collect();
        let fields = BeatFields {
            epoch: session.epoch,
            instance: session.instance,
            boot_id: session.boot_id,
            sequence: BeatSequence(sequence),
            lease_ms: terms.lease_ms,
            failover_ms: terms.failover_ms,
            capacity: Capacity {
                vcpus: 16,
                memory_mb: here.memory_mb,
            },
            usage: Usage::default(),
            facts: HostFacts {
                pools,
                shared_pools: shared,
                ..HostFacts::default()
            },
        };
        Beat::new(fields).ok()
    }

    pub fn beat_answered(&mut self, site: usize, life: u64, (sent, number): (Sent, u64), outcome: Outcome) {
        let local = self.local_ms(site);
        let (from_answer, late_counts) = (
            self.breaks(Break::DeadlineFromAnswer),
            self.breaks(Break::LateAnswerExtends),
        );
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        let is_late = server.heart.awaits != Some(number);
        let Some(held) = server.heart.held else { return };
        if is_late && !(late_counts && matches!(outcome, Outcome::Done(_))) {
            return;
        }
        if !is_late {
            server.heart.awaits = None;
        }
        match outcome {
            Outcome::Done(_) => {
                let from = if from_answer || (is_late && late_counts) {
                    local
                } else {
                    sent.at_ms
                };
                let until_ms = from + sent.lasts_ms;
                server.heart.granted.add(sent.at_ms, sent.terms);
                server.heart.pace_ms = Some(sent.beat_ms);
                if until_ms <= local {
                    return;
                }
                let had_none = server.heart.until_ms <= local;
                let had_none = had_none || server.heart.lease_epoch != Some(held.epoch);
                server.heart.until_ms = if had_none {
                    until_ms
                } else {
                    server.heart.until_ms.max(until_ms)
                };
                server.heart.lease_epoch = Some(held.epoch);
                server.heart.known_index = server.applied;
                self.extend_lease(site, held.epoch, until_ms);
                if had_none {
                    self.look_soon(site, 2);
                }
            }
            Outcome::Raced => drop(self.read(site, life, ReadFor::IsLost { epoch: held.epoch })),
            Outcome::Unknown => {}
        }
    }

    pub fn answer_given_up(&mut self, site: usize, life: u64, number: u64) {
        let retries = self.breaks(Break::BeatRetried);
        let beat_ms = self.timings(site).beat_ms;
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.heart.awaits != Some(number) {
            return;
        }
        server.heart.awaits = None;
        if let Some(held) = server.heart.held.filter(|_| retries) {
            let sequence = server.heart.sequence;
            self.send_beat(site, life, held, sequence, beat_ms);
        }
    }

    /// Whether the stored session is another one.
    pub fn lost_looked(&mut self, site: usize, life: u64, epoch: Epoch, index: usize) {
        let host = self.sites[site].host;
        let stored = self
            .store
            .at(index)
            .view
            .hosts
            .get(&host)
            .map_or(0, |host| revision_of(host.session.as_ref()));
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        let Some(held) = server.heart.held.filter(|held| held.epoch == epoch) else {
            return;
        };
        if held.revision == stored {
            return;
        }
        server.heart.held = None;
        server.heart.awaits = None;
        server.heart.index_before = server.heart.known_index;
        let name = self.sites[site].name.clone();
        self.detail(|| format!("{name} has lost its session {epoch}"));
        self.look_to_open(site, life);
        self.look_soon(site, 2);
    }

    fn look_to_open(&mut self, site: usize, life: u64) {
        let number = self.read(site, life, ReadFor::Open);
        if let Some(server) = self.sites[site].server_of(life) {
            server.heart.awaits = Some(number);
        }
        self.after(OPEN_WITHIN_MS, Event::GiveUpAnswer { site, life, number });
    }

    /// Whether anything is placed on a host that somebody claimed and has not called over: a stranger waits for that.
    fn may_run_there(&self, host: HostId, view: &ClusterView) -> bool {
        let is_there = |vm: &VmView| vm.placement.as_ref().is_some_and(|at| at.value.host == host);
        let mut there = view.vms.values().filter(|vm| is_there(vm));
        there.any(|vm| vm.status.is_some() && !runs_nowhere(vm))
    }

    /// The rules of the daemon.
    fn judge(&self, site: usize, stored: Option<&Session>, view: &ClusterView) -> Opening {
        let me = &self.sites[site];
        let Some(session) = stored else {
            return Opening::Open(Epoch::FIRST);
        };
        let Some(next) = session.epoch.next() else {
            return Opening::Wait;
        };
        let is_mine = session.instance == me.instance && session.boot_id == me.boot;
        let outlived = !me.is_clone && me.past.contains(&(session.instance, session.boot_id));
        match session.state {
            SessionState::Fenced if is_mine || outlived || self.breaks(Break::StrangerAfterFence) => {
                Opening::Open(next)
            }
            SessionState::Fenced if self.may_run_there(me.host, view) => Opening::Wait,
            SessionState::Fenced => Opening::Open(next),
            SessionState::Open if is_mine => Opening::GoOn,
            SessionState::Open if self.breaks(Break::SecondInstanceEarly) && me.is_clone => Opening::Open(next),
            SessionState::Open if outlived => Opening::Reopen(next),
            SessionState::Open | SessionState::Unconfirmed => Opening::Wait,
        }
    }

    pub fn open_looked(&mut self, site: usize, life: u64, index: usize) {
        let (host, local) = (self.sites[site].host, self.local_ms(site));
        let view = self.store.at(index).view.clone();
        let stored = view.hosts.get(&host);
        let session = stored.and_then(|host| host.session.as_ref());
        let beat = stored.and_then(|host| host.beat.as_ref());
        let sequence = beat.map_or(0, |beat| beat.value.sequence.0);
        let told = beat.map(|beat| Terms::told_by(&beat.value));
        let told_ms = told.map_or(0, |told| told.failover_ms);
        let silence_ms = told_ms.max(self.timings(site).failover_after_ms);
        let opening = self.judge(site, session.map(|session| &session.value), &view);
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.heart.held.is_some() {
            return;
        }
        server.heart.awaits = None;
        let epoch = match opening {
            Opening::GoOn => {
                let epoch = session.map_or(Epoch::FIRST, |session| session.value.epoch);
                let revision = revision_of(session);
                server.heart.held = Some(Held { epoch, revision });
                server.heart.sequence = sequence;
                // The guard may hold the deadline of an earlier process to it.
                server.heart.granted = told.map_or(Granted::default(), |told| Granted::inherited(told, local));
                return self.after(1, Event::Beat { site, life });
            }
            Opening::Wait => return,
            Opening::Reopen(epoch) => {
                let seen = revision_of(beat);
                match server.heart.quiet {
                    Some((quiet, since)) if quiet == seen && local.saturating_sub(since) >= silence_ms => epoch,
                    Some((quiet, _)) if quiet == seen => return,
                    _ => {
                        server.heart.quiet = Some((seen, local));
                        return;
                    }
                }
            }
            Opening::Open(epoch) => epoch,
        };
        let seen = (revision_of(session), revision_of(beat));
        self.open(site, life, epoch, sequence + 1, seen);
    }

    fn open(&mut self, site: usize, life: u64, epoch: Epoch, sequence: u64, (session, beat): (u64, u64)) {
        let (host, sent) = (self.sites[site].host, self.sending(site, life, true));
        let own = self.own_session(site, epoch);
        let Some(first) = self.make_beat(site, own, sequence, sent.terms) else {
            return;
        };
        let mut change = Change::new();
        if !self.breaks(Break::OpenWithoutEpoch) {
            change = change
                .expect(Part::Session(host), session)
                .expect(Part::Beat(host), beat);
        }
        let txn = Txn {
            opens: Some((host, own)),
            beat: Some((host, first)),
            in_order: !self.breaks(Break::OpenWithoutOrder),
            ..Txn::of(change, By::Heart(site), "open")
        };
        self.propose(
            site,
            txn,
            Reply::Open {
                life,
                sent,
                epoch,
                sequence,
            },
        );
        let number = self.store.number();
        if let Some(server) = self.sites[site].server_of(life) {
            server.heart.awaits = Some(number);
        }
        self.after(OPEN_WITHIN_MS, Event::GiveUpAnswer { site, life, number });
    }

    pub fn open_answered(&mut self, site: usize, life: u64, sent: (Sent, Epoch, u64), outcome: Outcome) {
        let (sent, epoch, sequence) = sent;
        let local = self.local_ms(site);
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.heart.held.is_some() {
            return;
        }
        server.heart.awaits = None;
        let Outcome::Done(revision) = outcome else { return };
        server.heart.held = Some(Held { epoch, revision });
        server.heart.sequence = sequence;
        server.heart.granted = Granted::default();
        server.heart.granted.add(sent.at_ms, sent.terms);
        server.heart.pace_ms = Some(sent.beat_ms);
        let until_ms = sent.at_ms + sent.lasts_ms;
        if until_ms > local {
            server.heart.until_ms = until_ms;
            server.heart.lease_epoch = Some(epoch);
            self.extend_lease(site, epoch, until_ms);
        }
        self.look_soon(site, 2);
    }
}
