//! Since when members listen: each asks for it when it starts, and who leads asks the others.
//!
//! It draws its delays apart from all else, so that a seed means the same life with it and without.

use plasmavmc_core::elders::{Elders, are_wanted};

use super::{Event, World};
use crate::breaks::Break;

const AGAIN_MS: u64 = 250;
const APPLIED_AGAIN_MS: u64 = 10;
const ANSWERS_WITHIN_MS: u64 = 700;

/// A question on its way, and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    pub from: usize,
    pub life: u64,
    pub to: usize,
    /// By the clock of who asks.
    pub asked_ms: u64,
}

impl World {
    /// A message of these; `None`: it never arrives.
    fn word(&mut self, from: usize, to: usize) -> Option<u64> {
        let delays = self.setup.delays;
        let is_lost = !self.healed && self.side.percent(delays.loss_percent);
        if is_lost || !self.carries(from, to) {
            return None;
        }
        Some(self.side.within(delays.net))
    }

    /// A linearizable read, until one is answered.
    pub(super) fn listen(&mut self, site: usize, life: u64) {
        if self.sites[site]
            .server_of(life)
            .is_none_or(|server| server.listens.is_some())
        {
            return;
        }
        self.after(AGAIN_MS, Event::Listen { site, life });
        let mut index = self.store.last();
        if self.breaks(Break::ReplayCounts) {
            index = self.sites[site].applied;
        } else {
            let leader = self.store.leader.filter(|leader| self.has_quorum(*leader));
            let Some(leader) = leader.filter(|leader| self.connected(site, *leader)) else {
                return;
            };
            if self.word(site, leader).is_none() {
                return;
            }
        }
        let revision = self.store.at(index).view.revision;
        let takes = self.side.within(self.setup.delays.net);
        self.after(
            takes,
            Event::Listens {
                site,
                life,
                index,
                revision,
            },
        );
    }

    pub(super) fn listens(&mut self, site: usize, life: u64, index: usize, revision: u64) {
        let local = self.local_ms(site);
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.applied >= index {
            server.listens.get_or_insert((revision, local));
            return;
        }
        self.after(
            APPLIED_AGAIN_MS,
            Event::Listens {
                site,
                life,
                index,
                revision,
            },
        );
    }

    /// Who leads asks all others, once a beat, while it would change anything.
    pub(super) fn ask_elders(&mut self, site: usize, life: u64, term: u64) {
        let asked_ms = self.local_ms(site);
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.leads.is_none_or(|(leads, _)| leads != term) {
            server.elders = Elders::default();
            return;
        }
        let (own, applied) = (server.listens.map(|(revision, _)| revision), server.applied);
        let beat_ms = self.sites[site].clock.real(self.setup.timings.beat_ms);
        self.after(beat_ms, Event::AskElders { site, life, term });
        if !are_wanted(&self.store.at(applied).view, own) {
            return;
        }
        for to in 0..self.sites.len() {
            if to == site || self.sites[to].is_clone {
                continue;
            }
            let question = Question {
                from: site,
                life,
                to,
                asked_ms,
            };
            if let Some(takes) = self.word(site, to) {
                self.after(takes, Event::ElderAsked(question));
            }
        }
    }

    pub(super) fn elder_asked(&mut self, question: Question) {
        let Some(server) = self.sites[question.to].server.as_ref() else {
            return;
        };
        let Some((revision, _)) = server.listens else { return };
        if let Some(takes) = self.word(question.to, question.from) {
            self.after(takes, Event::ElderSays { question, revision });
        }
    }

    pub(super) fn elder_says(&mut self, question: Question, revision: u64) {
        let Question {
            from,
            life,
            to,
            asked_ms,
        } = question;
        let (local, host) = (self.local_ms(from), self.sites[to].host);
        let within_ms = ANSWERS_WITHIN_MS.min(self.setup.timings.beat_ms);
        if let Some(server) = self.sites[from].server_of(life)
            && server.leads.is_some()
            && local.saturating_sub(asked_ms) <= within_ms
        {
            server.elders.note(host, revision, asked_ms);
        }
    }
}
