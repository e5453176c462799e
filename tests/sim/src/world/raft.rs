//! Leaders that come and go, and what becomes of what they had taken.
//!
//! A leader needs a majority that it hears and that hears it. One that lost it does not know, and goes on believing
//! until it hears of a later term; nothing that it takes meanwhile is committed by it. What an old leader had taken may
//! be committed by the new one, or be lost: its senders are not told which.

use super::{Event, World};
use crate::breaks::Break;
use crate::store::{By, Outcome, Reply, Txn};

const TICK_MS: u64 = 100;

impl World {
    pub fn carries(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    pub fn connected(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    pub fn voters(&self) -> usize {
        self.sites.iter().filter(|site| site.voter).count()
    }

    pub fn has_quorum(&self, member: usize) -> bool {
        let is_with = |site: &&crate::host::Site| site.voter && site.is_up() && self.connected(member, site.index);
        let with = self.sites.iter().filter(is_with).count();
        self.sites[member].is_up() && with * 2 > self.voters()
    }

    /// Whether a majority would vote for it: nobody does who hears a leader.
    fn has_votes(&self, member: usize) -> bool {
        let shortest = self.setup.delays.election.0;
        let votes = |site: &&crate::host::Site| {
            let hears = self.now_ms < site.leader_heard_ms + shortest;
            site.voter && site.is_up() && self.connected(member, site.index) && !hears
        };
        self.sites.iter().filter(votes).count() * 2 > self.voters()
    }

    pub(super) fn raft_tick(&mut self) {
        self.after(TICK_MS, Event::Raft);
        self.depose();
        if let Some(leader) = self.store.leader.filter(|leader| self.sites[*leader].is_up()) {
            for member in 0..self.sites.len() {
                if self.sites[member].is_up() && self.carries(leader, member) && !self.sites[leader].read_only {
                    self.sites[member].leader_heard_ms = self.now_ms;
                    self.send_commits(leader, member);
                }
            }
        }
        let stands = |site: &crate::host::Site| {
            site.voter
                && site.is_up()
                && !site.read_only
                && self.now_ms >= site.leader_heard_ms + site.patience_ms
                && self.has_votes(site.index)
        };
        let candidates: Vec<usize> = self
            .sites
            .iter()
            .filter(|site| stands(site))
            .map(|site| site.index)
            .collect();
        if let Some(candidate) = candidates.first().copied() {
            let chosen = self.rng.pick(&candidates).copied().unwrap_or(candidate);
            self.become_leader(if self.setup.delays.random { chosen } else { candidate });
        }
        if self.now_ms.is_multiple_of(10_000) {
            let needed = self.sites.iter().map(|site| site.applied).min().unwrap_or(0);
            self.store.forget_before(needed);
        }
    }

    /// Who believes to lead and hears of a later term, or of nobody who could tell, goes on or gives up.
    fn depose(&mut self) {
        for member in 0..self.sites.len() {
            let leads = self.sites[member].server.as_ref().and_then(|server| server.leads);
            let Some((term, _)) = leads.filter(|(term, _)| *term < self.store.term) else {
                continue;
            };
            let hears = (0..self.sites.len()).any(|other| {
                let site = &self.sites[other];
                other != member && site.voter && site.is_up() && self.carries(other, member)
            });
            if hears && let Some(server) = &mut self.sites[member].server {
                server.leads = None;
                let name = self.sites[member].name.clone();
                self.detail(|| format!("{name} leads no more (term {term})"));
            }
        }
    }

    pub fn become_leader(&mut self, member: usize) {
        self.store.term += 1;
        self.store.leader = Some(member);
        let term = self.store.term;
        self.counts.elections += 1;
        let patience = self.rng.within(self.setup.delays.election);
        let local = self.local_ms(member);
        for other in 0..self.sites.len() {
            if self.carries(member, other) {
                self.sites[other].leader_heard_ms = self.now_ms;
            }
        }
        self.sites[member].patience_ms = patience;
        let name = self.sites[member].name.clone();
        self.fact(|| format!("{name} leads"));
        self.settle_old(member, term);
        let notes = self.foreign_notes(member);
        if let Some(server) = &mut self.sites[member].server {
            let (site, life) = (member, server.life);
            server.elders = Default::default();
            server.leads = Some((term, local));
            server.in_round = false;
            if let Some(notes) = notes {
                server.heard = notes;
            }
            self.after(1, Event::AskElders { site, life, term });
        }
        self.control_soon(member);
    }

    /// What the break takes instead of its own notes: those of another member, in that one's time.
    fn foreign_notes(&self, member: usize) -> Option<std::collections::BTreeMap<plasmavmc_types::HostId, u64>> {
        if !self.breaks(Break::NotesEarly) {
            return None;
        }
        let other = self.sites.iter().find(|site| site.index != member && site.is_up())?;
        Some(other.server.as_ref()?.heard.clone())
    }

    /// What earlier leaders had taken: committed now, or lost.
    fn settle_old(&mut self, leader: usize, term: u64) {
        let proposals = self.store.proposals.iter();
        let old = proposals.filter(|(_, proposal)| proposal.taken.is_some_and(|(_, taken)| taken < term));
        let old: Vec<u64> = old.map(|(id, _)| *id).collect();
        for id in old {
            let Some(proposal) = self.store.proposals.remove(&id) else {
                continue;
            };
            if self.setup.delays.random && self.rng.percent(50) {
                self.detail(|| format!("the new leader commits what the old one took: {}", proposal.txn.what));
                self.commit_now(leader, &proposal.txn);
            }
        }
    }

    /// It is committed if it holds; everybody who can be reached applies it in a while.
    pub(super) fn commit_now(&mut self, leader: usize, txn: &Txn) -> Outcome {
        let before = self.store.newest().clone();
        if let Some(revision) = self.is_retried(txn) {
            return Outcome::Done(revision);
        }
        if !txn.holds_in(&before) {
            self.detail(|| format!("raced: {}", txn.what));
            return Outcome::Raced;
        }
        let revision = self.store.append(txn);
        self.check_commit(&before, txn, revision);
        self.note_commit(&before, txn);
        for member in 0..self.sites.len() {
            if self.sites[member].is_up() && self.connected(leader, member) {
                self.send_commits(leader, member);
            }
        }
        Outcome::Done(revision)
    }

    /// Where a beat may be retried: it is stored already, so the second sending counts.
    fn is_retried(&self, txn: &Txn) -> Option<u64> {
        let (host, beat) = txn
            .beat
            .as_ref()
            .filter(|_| self.breaks(Break::BeatRetried) && txn.opens.is_none())?;
        let stored = self.store.newest().hosts.get(host)?.beat.as_ref()?;
        (stored.value.sequence == beat.sequence && stored.value.epoch == beat.epoch).then_some(stored.revision)
    }

    /// A member is sent all that it has not been sent yet.
    pub(super) fn send_commits(&mut self, leader: usize, member: usize) {
        if !self.connected(leader, member) {
            return;
        }
        let upto = self.store.last();
        let (net, apply) = (self.setup.delays.net, self.setup.delays.apply);
        let Some(server) = self.sites[member].server.as_mut() else {
            return;
        };
        if server.apply_until >= upto {
            return;
        }
        server.apply_until = upto;
        let life = server.life;
        let late = if member == leader { 0 } else { self.rng.within(net) };
        let mut in_ms = late + self.rng.within(apply) + self.sites[member].lag_ms;
        if member != leader && self.rng.percent(self.setup.delays.late_percent) {
            in_ms += self.rng.within(self.setup.delays.late) / 4;
        }
        self.after(
            in_ms,
            Event::Apply {
                site: member,
                life,
                upto,
            },
        );
    }

    /// A member applies what it was sent, and notes who was heard.
    pub(super) fn apply(&mut self, site: usize, life: u64, upto: usize) {
        let local = self.local_ms(site);
        let gap_ms = plasmavmc_core::liveness::gap_ms(&self.timings(site));
        let store = &self.store;
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if upto <= server.applied {
            return;
        }
        let mut changed = false;
        for index in server.applied + 1..=upto {
            let commit = store.at(index);
            changed |= !commit.only_beat;
            if let Some(host) = commit.beat_of {
                server.heard.insert(host, local);
            }
        }
        if local.saturating_sub(server.last_applied_ms) > gap_ms {
            server.flowing_since_ms = local;
        }
        server.last_applied_ms = local;
        server.applied = upto;
        let leads = server.leads.is_some();
        self.sites[site].applied = upto;
        if changed {
            self.look_soon(site, 1);
            if leads {
                self.control_soon(site);
            }
        }
    }

    /// Leadership ends with the process; what it had taken waits for the next leader.
    pub fn leader_gone(&mut self, site: usize) {
        if self.store.leader == Some(site) {
            self.store.leader = None;
        }
    }

    pub fn propose_as_client(&mut self, txn: Txn) -> bool {
        let Some(leader) = self.store.leader.filter(|leader| self.has_quorum(*leader)) else {
            return false;
        };
        if self.sites[leader].read_only {
            return false;
        }
        debug_assert_eq!(txn.by, By::Client);
        matches!(self.commit_now(leader, &txn), Outcome::Done(_))
    }

    pub(super) fn reply_of(&self, proposal: u64) -> Option<(usize, Reply)> {
        let proposal = self.store.proposals.get(&proposal)?;
        Some((proposal.asker?, proposal.reply))
    }
}
