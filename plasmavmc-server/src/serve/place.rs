//! Everything that runs once this server belongs to a cluster: the member of the store with its port, the
//! mirror, this host's agent, the controller.
//!
//! ```text
//!   start   member -> cluster port -> mirror -> controller -> agent
//!   stop    controller -> agent (QEMUs run on) -> cluster port -> member
//! ```

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::{Kv, Limits};
use chainfire::node::{Node, NodeOptions, Start, StartError};
use chainfire::raft::timing::Timing;
use chainfire::service::{member_routes, serve_connections};
use chainfire::transport::{self, BindError};
use plasmavmc_kvm::machine::Host;
use plasmavmc_proto::node::node_server::NodeServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::commits::{CommitLatency, TimedKv};
use super::identity::HostIdentity;
use crate::agent::{AgentConfig, AgentParts, CapacityRule, HostAgent, Pool};
use crate::api::{Backend, NodeService, Place};
use crate::cluster::{Peers, leadership};
use crate::config::{Config, PoolKind};
use crate::control::{Controller, Others};
use crate::store::Mirror;

/// Connections of other servers; each has a few.
const PEERS: usize = 1024;
/// Room on the disk that VMs' images must leave to the store.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// What a stop may take of its two seconds for each part.
const PART_STOPS_WITHIN: Duration = Duration::from_millis(600);

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the store: {0}")]
    Store(#[from] StartError),
    #[error("the host agent: {0}")]
    Agent(#[from] crate::agent::AgentError),
    #[error("a part of the server has died")]
    Died,
}

/// What it takes to start.
#[derive(Debug)]
pub struct Starter {
    pub config: Config,
    pub identity: HostIdentity,
    /// Absent on a witness, which runs no VMs.
    pub kvm: Option<Arc<Host>>,
    /// Replication has threads of its own: no load of calls delays a heartbeat.
    pub raft: tokio::runtime::Handle,
    pub store_metrics: Arc<chainfire::metrics::Metrics>,
    /// Ends streams of the API, and nothing else.
    pub streams: CancellationToken,
}

/// All that runs.
#[derive(Debug)]
pub struct Running {
    pub place: Arc<Place>,
    pub leadership: watch::Receiver<bool>,
    /// A witness has none.
    agent: Option<HostAgent>,
    controller: Controller,
    node: Node,
    port: JoinHandle<()>,
    stop_controller: CancellationToken,
    stop_mirror: CancellationToken,
    stop_port: CancellationToken,
}

/// A member with its port, before anything uses it.
#[derive(Debug)]
pub struct Joined {
    pub node: Node,
    pub kv: Arc<dyn Kv>,
    pub leadership: watch::Receiver<bool>,
    voters: watch::Receiver<usize>,
    commits: Arc<CommitLatency>,
    listener: TcpListener,
    stop: CancellationToken,
}

impl Starter {
    /// Starts the member of the store.
    pub async fn join(&self, start: Start) -> Result<Joined, PlaceError> {
        // Before the member: others may call as soon as it has a place.
        let address = self.config.cluster_listen.clone();
        let bound = self.raft.spawn(async move { transport::bind(&address).await });
        let listener = bound.await.map_err(|_| PlaceError::Died)??.into_inner();
        let options = NodeOptions {
            folder: self.config.folders.chainfire.clone(),
            name: self.identity.name.to_string(),
            advertise: self.config.cluster_advertise.to_string(),
            start,
            limits: Limits::default(),
            timing: Timing::default(),
            disk_reserve_bytes: DISK_RESERVE_BYTES,
        };
        let node = Node::start(options, Arc::clone(&self.store_metrics), self.raft.clone()).await?;
        let commits = Arc::<CommitLatency>::default();
        let stop = CancellationToken::new();
        Ok(Joined {
            kv: Arc::new(TimedKv::new(Arc::new(node.kv()), Arc::clone(&commits))),
            leadership: leadership::follow(node.clone(), stop.clone()),
            voters: leadership::voters(node.clone(), stop.clone()),
            node,
            commits,
            listener,
            stop,
        })
    }

    /// Starts the rest.
    pub async fn run(&self, joined: Joined) -> Result<Running, PlaceError> {
        let stop_mirror = CancellationToken::new();
        let mirror = Mirror::start(Arc::clone(&joined.kv), stop_mirror.clone());
        let stop_controller = CancellationToken::new();
        let controller = Controller::start(
            Arc::clone(&joined.kv),
            mirror.clone(),
            joined.leadership.clone(),
            Others {
                own: self.identity.host_id,
                members: Arc::new(Peers {
                    node: joined.node.clone(),
                }),
            },
            stop_controller.clone(),
        );
        let agent = match self.agent(&joined, &mirror).await {
            Ok(agent) => agent,
            Err(error) => {
                stop_controller.cancel();
                stop_mirror.cancel();
                joined.abandon().await;
                return Err(error);
            }
        };
        let backend = Backend::new(
            Arc::clone(&joined.kv),
            mirror,
            self.identity.host_id,
            joined.voters.clone(),
            self.streams.clone(),
        );
        let place = Arc::new(Place {
            backend,
            node: joined.node.clone(),
            consoles: agent.as_ref().map(HostAgent::consoles).unwrap_or_default(),
            commits: joined.commits,
        });
        let routes = member_routes(joined.node.clone())
            .add_service(NodeServer::new(NodeService::new(Arc::clone(&place))))
            .into_axum_router();
        let serving = serve_connections(joined.listener, routes, PEERS, None, joined.stop.clone());
        let port = self.raft.spawn(serving);
        Ok(Running {
            place,
            leadership: joined.leadership,
            agent,
            controller,
            node: joined.node,
            port,
            stop_controller,
            stop_mirror,
            stop_port: joined.stop,
        })
    }
}

impl Starter {
    async fn agent(&self, joined: &Joined, mirror: &Mirror) -> Result<Option<HostAgent>, PlaceError> {
        let Some(kvm) = &self.kvm else {
            return Ok(None);
        };
        let parts = AgentParts {
            host: self.identity.host_id,
            kv: Arc::clone(&joined.kv),
            mirror: mirror.clone(),
            kvm: Arc::clone(kvm),
            config: agent_config(&self.config),
            voters: joined.voters.clone(),
            stop: CancellationToken::new(),
        };
        Ok(Some(HostAgent::start(parts).await?))
    }
}

impl Joined {
    /// Ends the member. Its folder keeps its place.
    pub async fn abandon(self) {
        self.stop.cancel();
        self.node.shutdown().await;
    }
}

impl Running {
    /// Ends everything, each part within its time. QEMUs run on.
    pub async fn stop(self) {
        self.stop_controller.cancel();
        part_ends("the controller", self.controller.ended()).await;
        if let Some(agent) = self.agent {
            part_ends("the agent", agent.stop()).await;
        }
        self.stop_mirror.cancel();
        self.stop_port.cancel();
        part_ends("the member of the store", self.node.shutdown()).await;
        part_ends("the cluster port", async {
            // A panic in there has been reported by its own message.
            let _ = self.port.await;
        })
        .await;
    }
}

fn agent_config(config: &Config) -> AgentConfig {
    let pools = config.pools.iter().map(|pool| {
        let settings = Pool {
            folder: pool.path.clone(),
            is_shared: pool.kind == PoolKind::Shared,
        };
        (pool.name.clone(), settings)
    });
    let networks = config.networks.iter();
    let vms = &config.vms;
    AgentConfig {
        instance: config.folders.instance.clone(),
        pools: pools.collect(),
        networks: networks
            .map(|network| (network.name.clone(), network.bridge.clone()))
            .collect(),
        accelerator: vms.accel,
        capacity: CapacityRule {
            vcpus_per_cpu: vms.vcpus_per_cpu,
            reserve_vcpus: vms.reserve_vcpus,
            memory_percent: vms.memory_percent,
            reserve_memory_mb: vms.reserve_memory_mb,
        },
        ..AgentConfig::at(&config.folders.state)
    }
}

async fn part_ends(what: &str, ending: impl Future<Output = ()>) {
    if tokio::time::timeout(PART_STOPS_WITHIN, ending).await.is_err() {
        tracing::warn!("{what} did not end in time; it is left behind, and nothing acknowledged is lost");
    }
}
