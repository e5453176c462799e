//! The store through one member: the implementation of [`Kv`] that a program embeds.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Member, Node};
use crate::kv::{
    Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Revision, Txn, TxnAnswer, WatchStream,
};
use crate::proto::command::Command;
use crate::state::Answer;
use crate::wire;

/// A replicated [`Kv`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    node: Node,
}

impl Store {
    pub(super) fn new(node: Node) -> Self {
        Self { node }
    }

    /// The running member, or why there is none now.
    pub fn member(&self) -> Result<Arc<Member>, KvError> {
        self.node.member()
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        self.node.options().limits.check_key(&key)?;
        let member = self.node.member()?;
        if consistency == Consistency::Linearizable {
            member.reads().linearize().await?;
        }
        member.state().get(&key)
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.node.options().limits.check_range(&query)?;
        let member = self.node.member()?;
        if query.consistency == Consistency::Linearizable {
            member.reads().linearize().await?;
        }
        // A page may be long, and on the disk: nothing else is to wait for it.
        let state = member.state().clone();
        tokio::task::spawn_blocking(move || state.range(&query))
            .await
            .unwrap_or_else(|died| {
                Err(KvError::Internal {
                    reason: format!("the reading ended: {died}"),
                })
            })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        self.node.options().limits.check_txn(&txn)?;
        let member = self.node.member()?;
        let command = Command::Txn(wire::txn_to_command(txn));
        match member.proposals().submit_one(command).await? {
            Answer::Txn(answer) => Ok(answer),
            other => Err(KvError::Internal {
                reason: format!("a transaction was answered with {other:?}"),
            }),
        }
    }

    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        self.node.options().limits.check_prefix(&prefix)?;
        let member = self.node.member()?;
        // A member that lags must not begin "now" in the past, nor call the present the future.
        if from == 0 || from > member.state().revision() + 1 {
            member.reads().linearize().await?;
        }
        member.state().watch(prefix, from)
    }
}
