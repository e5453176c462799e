//! The view and what belongs to it, changed one key at a time.
//!
//! Plain data: no store, no task. Every step answers with the change it was, so the changes that readers see
//! are by construction those that were made.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use chainfire::kv::Revision;
use plasmavmc_core::view::{ClusterView, HostView, Stored, VmView};
use plasmavmc_types::{Decision, HostId, RequestId, TokenId, VmId};
use tokio::time::Instant;

use super::super::codec::{self, CodecError};
use super::super::keys::ParsedKey;
use super::super::values::{ClusterConfig, Request, StoredValue, Token};
use super::super::write::DECISIONS_KEPT;
use super::flow::Flow;
use super::{Change, Unreadable};

/// What became of one key.
#[derive(Debug)]
pub(super) struct Step {
    pub key: ParsedKey,
    pub revision: Revision,
    /// `None`: deleted.
    pub value: Option<Result<StoredValue, CodecError>>,
}

impl Step {
    /// A key that has a value; `None`: it is none of ours.
    pub fn put(key: &[u8], value: &[u8], revision: Revision) -> Option<Self> {
        let key = super::super::keys::parse(key)?;
        let value = Some(codec::decode(&key, value));
        Some(Self { key, revision, value })
    }

    pub fn delete(key: &[u8], revision: Revision) -> Option<Self> {
        let key = super::super::keys::parse(key)?;
        let value = None;
        Some(Self { key, revision, value })
    }
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Replica {
    pub view: ClusterView,
    pub config: Option<Stored<ClusterConfig>>,
    pub requests: BTreeMap<RequestId, Stored<Request>>,
    pub tokens: BTreeMap<TokenId, Stored<Token>>,
    pub unreadable: BTreeMap<ParsedKey, Unreadable>,
    /// When the last change of each host's beat was applied here.
    pub heard: BTreeMap<HostId, Instant>,
    pub flow: Flow,
    /// Decisions older than those in the view, until somebody deletes them.
    older_decisions: BTreeMap<String, Stored<Decision>>,
    /// Every key that is stored with the revision of its value, readable or not: what a listing is compared with.
    known: BTreeMap<ParsedKey, Revision>,
}

/// The value with its revision, if it is of the kind that its key has.
macro_rules! kept {
    ($value:expr, $revision:expr, $kind:ident) => {
        match $value {
            Some(StoredValue::$kind(value)) => Some(Stored::new(value, $revision)),
            _ => None,
        }
    };
}

/// What a slot held before, as any value.
macro_rules! any {
    ($before:expr, $kind:ident) => {
        $before.map(|stored| StoredValue::$kind(stored.value))
    };
}

impl Replica {
    pub fn keys(&self) -> usize {
        self.known.len()
    }

    /// Brings everything to what a listing shows, and answers with what differed.
    pub fn relist(&mut self, listed: Vec<Step>, revision: Revision, now: Instant) -> Vec<Change> {
        // A store that went back in time may have given the same revision to another value.
        let goes_back = revision < self.view.revision;
        let still_there: BTreeSet<&ParsedKey> = listed.iter().map(|step| &step.key).collect();
        let gone: Vec<ParsedKey> = self
            .known
            .keys()
            .filter(|key| !still_there.contains(key))
            .cloned()
            .collect();
        let mut steps = listed;
        steps.retain(|step| self.known.get(&step.key) != Some(&step.revision) || (goes_back && !self.holds(step)));
        steps.sort_by_key(|step| step.revision);
        steps.extend(gone.into_iter().map(|key| Step {
            key,
            revision,
            value: None,
        }));
        let changes = self.apply(steps, revision, now);
        self.flow.note_listing(now);
        changes
    }

    /// Carries out the steps in order; afterwards the view shows `revision`.
    pub fn apply(&mut self, steps: Vec<Step>, revision: Revision, now: Instant) -> Vec<Change> {
        let changes = steps.into_iter().filter_map(|step| self.step(step, now)).collect();
        self.view.revision = revision;
        self.flow.note_commit(now, &self.view.timings);
        changes
    }

    fn step(&mut self, step: Step, now: Instant) -> Option<Change> {
        let Step { key, revision, value } = step;
        self.note_beat(&key, value.is_some(), now);
        match &value {
            Some(_) => self.known.insert(key.clone(), revision),
            None => self.known.remove(&key),
        };
        let (after, problem) = match value {
            None => (None, None),
            Some(Ok(value)) => (Some(value), None),
            Some(Err(error)) => (None, Some(error)),
        };
        let is_unreadable = problem.is_some();
        self.note_problem(&key, revision, problem);
        let before = self.replace(&key, after.clone(), revision);
        // Nothing that could be read came or went.
        let is_change = before.is_some() || after.is_some();
        is_change.then_some(Change {
            revision,
            key,
            before,
            after,
            is_unreadable,
        })
    }

    /// A beat is a sign of life, even one that a later version wrote and this one cannot read.
    fn note_beat(&mut self, key: &ParsedKey, is_there: bool, now: Instant) {
        if let ParsedKey::Beat(host) = key {
            if is_there {
                self.heard.insert(*host, now);
            } else {
                self.heard.remove(host);
            }
        }
    }

    fn note_problem(&mut self, key: &ParsedKey, revision: Revision, problem: Option<CodecError>) {
        let Some(problem) = problem else {
            self.unreadable.remove(key);
            return;
        };
        let unreadable = Unreadable {
            key: key.clone(),
            revision,
            problem: problem.to_string(),
        };
        let earlier = self.unreadable.insert(key.clone(), unreadable);
        // A beat comes every second: its problem is news once.
        if earlier.is_none_or(|earlier| earlier.problem != problem.to_string()) {
            tracing::warn!(%key, revision, %problem, "a stored value cannot be read and is left out");
        }
    }

    /// Puts the value in its place and answers with what was there.
    fn replace(&mut self, key: &ParsedKey, value: Option<StoredValue>, revision: Revision) -> Option<StoredValue> {
        match key {
            ParsedKey::Config => any!(self.set_config(kept!(value, revision, Config)), Config),
            ParsedKey::HostRecord(host) => {
                let value = kept!(value, revision, HostRecord);
                any!(
                    self.in_host(*host, |view| mem::replace(&mut view.record, value)),
                    HostRecord
                )
            }
            ParsedKey::Session(host) => {
                let value = kept!(value, revision, Session);
                any!(
                    self.in_host(*host, |view| mem::replace(&mut view.session, value)),
                    Session
                )
            }
            ParsedKey::Beat(host) => {
                let value = kept!(value, revision, Beat);
                any!(self.in_host(*host, |view| mem::replace(&mut view.beat, value)), Beat)
            }
            ParsedKey::VmRecord(vm) => {
                let value = kept!(value, revision, VmRecord);
                any!(self.in_vm(*vm, |view| mem::replace(&mut view.record, value)), VmRecord)
            }
            ParsedKey::Placement(vm) => {
                let value = kept!(value, revision, Placement);
                any!(
                    self.in_vm(*vm, |view| mem::replace(&mut view.placement, value)),
                    Placement
                )
            }
            ParsedKey::Status(vm) => {
                let value = kept!(value, revision, Status);
                any!(self.in_vm(*vm, |view| mem::replace(&mut view.status, value)), Status)
            }
            ParsedKey::Name(name) => swap(&mut self.view.names, name, pointer(value)).map(StoredValue::Pointer),
            ParsedKey::Number(number) => swap(&mut self.view.numbers, number, pointer(value)).map(StoredValue::Pointer),
            ParsedKey::Request(id) => any!(swap(&mut self.requests, id, kept!(value, revision, Request)), Request),
            ParsedKey::Operation(id) => {
                let value = kept!(value, revision, Operation);
                any!(swap(&mut self.view.operations, id, value), Operation)
            }
            ParsedKey::Decision(id) => any!(self.set_decision(id, kept!(value, revision, Decision)), Decision),
            ParsedKey::Token(id) => any!(swap(&mut self.tokens, id, kept!(value, revision, Token)), Token),
        }
    }

    fn set_config(&mut self, config: Option<Stored<ClusterConfig>>) -> Option<Stored<ClusterConfig>> {
        let shown = config.as_ref().map(|config| config.value);
        self.view.timings = shown.map(|config| config.timings).unwrap_or_default();
        self.view.recovery = shown.map(|config| config.recovery).unwrap_or_default();
        self.view.placement_mode = shown.map(|config| config.placement).unwrap_or_default();
        mem::replace(&mut self.config, config)
    }

    fn in_vm<R>(&mut self, vm: VmId, change: impl FnOnce(&mut VmView) -> R) -> R {
        let view = self.view.vms.entry(vm).or_default();
        let before = change(view);
        if view.record.is_none() && view.placement.is_none() && view.status.is_none() {
            self.view.vms.remove(&vm);
        }
        before
    }

    fn in_host<R>(&mut self, host: HostId, change: impl FnOnce(&mut HostView) -> R) -> R {
        let view = self.view.hosts.entry(host).or_default();
        let before = change(view);
        if view.record.is_none() && view.session.is_none() && view.beat.is_none() {
            self.view.hosts.remove(&host);
        }
        before
    }

    /// Keeps the newest decisions in the view, and the others ready to move up.
    fn set_decision(&mut self, id: &str, decision: Option<Stored<Decision>>) -> Option<Stored<Decision>> {
        let before = self
            .view
            .decisions
            .remove(id)
            .or_else(|| self.older_decisions.remove(id));
        if let Some(decision) = decision {
            self.older_decisions.insert(id.to_owned(), decision);
        }
        let newer = |replica: &Self| match (
            replica.older_decisions.last_key_value(),
            replica.view.decisions.first_key_value(),
        ) {
            (Some((older, _)), Some((oldest, _))) => older > oldest,
            _ => false,
        };
        while newer(self) || self.view.decisions.len() < DECISIONS_KEPT {
            let Some((id, decision)) = self.older_decisions.pop_last() else {
                break;
            };
            self.view.decisions.insert(id, decision);
        }
        while self.view.decisions.len() > DECISIONS_KEPT {
            let Some((id, decision)) = self.view.decisions.pop_first() else {
                break;
            };
            self.older_decisions.insert(id, decision);
        }
        before
    }

    /// The oldest decisions, which are not in the view any more.
    pub fn surplus_decisions(&self, limit: usize) -> Vec<String> {
        self.older_decisions.keys().take(limit).cloned().collect()
    }

    /// Whether the value of this step is what is shown already.
    fn holds(&self, step: &Step) -> bool {
        let Some(Ok(value)) = &step.value else {
            return false;
        };
        self.get(&step.key).as_ref() == Some(value)
    }

    /// The value of a key.
    pub fn get(&self, key: &ParsedKey) -> Option<StoredValue> {
        let vm = |vm: &VmId| self.view.vms.get(vm);
        let host = |host: &HostId| self.view.hosts.get(host);
        match key {
            ParsedKey::Config => any!(self.config.clone(), Config),
            ParsedKey::HostRecord(id) => any!(host(id)?.record.clone(), HostRecord),
            ParsedKey::Session(id) => any!(host(id)?.session.clone(), Session),
            ParsedKey::Beat(id) => any!(host(id)?.beat.clone(), Beat),
            ParsedKey::VmRecord(id) => any!(vm(id)?.record.clone(), VmRecord),
            ParsedKey::Placement(id) => any!(vm(id)?.placement.clone(), Placement),
            ParsedKey::Status(id) => any!(vm(id)?.status.clone(), Status),
            ParsedKey::Name(name) => self.view.names.get(name).copied().map(StoredValue::Pointer),
            ParsedKey::Number(number) => self.view.numbers.get(number).copied().map(StoredValue::Pointer),
            ParsedKey::Request(id) => any!(self.requests.get(id).cloned(), Request),
            ParsedKey::Operation(id) => any!(self.view.operations.get(id).cloned(), Operation),
            ParsedKey::Decision(id) => {
                let decision = self.view.decisions.get(id).or_else(|| self.older_decisions.get(id));
                any!(decision.cloned(), Decision)
            }
            ParsedKey::Token(id) => any!(self.tokens.get(id).cloned(), Token),
        }
    }
}

fn pointer(value: Option<StoredValue>) -> Option<VmId> {
    match value {
        Some(StoredValue::Pointer(vm)) => Some(vm),
        _ => None,
    }
}

fn swap<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    }
}
