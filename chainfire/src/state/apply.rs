//! Carrying out one entry of the log on the window. Every member does the same with the same entry: no
//! clock, no randomness, nothing of this machine goes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::FEATURE_LEVEL;
use super::base::BaseError;
use super::boundary::{Boundary, Settings};
use super::row::{Head, Row};
use super::window::Window;
use crate::kv::{Key, Op, OpResult, Revision, Txn, TxnAnswer, prefix_end};
use crate::proto;
use crate::raft::types::{LogId, StoredMembership};
use crate::wire;

/// How many allotted member ids are remembered for repeated requests.
const ALLOTTED_KEPT: usize = 64;
/// Keys that a prefix delete visits at a time.
const DELETE_CHUNK: usize = 512;

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Txn(TxnAnswer),
    MemberId(u64),
    Level(u32),
    Refused(String),
}

/// Why an entry cannot be applied. Each of these stops the member: going on would make it differ from
/// the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("entry {index} is not readable: {reason}")]
    Malformed { index: u64, reason: String },
    #[error("the cluster uses feature level {level}, this version knows {FEATURE_LEVEL}: upgrade this member")]
    TooOld { level: u32 },
}

/// Applies a batch of commands as one entry.
pub fn apply_commands(window: &mut Window, at: LogId, commands: Bytes) -> Result<Vec<Answer>, ApplyError> {
    let malformed = |reason: String| ApplyError::Malformed {
        index: at.index,
        reason,
    };
    let batch = proto::CommandBatch::decode(commands).map_err(|error| malformed(error.to_string()))?;
    let mut tip = window.tip().clone();
    let mut answers = Vec::with_capacity(batch.commands.len());
    for command in batch.commands {
        use proto::command::Command;
        let command = command.command.ok_or_else(|| malformed("unknown command".to_owned()))?;
        answers.push(match command {
            Command::Txn(txn) => {
                let txn = wire::txn_from_command(txn).map_err(|error| malformed(error.to_string()))?;
                Answer::Txn(apply_txn(window, &mut tip, &txn)?)
            }
            Command::AllotMember(allot) => allot_member(&mut tip, allot.request_id),
            Command::SetLevel(set) => set_level(&mut tip, set.level)?,
            Command::Found(found) => found_cluster(&mut tip, found)?,
        });
    }
    tip.applied = Some(at);
    window.close_entry(tip);
    Ok(answers)
}

/// Applies an entry that only marks a term.
pub fn apply_blank(window: &mut Window, at: LogId) {
    let mut tip = window.tip().clone();
    tip.applied = Some(at);
    window.close_entry(tip);
}

/// Applies a change of membership.
pub fn apply_membership(window: &mut Window, at: LogId, membership: StoredMembership) {
    let mut tip = window.tip().clone();
    let settings = Arc::make_mut(&mut tip.settings);
    settings.next_member_id = membership
        .nodes()
        .map(|(id, _)| id + 1)
        .max()
        .unwrap_or(0)
        .max(settings.next_member_id);
    settings.membership = membership;
    tip.applied = Some(at);
    window.close_entry(tip);
}

/// What a transaction has done so far to one key.
#[derive(Debug)]
struct Touched {
    before: Option<Head>,
    now: Now,
    /// The key was deleted on the way: a row put after it begins a new life.
    reborn: bool,
}

#[derive(Debug)]
enum Now {
    AsBefore,
    Put(Row),
    Deleted,
}

struct Running<'a> {
    window: &'a Window,
    revision: Revision,
    touched: BTreeMap<Key, Touched>,
}

fn apply_txn(window: &mut Window, tip: &mut Boundary, txn: &Txn) -> Result<TxnAnswer, BaseError> {
    let mut succeeded = true;
    for compare in &txn.compares {
        let stored = window
            .get(&compare.key)?
            .map(|row| row.into_key_value(compare.key.clone()));
        if !compare.holds(stored.as_ref()) {
            succeeded = false;
            break;
        }
    }
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let mut running = Running {
        window,
        revision: window.revision() + 1,
        touched: BTreeMap::new(),
    };
    let mut results = Vec::with_capacity(branch.len());
    for op in branch {
        results.push(running.run(op)?);
    }
    let changes = running.into_changes(tip);
    if !changes.is_empty() {
        tip.revision += 1;
        window.push(tip.revision, changes);
    }
    Ok(TxnAnswer {
        succeeded,
        revision: tip.revision,
        results,
    })
}

impl Running<'_> {
    fn run(&mut self, op: &Op) -> Result<OpResult, BaseError> {
        match op {
            Op::Put { key, value } => {
                self.put(key, value);
                Ok(OpResult::Touched(1))
            }
            Op::Delete { key } => Ok(OpResult::Touched(u64::from(self.delete(key)))),
            Op::DeletePrefix { prefix } => Ok(OpResult::Touched(self.delete_prefix(prefix)?)),
            Op::Get { key } => {
                let row = match self.touched.get(key).map(|touched| &touched.now) {
                    Some(Now::Put(row)) => Some(row.clone()),
                    Some(Now::Deleted) => None,
                    Some(Now::AsBefore) | None => self.window.get(key)?,
                };
                Ok(OpResult::Got(row.map(|row| row.into_key_value(key.clone()))))
            }
        }
    }

    fn touch(&mut self, key: &Key) -> &mut Touched {
        self.touched.entry(key.clone()).or_insert_with(|| Touched {
            before: self.window.head(key),
            now: Now::AsBefore,
            reborn: false,
        })
    }

    fn put(&mut self, key: &Key, value: &Bytes) {
        let revision = self.revision;
        let touched = self.touch(key);
        let (create_revision, version) = match &touched.before {
            Some(before) if !touched.reborn => (before.create_revision, before.version + 1),
            _ => (revision, 1),
        };
        touched.now = Now::Put(Row {
            create_revision,
            mod_revision: revision,
            version,
            value: value.clone(),
        });
    }

    /// Whether the key was there.
    fn delete(&mut self, key: &Key) -> bool {
        let touched = self.touch(key);
        touched.reborn = true;
        match std::mem::replace(&mut touched.now, Now::Deleted) {
            Now::AsBefore => touched.before.is_some(),
            Now::Put(_) => true,
            Now::Deleted => false,
        }
    }

    fn delete_prefix(&mut self, prefix: &Key) -> Result<u64, BaseError> {
        let end = prefix_end(prefix);
        let mut doomed: Vec<Key> = self
            .touched
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, _)| key.clone())
            .collect();
        let mut after = Key::new();
        loop {
            let (rows, more) = self
                .window
                .scan(prefix, &after, end.as_deref(), Revision::MAX, DELETE_CHUNK)?;
            doomed.extend(rows.into_iter().map(|(key, _)| key));
            match more {
                Some(last) => after = last,
                None => break,
            }
        }
        let mut deleted = 0;
        for key in doomed {
            deleted += u64::from(self.delete(&key));
        }
        Ok(deleted)
    }

    /// What is different now, with the totals brought up to date.
    fn into_changes(self, tip: &mut Boundary) -> Vec<(Key, Option<Row>)> {
        let mut changes = Vec::with_capacity(self.touched.len());
        for (key, touched) in self.touched {
            let now = match touched.now {
                Now::Put(row) => Some(row),
                Now::Deleted if touched.before.is_some() => None,
                Now::Deleted | Now::AsBefore => continue,
            };
            if let Some(before) = &touched.before {
                tip.digest.remove(before);
                tip.keys -= 1;
            }
            if let Some(now) = &now {
                tip.digest.add(&Head::of(&key, now));
                tip.keys += 1;
            }
            changes.push((key, now));
        }
        changes
    }
}

fn allot_member(tip: &mut Boundary, request_id: String) -> Answer {
    let settings = Arc::make_mut(&mut tip.settings);
    if let Some((_, id)) = settings.allotted.iter().find(|(request, _)| *request == request_id) {
        return Answer::MemberId(*id);
    }
    let id = settings.next_member_id.max(1);
    settings.next_member_id = id + 1;
    settings.allotted.push_back((request_id, id));
    if settings.allotted.len() > ALLOTTED_KEPT {
        settings.allotted.pop_front();
    }
    Answer::MemberId(id)
}

fn set_level(tip: &mut Boundary, level: u32) -> Result<Answer, ApplyError> {
    if level > FEATURE_LEVEL {
        return Err(ApplyError::TooOld { level });
    }
    let current = tip.settings.feature_level;
    if level < current {
        return Ok(Answer::Refused(format!(
            "the feature level is {current} and never goes down"
        )));
    }
    Arc::make_mut(&mut tip.settings).feature_level = level;
    Ok(Answer::Level(level))
}

fn found_cluster(tip: &mut Boundary, found: proto::Found) -> Result<Answer, ApplyError> {
    if !tip.settings.cluster_id.is_empty() {
        return Ok(Answer::Refused("the cluster is founded already".to_owned()));
    }
    if found.level > FEATURE_LEVEL {
        return Err(ApplyError::TooOld { level: found.level });
    }
    let settings: &mut Settings = Arc::make_mut(&mut tip.settings);
    settings.cluster_id = found.cluster_id;
    settings.feature_level = found.level;
    settings.next_member_id = settings.next_member_id.max(2);
    Ok(Answer::Level(found.level))
}
