//! Proposals and reads on their way: late, lost, or answered to nobody.

use super::{Event, World};
use crate::store::{Outcome, Proposal, Read, ReadFor, Reply, Txn};

const AGAIN_MS: u64 = 50;
const LEADER_WITHIN_MS: u64 = 2000;

impl World {
    /// How long a message takes; `None`: it never arrives.
    fn message(&mut self, from: usize, to: usize) -> Option<u64> {
        if !self.carries(from, to) {
            return None;
        }
        if from == to {
            return Some(0);
        }
        let delays = self.setup.delays;
        if !self.healed && self.rng.percent(delays.loss_percent) {
            return None;
        }
        let mut takes = self.rng.within(delays.net);
        if !self.healed && self.rng.percent(delays.late_percent) {
            takes += self.rng.within(delays.late);
        }
        Some(takes)
    }

    /// Whom a member asks: itself, if it believes to lead.
    fn leader_of(&self, site: usize) -> Option<usize> {
        let believes = self.sites[site]
            .server
            .as_ref()
            .is_some_and(|server| server.leads.is_some());
        if believes { Some(site) } else { self.store.leader }
    }

    /// Sends a transaction, once.
    pub fn propose(&mut self, site: usize, txn: Txn, reply: Reply) -> u64 {
        let id = self.store.number();
        let Some(leader) = self.leader_of(site) else { return id };
        let Some(takes) = self.message(site, leader) else {
            return id;
        };
        let proposal = Proposal {
            txn,
            asker: Some(site),
            reply,
            taken: None,
        };
        self.store.proposals.insert(id, proposal);
        self.after(takes, Event::Arrive(id));
        id
    }

    pub(super) fn arrive(&mut self, id: u64) {
        let Some((asker, _)) = self.reply_of(id) else { return };
        let Some(leader) = self.leader_of(asker) else {
            self.store.proposals.remove(&id);
            return;
        };
        let leads = self.sites[leader].server.as_ref().and_then(|server| server.leads);
        let term = leads.map(|(term, _)| term).filter(|term| *term == self.store.term);
        let (Some(term), true, true) = (term, self.sites[leader].is_up(), self.store.leader == Some(leader)) else {
            self.store.proposals.remove(&id);
            return;
        };
        let takes = self.rng.within(self.setup.delays.commit) + self.sites[leader].slow_ms;
        if let Some(proposal) = self.store.proposals.get_mut(&id) {
            proposal.taken = Some((leader, term));
        }
        self.after(takes, Event::Commit(id));
    }

    pub(super) fn commit_due(&mut self, id: u64) {
        let taken = self.store.proposals.get(&id).and_then(|proposal| proposal.taken);
        let Some((leader, term)) = taken else { return };
        if self.store.leader != Some(leader) || self.store.term != term {
            // The next leader decides what becomes of it.
            return;
        }
        if !self.has_quorum(leader) || self.sites[leader].read_only {
            return self.after(AGAIN_MS, Event::Commit(id));
        }
        let Some(proposal) = self.store.proposals.get(&id).cloned() else {
            return;
        };
        let outcome = self.commit_now(leader, &proposal.txn);
        let takes = proposal.asker.and_then(|asker| self.message(leader, asker));
        match takes {
            Some(takes) => self.after(takes, Event::Answered { proposal: id, outcome }),
            None => drop(self.store.proposals.remove(&id)),
        }
    }

    pub(super) fn answered(&mut self, id: u64, outcome: Outcome) {
        let Some(proposal) = self.store.proposals.remove(&id) else {
            return;
        };
        let Some(site) = proposal.asker.filter(|site| self.sites[*site].is_up()) else {
            return;
        };
        match proposal.reply {
            Reply::Nobody => {}
            Reply::Beat { life, sent, number } => self.beat_answered(site, life, (sent, number), outcome),
            Reply::Open {
                life,
                sent,
                epoch,
                sequence,
            } => self.open_answered(site, life, (sent, epoch, sequence), outcome),
            Reply::Write { life, vm, number } => self.wrote(site, life, (vm, number), outcome),
            Reply::Order { life, vm, number } => self.gate_passed(site, life, (vm, number), outcome),
            Reply::Control { life, round } => self.control_answered(site, life, round),
        }
    }

    /// Sends a linearizable read.
    pub fn read(&mut self, site: usize, life: u64, what: ReadFor) -> u64 {
        let id = self.store.number();
        let read = Read {
            asker: site,
            life,
            what,
            taken: None,
            issued_ms: self.now_ms,
        };
        self.store.reads.insert(id, read);
        match self.leader_of(site).map(|leader| self.message(site, leader)) {
            Some(Some(takes)) => self.after(takes, Event::ReadArrive(id)),
            Some(None) => drop(self.store.reads.remove(&id)),
            // Whoever is asked waits for a leader for a while.
            None => self.after(AGAIN_MS, Event::ReadArrive(id)),
        }
        id
    }

    /// The leader takes what is committed, and then asks a majority whether it still leads.
    pub(super) fn read_arrives(&mut self, id: u64) {
        let Some(read) = self.store.reads.get(&id).copied() else {
            return;
        };
        let leader = self.leader_of(read.asker).filter(|leader| self.sites[*leader].is_up());
        let leads = leader.and_then(|leader| Some((leader, self.sites[leader].server.as_ref()?.leads?.0)));
        let Some((leader, term)) = leads else {
            if self.now_ms < read.issued_ms + LEADER_WITHIN_MS {
                return self.after(AGAIN_MS, Event::ReadArrive(id));
            }
            self.store.reads.remove(&id);
            return;
        };
        let last = self.store.last();
        if let Some(read) = self.store.reads.get_mut(&id) {
            read.taken = Some((leader, term, last));
        }
        let round = self.rng.within(self.setup.delays.net) + self.rng.within(self.setup.delays.net);
        self.after(round, Event::ReadConfirm(id));
    }

    pub(super) fn read_confirmed(&mut self, id: u64) {
        let Some(read) = self.store.reads.get(&id).copied() else {
            return;
        };
        let Some((leader, term, index)) = read.taken else {
            return;
        };
        let is_so = self.store.leader == Some(leader) && self.store.term == term && self.has_quorum(leader);
        let takes = if is_so { self.message(leader, read.asker) } else { None };
        match takes {
            Some(takes) => self.after(takes, Event::ReadAnswer { read: id, index }),
            None => drop(self.store.reads.remove(&id)),
        }
    }

    pub(super) fn read_answered(&mut self, id: u64, index: usize) {
        let Some(read) = self.store.reads.remove(&id) else {
            return;
        };
        let (site, life) = (read.asker, read.life);
        if self.sites[site].paused {
            self.store.reads.insert(id, read);
            return self.after(AGAIN_MS, Event::ReadAnswer { read: id, index });
        }
        if self.sites[site].server_of(life).is_none() {
            return;
        }
        match read.what {
            ReadFor::CatchUp => self.caught_up(site, life, index),
            ReadFor::Open => self.open_looked(site, life, index),
            ReadFor::IsLost { epoch } => self.lost_looked(site, life, epoch, index),
            ReadFor::Thaw { vm, number } => self.thaw_read(site, life, (vm, number), index),
            ReadFor::Control { round } => {
                let issued = self.sites[site].clock.at(read.issued_ms);
                if let Some(server) = self.sites[site].server_of(life) {
                    server.quorum_ms = Some(issued);
                }
                self.plan_when_applied(site, life, round, index);
            }
        }
    }
}
