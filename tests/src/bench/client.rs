//! One client of either store: its own TCP connection and one call at a time.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use chainfire::proto as ours;
use tokio::time::{sleep, timeout};

use super::etcd;
use super::programs::{Address, Product};
use chainfire::transport::Wire;

pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
const CHANGE_DEADLINE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A connection with the calls that both stores know.
#[derive(Debug)]
pub struct Client {
    calls: Calls,
    /// After which a call is given up.
    deadline: Duration,
}

#[derive(Debug)]
enum Calls {
    ChainFire(ours::kv_client::KvClient<Wire>),
    Etcd(etcd::kv_client::KvClient<Wire>),
}

impl Client {
    pub async fn connect(product: Product, address: &str, deadline: Duration) -> Result<Self> {
        let wire = Wire::open(address, CONNECT_DEADLINE).await?;
        let calls = match product {
            Product::ChainFire => Calls::ChainFire(ours::kv_client::KvClient::new(wire)),
            Product::Etcd => Calls::Etcd(etcd::kv_client::KvClient::new(wire)),
        };
        Ok(Self { calls, deadline })
    }

    pub async fn put(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        match &mut self.calls {
            Calls::ChainFire(kv) => {
                timeout(self.deadline, kv.put(ours::PutRequest { key, value })).await??;
            }
            Calls::Etcd(kv) => {
                timeout(self.deadline, kv.put(etcd::PutRequest { key, value })).await??;
            }
        }
        Ok(())
    }

    /// Reads one key, linearizable.
    pub async fn get(&mut self, key: Bytes) -> Result<Option<Bytes>> {
        Ok(match &mut self.calls {
            Calls::ChainFire(kv) => {
                let request = ours::GetRequest { key, stale: false };
                let answer = timeout(self.deadline, kv.get(request)).await??;
                answer.into_inner().kv.map(|kv| kv.value)
            }
            Calls::Etcd(kv) => {
                let request = etcd::RangeRequest {
                    key,
                    ..Default::default()
                };
                let answer = timeout(self.deadline, kv.range(request)).await??;
                answer.into_inner().kvs.pop().map(|kv| kv.value)
            }
        })
    }

    /// Writes `key` if it is there: a transaction of one compare and one put. Answers whether it was.
    pub async fn put_if_present(&mut self, key: Bytes, value: Bytes) -> Result<bool> {
        Ok(match &mut self.calls {
            Calls::ChainFire(kv) => {
                let request = ours::TxnRequest {
                    compares: vec![ours::Compare {
                        key: key.clone(),
                        relation: ours::compare::Relation::Greater.into(),
                        target: Some(ours::compare::Target::Version(0)),
                    }],
                    success: vec![our_put(key, value)],
                    failure: Vec::new(),
                };
                timeout(self.deadline, kv.txn(request)).await??.into_inner().succeeded
            }
            Calls::Etcd(kv) => {
                let request = etcd::TxnRequest {
                    compare: vec![etcd::Compare {
                        key: key.clone(),
                        result: etcd::compare::CompareResult::Greater.into(),
                        target: etcd::compare::CompareTarget::Version.into(),
                        target_union: Some(etcd::compare::TargetUnion::Version(0)),
                    }],
                    success: vec![etcd_put(key, value)],
                    failure: Vec::new(),
                };
                timeout(self.deadline, kv.txn(request)).await??.into_inner().succeeded
            }
        })
    }

    /// Writes all `pairs` in one transaction.
    pub async fn put_all(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Result<()> {
        let succeeded = match &mut self.calls {
            Calls::ChainFire(kv) => {
                let request = ours::TxnRequest {
                    success: pairs.into_iter().map(|(key, value)| our_put(key, value)).collect(),
                    ..Default::default()
                };
                timeout(self.deadline, kv.txn(request)).await??.into_inner().succeeded
            }
            Calls::Etcd(kv) => {
                let request = etcd::TxnRequest {
                    success: pairs.into_iter().map(|(key, value)| etcd_put(key, value)).collect(),
                    ..Default::default()
                };
                timeout(self.deadline, kv.txn(request)).await??.into_inner().succeeded
            }
        };
        if !succeeded {
            bail!("a transaction without compares did not succeed");
        }
        Ok(())
    }
}

fn our_put(key: Bytes, value: Bytes) -> ours::Op {
    ours::Op {
        op: Some(ours::op::Op::Put(ours::PutRequest { key, value })),
    }
}

fn etcd_put(key: Bytes, value: Bytes) -> etcd::RequestOp {
    etcd::RequestOp {
        request: Some(etcd::request_op::Request::RequestPut(etcd::PutRequest { key, value })),
    }
}

/// What a member says of itself and its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    pub id: u64,
    /// 0: it knows none.
    pub leader_id: u64,
    pub term: u64,
    pub committed: u64,
    pub applied: u64,
    /// Of ChainFire, which makes joiners voters by itself, later; etcd's are voters from the start.
    pub voters: Option<usize>,
}

pub async fn status(product: Product, address: &str) -> Result<MemberStatus> {
    timeout(
        STATUS_DEADLINE,
        ask_status(product, Wire::open(address, CONNECT_DEADLINE).await?),
    )
    .await?
}

async fn ask_status(product: Product, wire: Wire) -> Result<MemberStatus> {
    match product {
        Product::ChainFire => {
            let mut cluster = ours::cluster_client::ClusterClient::new(wire);
            let status = cluster.status(ours::StatusRequest {}).await?.into_inner();
            Ok(MemberStatus {
                id: status.member.ok_or_else(|| anyhow!("a status without its member"))?.id,
                leader_id: status.leader_id,
                term: status.term,
                committed: status.committed_index,
                applied: status.applied_index,
                voters: Some(status.members.iter().filter(|member| member.voter).count()),
            })
        }
        Product::Etcd => {
            let mut maintenance = etcd::maintenance_client::MaintenanceClient::new(wire);
            let status = maintenance.status(etcd::StatusRequest {}).await?.into_inner();
            Ok(MemberStatus {
                id: status
                    .header
                    .ok_or_else(|| anyhow!("a status without a header"))?
                    .member_id,
                leader_id: status.leader,
                term: status.raft_term,
                committed: status.raft_index,
                applied: status.raft_applied_index,
                voters: None,
            })
        }
    }
}

/// Tells the cluster of a member that is about to join, where it does not tell by itself.
pub async fn announce(product: Product, address: &str, joiner: &Address) -> Result<()> {
    if product == Product::Etcd {
        let mut cluster = etcd::cluster_client::ClusterClient::new(Wire::open(address, CONNECT_DEADLINE).await?);
        let request = etcd::MemberAddRequest {
            peer_urls: vec![format!("http://{}", joiner.peer)],
        };
        timeout(CHANGE_DEADLINE, cluster.member_add(request)).await??;
    }
    Ok(())
}

/// Makes a snapshot and cuts the log, so that who joins cannot replay it. etcd does so by itself, every
/// 100,000 entries.
pub async fn compact_log(product: Product, address: &str) -> Result<()> {
    if product == Product::ChainFire {
        let mut cluster = ours::cluster_client::ClusterClient::new(Wire::open(address, CONNECT_DEADLINE).await?);
        let trigger = cluster.trigger_snapshot(ours::TriggerSnapshotRequest {});
        let covered = timeout(CHANGE_DEADLINE, trigger).await??.into_inner().snapshot_index;
        timeout(CHANGE_DEADLINE, wait_cut(&mut cluster, covered))
            .await
            .context("the log was not cut after a snapshot")??;
    }
    Ok(())
}

async fn wait_cut(cluster: &mut ours::cluster_client::ClusterClient<Wire>, covered: u64) -> Result<()> {
    loop {
        let status = cluster.status(ours::StatusRequest {}).await?.into_inner();
        if status.snapshot_index >= covered && status.purged_index > 0 {
            return Ok(());
        }
        sleep(ASK_EVERY).await;
    }
}
