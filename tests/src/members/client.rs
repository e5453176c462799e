//! Calls to one member. Every call has a deadline, and every failure says whether the call may have been
//! carried out all the same.

use std::time::Duration;

use chainfire::kv::{Event, EventKind, Key, KeyValue, Revision, Value};
use chainfire::proto;
use chainfire::proto::cluster_client::ClusterClient;
use chainfire::proto::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use crate::history::Guard;

/// The metadata key of the machine-readable reason.
const REASON: &str = "chainfire-reason";
const CONNECT: Duration = Duration::from_millis(500);

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The reason the member named; empty where no member answered.
    pub reason: String,
    pub message: String,
}

impl Failure {
    /// Only a member that names a reason other than an unknown outcome vouches that nothing was changed.
    pub fn may_have_happened(&self) -> bool {
        self.reason.is_empty() || self.reason == "OUTCOME_UNKNOWN"
    }

    fn late(limit: Duration) -> Self {
        Self {
            reason: String::new(),
            message: format!("no answer within {limit:?}"),
        }
    }

    fn malformed(message: &str) -> Self {
        Self {
            reason: String::new(),
            message: message.to_owned(),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // A deadline or a broken transport may carry metadata of some other layer: not vouched for.
        let vouched = status.code() != Code::DeadlineExceeded || status.metadata().contains_key(REASON);
        let reason = status.metadata().get(REASON).and_then(|reason| reason.to_str().ok());
        Self {
            reason: reason.filter(|_| vouched).unwrap_or_default().to_owned(),
            message: format!("{:?}: {}", status.code(), status.message()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.reason, self.message)
    }
}

impl std::error::Error for Failure {}

/// All pages of one listing.
#[derive(Debug, Clone)]
pub struct Listing {
    pub revision: Revision,
    pub rows: Vec<KeyValue>,
}

/// A client of one member, on its own connection, which is made when needed and made again when lost.
#[derive(Debug, Clone)]
pub struct MemberClient {
    pub address: String,
    kv: KvClient<Channel>,
    cluster: ClusterClient<Channel>,
    limit: Duration,
}

impl MemberClient {
    /// `limit` is the deadline of each call. Must be called on a runtime.
    pub fn new(address: &str, limit: Duration) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT);
        Ok(Self::over(address, endpoint.connect_lazy(), limit))
    }

    /// A client on a connection made by the caller.
    pub fn over(address: &str, channel: Channel, limit: Duration) -> Self {
        Self {
            address: address.to_owned(),
            kv: KvClient::new(channel.clone()),
            cluster: ClusterClient::new(channel),
            limit,
        }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Failure::late(self.limit)),
        }
    }

    pub async fn get(&self, key: &Key, stale: bool) -> Result<(Revision, Option<KeyValue>), Failure> {
        let request = proto::GetRequest {
            key: key.clone(),
            stale,
        };
        let answer = self.within(self.kv.clone().get(request)).await?;
        Ok((answer.revision, answer.kv.map(row)))
    }

    /// Lists everything under a prefix, `page` keys at a time (0: the member's own page size).
    pub async fn list(&self, prefix: &Key, page: u32, stale: bool) -> Result<Listing, Failure> {
        let mut listing = Listing {
            revision: 0,
            rows: Vec::new(),
        };
        loop {
            let request = proto::RangeRequest {
                prefix: prefix.clone(),
                after: listing.rows.last().map(|row| row.key.clone()).unwrap_or_default(),
                limit: page,
                revision: listing.revision,
                stale,
                keys_only: false,
            };
            let answer = self.within(self.kv.clone().range(request)).await?;
            if listing.revision != 0 && answer.revision != listing.revision {
                return Err(Failure::malformed(
                    "a page came from another revision than the one asked for",
                ));
            }
            listing.revision = answer.revision;
            if answer.more && answer.kvs.is_empty() {
                return Err(Failure::malformed("an empty page says that more follows"));
            }
            listing.rows.extend(answer.kvs.into_iter().map(row));
            if !answer.more {
                return Ok(listing);
            }
        }
    }

    pub async fn put(&self, key: &Key, value: &Value) -> Result<Revision, Failure> {
        let request = put(key, value);
        Ok(self.within(self.kv.clone().put(request)).await?.revision)
    }

    pub async fn delete(&self, key: &Key) -> Result<(Revision, bool), Failure> {
        let request = proto::DeleteRequest {
            key: key.clone(),
            prefix: false,
        };
        let answer = self.within(self.kv.clone().delete(request)).await?;
        Ok((answer.revision, answer.deleted > 0))
    }

    /// Writes several keys as one transaction.
    pub async fn put_together(&self, puts: &[(Key, Value)]) -> Result<Revision, Failure> {
        let ops = puts.iter().map(|(key, value)| proto::Op {
            op: Some(proto::op::Op::Put(put(key, value))),
        });
        let request = proto::TxnRequest {
            compares: Vec::new(),
            success: ops.collect(),
            failure: Vec::new(),
        };
        Ok(self.within(self.kv.clone().txn(request)).await?.revision)
    }

    /// Writes if the guard holds. Answers the revision and whether it did.
    pub async fn swap(&self, key: &Key, guard: &Guard, value: &Value) -> Result<(Revision, bool), Failure> {
        let target = match guard {
            Guard::Revision(revision) => proto::compare::Target::ModRevision(*revision),
            Guard::Value(value) => proto::compare::Target::Value(value.clone()),
        };
        let request = proto::TxnRequest {
            compares: vec![proto::Compare {
                key: key.clone(),
                relation: proto::compare::Relation::Equal.into(),
                target: Some(target),
            }],
            success: vec![proto::Op {
                op: Some(proto::op::Op::Put(put(key, value))),
            }],
            failure: Vec::new(),
        };
        let answer = self.within(self.kv.clone().txn(request)).await?;
        Ok((answer.revision, answer.succeeded))
    }

    /// Watches a prefix from a revision on.
    pub async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watching, Failure> {
        let request = proto::WatchRequest {
            prefix: prefix.clone(),
            from_revision: from,
        };
        let stream = self.within(self.kv.clone().watch(request)).await?;
        Ok(Watching { stream })
    }

    pub async fn status(&self) -> Result<proto::StatusResponse, Failure> {
        self.within(self.cluster.clone().status(proto::StatusRequest {})).await
    }

    pub async fn remove_member(&self, member_id: u64) -> Result<(), Failure> {
        let request = proto::MemberRemoveRequest { member_id };
        self.within(self.cluster.clone().member_remove(request)).await.map(drop)
    }

    /// Has the member build a snapshot and cut its log.
    pub async fn snapshot(&self) -> Result<(), Failure> {
        let request = proto::TriggerSnapshotRequest {};
        self.within(self.cluster.clone().trigger_snapshot(request))
            .await
            .map(drop)
    }
}

/// Why a watch has no next message.
#[derive(Debug)]
pub enum WatchEnd {
    /// Nothing came in the time given.
    Idle,
    Failed(Failure),
}

impl WatchEnd {
    /// Whether the watcher must list again instead of resuming.
    pub fn lost_history(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.reason == "COMPACTED" || failure.reason == "SLOW_WATCHER")
    }
}

/// An open watch.
#[derive(Debug)]
pub struct Watching {
    stream: Streaming<proto::WatchResponse>,
}

impl Watching {
    /// The next message: events, and everything below which revision has been sent.
    pub async fn next(&mut self, idle: Duration) -> Result<(Vec<Event>, Revision), WatchEnd> {
        match tokio::time::timeout(idle, self.stream.message()).await {
            Err(_) => Err(WatchEnd::Idle),
            Ok(Err(status)) => Err(WatchEnd::Failed(status.into())),
            Ok(Ok(None)) => Err(WatchEnd::Failed(Failure::malformed("the watch ended"))),
            Ok(Ok(Some(batch))) => {
                let events = batch.events.into_iter().filter_map(event).collect();
                Ok((events, batch.next_revision))
            }
        }
    }
}

fn put(key: &Key, value: &Value) -> proto::PutRequest {
    proto::PutRequest {
        key: key.clone(),
        value: value.clone(),
    }
}

fn row(kv: proto::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    }
}

fn event(event: proto::Event) -> Option<Event> {
    let kind = match event.kind() {
        proto::event::Kind::Put => EventKind::Put,
        proto::event::Kind::Delete => EventKind::Delete,
    };
    Some(Event {
        kind,
        kv: row(event.kv?),
    })
}
