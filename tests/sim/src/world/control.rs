//! The controller: on whoever believes to lead, behind a read that a majority confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;

use plasmavmc_core::change::{Part, Put};
use plasmavmc_core::plan::{ControlAction, ControlKind, plan};
use plasmavmc_core::view::{ClusterView, Contact, Heard};
use plasmavmc_types::Beat;

use super::{Event, World};
use crate::breaks::Break;
use crate::store::{By, ReadFor, Reply, Txn};

const LOOK_EVERY_MS: u64 = 500;
const ROUND_WITHIN_MS: u64 = 3000;
const APPLIED_AGAIN_MS: u64 = 5;

impl World {
    /// Looks in a moment, unless it is about to.
    pub(super) fn control_soon(&mut self, site: usize) {
        let takes = self.rng.within(self.setup.delays.control);
        self.control_in(site, takes);
    }

    fn control_in(&mut self, site: usize, in_ms: u64) {
        let at_ms = self.now_ms + in_ms;
        let Some(server) = &mut self.sites[site].server else {
            return;
        };
        let Some((term, _)) = server.leads else { return };
        if server.in_round {
            server.control_due = true;
            return;
        }
        if server.controls_at.is_some_and(|at| at <= at_ms && at >= self.now_ms) {
            return;
        }
        server.controls_at = Some(at_ms);
        let life = server.life;
        self.at(at_ms, Event::Control { site, life, term });
    }

    pub(super) fn control(&mut self, site: usize, life: u64, term: u64) {
        let (now_ms, skips_read) = (self.now_ms, self.breaks(Break::FenceWithoutQuorum));
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        let leads = server.leads.is_some_and(|(leads, _)| leads == term);
        if server.controls_at != Some(now_ms) || !leads || server.in_round {
            return;
        }
        server.round += 1;
        server.in_round = true;
        server.control_due = false;
        server.round_waits = usize::MAX;
        let (round, applied) = (server.round, server.applied);
        self.after(ROUND_WITHIN_MS, Event::EndRound { site, life, round });
        if skips_read {
            self.after(
                1,
                Event::Plan {
                    site,
                    life,
                    round,
                    index: applied,
                },
            );
        } else {
            self.read(site, life, ReadFor::Control { round });
        }
    }

    pub(super) fn plan_when_applied(&mut self, site: usize, life: u64, round: u64, index: usize) {
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.round != round || !server.in_round || server.leads.is_none() {
            return;
        }
        if server.applied < index {
            return self.after(
                APPLIED_AGAIN_MS,
                Event::Plan {
                    site,
                    life,
                    round,
                    index,
                },
            );
        }
        let applied = server.applied;
        let (mut view, heard) = (self.store.at(applied).view.clone(), self.heard(site));
        if self.breaks(Break::TodaysTimingsJudge) {
            as_of_today(Arc::make_mut(&mut view));
        }
        let actions = plan(&view, &heard, self.wall_ms(site));
        let count = actions.len();
        if let Some(server) = self.sites[site].server_of(life) {
            server.round_waits = count;
        }
        for action in actions {
            self.carry_out(site, life, round, action);
        }
        if count == 0 {
            self.round_over(site, life, round);
        }
    }

    /// What the leader has heard, by its own clock.
    pub fn heard(&self, site: usize) -> Heard {
        let local = self.local_ms(site);
        let Some(server) = &self.sites[site].server else {
            return Heard::default();
        };
        let ago = |since: u64| local.saturating_sub(since);
        let ago_ms: BTreeMap<_, _> = server.heard.iter().map(|(host, at)| (*host, ago(*at))).collect();
        let mut contact = Contact {
            quorum_ago_ms: server.quorum_ms.map(ago),
            flowing_for_ms: if ago(server.last_applied_ms) > plasmavmc_core::liveness::gap_ms(&self.timings(site)) {
                0
            } else {
                ago(server.flowing_since_ms)
            },
            listening_for_ms: server.listens.map_or(0, |(_, at)| ago(at)),
            heard_since_revision: server.elders.lowest(
                server.listens.map(|(revision, _)| revision),
                &self.setup.timings,
                local,
            ),
        };
        if self.breaks(Break::FenceWithoutQuorum) {
            contact.quorum_ago_ms = Some(0);
        }
        if self.breaks(Break::FenceAfterGap) || self.breaks(Break::NoGapRule) {
            contact.flowing_for_ms = u64::MAX / 2;
        }
        Heard {
            ago_ms,
            leading_for_ms: server.leads.map(|(_, since)| ago(since)),
            contact,
        }
    }

    fn carry_out(&mut self, site: usize, life: u64, round: u64, action: ControlAction) {
        let mut change = action.change;
        self.check_change(&change);
        match action.kind {
            ControlKind::Fence if self.breaks(Break::FenceWithoutBeatGuard) => {
                change.expects.retain(|part, _| !matches!(part, Part::Beat(_)));
            }
            ControlKind::Failover if self.breaks(Break::IncarnationNotRaised) => {
                for put in &mut change.puts {
                    if let Put::Placement(_, placement) = put {
                        let lower = placement.incarnation.get().saturating_sub(1);
                        placement.incarnation = plasmavmc_types::Incarnation::from_raw(lower);
                    }
                }
            }
            _ => {}
        }
        if let Some(decision) = &change.decision {
            let (name, kind, text) = (
                self.sites[site].name.clone(),
                decision.kind.clone(),
                decision.text.clone(),
            );
            self.detail(|| format!("{name} decides: {kind}: {text}"));
        }
        let txn = Txn::of(change, By::Controller(site), action.kind.word());
        self.propose(site, txn, Reply::Control { life, round });
    }

    pub(super) fn control_answered(&mut self, site: usize, life: u64, round: u64) {
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.round != round || !server.in_round {
            return;
        }
        server.round_waits = server.round_waits.saturating_sub(1);
        if server.round_waits == 0 {
            self.round_over(site, life, round);
        }
    }

    pub(super) fn round_over(&mut self, site: usize, life: u64, round: u64) {
        let Some(server) = self.sites[site].server_of(life) else {
            return;
        };
        if server.round != round || !server.in_round {
            return;
        }
        server.in_round = false;
        server.controls_at = None;
        let due = std::mem::take(&mut server.control_due);
        if due {
            self.control_soon(site);
        } else {
            self.control_in(site, LOOK_EVERY_MS);
        }
    }
}

/// The beats as if all of them had been sent under the timings of today.
fn as_of_today(view: &mut ClusterView) {
    let (lease_ms, failover_ms) = (view.timings.freeze_after_ms, view.timings.failover_after_ms);
    for beat in view.hosts.values_mut().filter_map(|host| host.beat.as_mut()) {
        let mut fields = (*beat.value).clone();
        (fields.lease_ms, fields.failover_ms) = (lease_ms, failover_ms);
        if let Ok(told) = Beat::new(fields) {
            beat.value = told;
        }
    }
}
