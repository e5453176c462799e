//! One transaction: what it compares, and what it writes.
//!
//! ```text
//!   Write::new()
//!       .expect(keys::session(host), session.revision)
//!       .expect(keys::placement(vm), placement.revision)
//!       .expect(keys::status(vm), revision_of(view.status.as_ref()))
//!       .put_status(vm, &status)
//!       .commit(&*kv).await
//! ```
//! Whoever decides compares the revisions he decided on (I6); a put whose key is not compared is refused before
//! it is sent. A transaction that raced is never repeated as it is: look again, decide again.

use std::time::Duration;

use chainfire::kv::{Compare, Key, Kv, KvError, Op, Relation, Revision, Txn};
use plasmavmc_core::view::Stored;
use plasmavmc_types::{
    Beat, Decision, HostId, HostRecord, Operation, OperationId, Placement, RequestId, Session, TokenId, VmId, VmName,
    VmRecord, VmStatus,
};

use super::values::{ClusterConfig, Request, Token};
use super::{codec, keys};

/// How long a commit is waited for where the caller does not say. Longer than the store's own deadlines.
const COMMIT_WITHIN: Duration = Duration::from_secs(15);

/// Decisions that are kept; older ones are deleted soon after a newer one was written.
pub const DECISIONS_KEPT: usize = 1000;

/// A transaction that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// What it wrote has this revision.
    pub revision: Revision,
}

/// Why nothing was written, or, with [`KvError::OutcomeUnknown`], perhaps something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("something it was decided on has changed since: look again")]
    Raced,
    #[error("{key} is written without comparing what is there, which is a mistake in the program")]
    Unguarded { key: String },
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// A transaction in the making.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "nothing is written until it is committed"]
pub struct Write {
    txn: Txn,
}

impl Write {
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is written unless this key was last changed at this revision; 0: unless it is absent.
    pub fn expect(mut self, key: impl Into<Key>, revision: Revision) -> Self {
        let compare = Compare::mod_revision(key, Relation::Equal, revision);
        self.txn.compares.push(compare);
        self
    }

    /// As [`Self::expect`], of what was seen in a view.
    pub fn expect_seen<T>(self, key: impl Into<Key>, seen: Option<&Stored<T>>) -> Self {
        self.expect(key, plasmavmc_core::view::revision_of(seen))
    }

    pub fn expect_absent(self, key: impl Into<Key>) -> Self {
        self.expect(key, 0)
    }

    fn put(mut self, key: Key, value: bytes::Bytes) -> Self {
        self.txn.success.push(Op::Put { key, value });
        self
    }

    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.txn.success.push(Op::Delete { key: key.into() });
        self
    }

    pub fn put_config(self, config: &ClusterConfig) -> Self {
        self.put(keys::config(), codec::encode_config(config))
    }

    pub fn put_host(self, record: &HostRecord) -> Self {
        self.put(keys::host_record(record.id()), codec::encode_host(record))
    }

    pub fn put_session(self, host: HostId, session: &Session) -> Self {
        self.put(keys::session(host), codec::encode_session(session))
    }

    /// The beat that opens a session: whatever beat an earlier session left must be the one that was seen.
    pub fn put_first_beat(self, host: HostId, beat: &Beat, seen: Revision) -> Self {
        self.expect(keys::beat(host), seen)
            .put(keys::beat(host), codec::encode_beat(beat))
    }

    /// A later beat of an open session: the one that is there must be an earlier one. Whoever sends it also
    /// expects the session, so that a fenced host's beat is refused.
    pub fn put_beat(mut self, host: HostId, beat: &Beat) -> Self {
        let sequence = beat.sequence.to_ordered_bytes().to_vec();
        let earlier = Compare::value(keys::beat(host), Relation::Less, sequence);
        self.txn.compares.push(earlier);
        self.put(keys::beat(host), codec::encode_beat(beat))
    }

    pub fn put_record(self, record: &VmRecord) -> Self {
        self.put(keys::vm_record(record.id()), codec::encode_record(record))
    }

    /// A new VM: its record, its name and its number, none of which may be there.
    pub fn create_vm(self, record: &VmRecord) -> Self {
        let (name, number) = (keys::name(&record.spec().name), keys::number(record.number()));
        let pointer = codec::encode_pointer(record.id());
        self.expect_absent(keys::vm_record(record.id()))
            .expect_absent(name.clone())
            .expect_absent(number.clone())
            .put_record(record)
            .put(name, pointer.clone())
            .put(number, pointer)
    }

    /// The VM gets another name, which nobody may have. The record is put and expected besides.
    pub fn rename_vm(self, vm: VmId, from: &VmName, to: &VmName) -> Self {
        self.delete(keys::name(from))
            .expect_absent(keys::name(to))
            .put(keys::name(to), codec::encode_pointer(vm))
    }

    /// Deletes all that is stored of a VM, as it was seen. Its name and number are its own as long as its
    /// record is there, so comparing that is enough.
    pub fn forget_vm(
        self,
        record: &Stored<VmRecord>,
        placement: Option<&Stored<Placement>>,
        status: Option<&Stored<VmStatus>>,
    ) -> Self {
        let vm = record.value.id();
        self.expect(keys::vm_record(vm), record.revision)
            .expect_seen(keys::placement(vm), placement)
            .expect_seen(keys::status(vm), status)
            .delete(keys::vm_record(vm))
            .delete(keys::placement(vm))
            .delete(keys::status(vm))
            .delete(keys::name(&record.value.spec().name))
            .delete(keys::number(record.value.number()))
    }

    pub fn put_placement(self, vm: VmId, placement: &Placement) -> Self {
        self.put(keys::placement(vm), codec::encode_placement(placement))
    }

    pub fn put_status(self, vm: VmId, status: &VmStatus) -> Self {
        self.put(keys::status(vm), codec::encode_status(status))
    }

    /// That a call was carried out; once only.
    pub fn put_request(self, id: &RequestId, request: &Request) -> Self {
        self.expect_absent(keys::request(id))
            .put(keys::request(id), codec::encode_request(request))
    }

    pub fn put_operation(self, operation: &Operation) -> Self {
        self.put(keys::operation(operation.id), codec::encode_operation(operation))
    }

    pub fn create_operation(self, operation: &Operation) -> Self {
        self.expect_absent(keys::operation(operation.id))
            .put_operation(operation)
    }

    pub fn delete_operation(self, id: OperationId, seen: Revision) -> Self {
        self.expect(keys::operation(id), seen).delete(keys::operation(id))
    }

    /// A decision under an id of [`keys::decision_id`] that nothing has yet. The controller deletes the
    /// oldest ones: [`Mirror::surplus_decisions`](super::Mirror::surplus_decisions).
    pub fn put_decision(self, id: &str, decision: &Decision) -> Self {
        self.expect_absent(keys::decision(id))
            .put(keys::decision(id), codec::encode_decision(decision))
    }

    /// Decisions are never changed, so what is deleted is what was meant.
    pub fn delete_decisions<Id: AsRef<str>>(self, ids: impl IntoIterator<Item = Id>) -> Self {
        ids.into_iter()
            .fold(self, |write, id| write.delete(keys::decision(id.as_ref())))
    }

    pub fn put_token(self, id: &TokenId, token: &Token) -> Self {
        self.put(keys::token(id), codec::encode_token(token))
    }

    /// The transaction, for those who have to send it themselves.
    pub fn into_txn(self) -> Result<Txn, WriteError> {
        let unguarded = self.txn.success.iter().find(|op| {
            let is_compared = |op: &Op| self.txn.compares.iter().any(|compare| compare.key == *op.key());
            matches!(op, Op::Put { .. }) && !is_compared(op)
        });
        match unguarded {
            Some(op) => Err(WriteError::Unguarded {
                key: String::from_utf8_lossy(op.key()).into_owned(),
            }),
            None => Ok(self.txn),
        }
    }

    pub async fn commit(self, kv: &dyn Kv) -> Result<Committed, WriteError> {
        self.commit_within(kv, COMMIT_WITHIN).await
    }

    /// Commits, or says by then that the outcome is unknown.
    pub async fn commit_within(self, kv: &dyn Kv, within: Duration) -> Result<Committed, WriteError> {
        let txn = self.into_txn()?;
        let Ok(answer) = tokio::time::timeout(within, kv.txn(txn)).await else {
            let reason = format!("the store did not answer within {} ms", within.as_millis());
            return Err(KvError::OutcomeUnknown { reason }.into());
        };
        let answer = answer?;
        if answer.succeeded {
            Ok(Committed {
                revision: answer.revision,
            })
        } else {
            Err(WriteError::Raced)
        }
    }
}

#[cfg(test)]
mod tests;
