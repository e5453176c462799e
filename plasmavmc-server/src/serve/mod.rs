//! The process: what starts, in which order, and what ends, in the other.
//!
//! ```text
//!   ground     folders, the claim to them, descriptors      identity   who this host is
//!   ports      the client port                              calls      what happens around every call
//!   place      what runs once the host belongs to a cluster: store, mirror, controller, agent, cluster port
//!   commits, metrics   what is measured
//! ```
//! The end: the client port (open watches are told, calls under way finish), the controller, the agent (QEMUs run
//! on), the store. Under two seconds, or it is left behind: nothing acknowledged is lost.

mod calls;
mod commits;
mod ground;
mod identity;
mod metrics;
mod place;
mod ports;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chainfire::node::Phase;
use chainfire::service::serve_connections;
use chainfire::transport::{self, BindError};
use plasmavmc_kvm::keeper::Keeper;
use plasmavmc_kvm::machine::Host;
use plasmavmc_kvm::qemu::Qemu;
use plasmavmc_kvm::refused::Refused;
use plasmavmc_types::{Address, Invalid};
use tokio_util::sync::CancellationToken;

pub use commits::CommitLatency;
pub use ground::{GroundError, prepare as claim_folder};
pub use identity::{HostIdentity, IdentityError};
pub use place::{PlaceError, Running, Starter};

use crate::api::{ApiError, place_of};
use crate::cluster::{ClusterService, Enrolment};
use crate::config::{Beginning, Config, TransportSecurity};
use calls::Calls;
use metrics::Metrics;
use ports::ClientPort;

/// Connections of clients.
const CLIENTS: usize = 8192;
/// How long the parts may take to end, all together.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host cannot run VMs")]
    Qemu(#[source] Refused),
    #[error(
        "there is no guard at {0}: it is installed beside this program; say with --guard where it is if it is elsewhere"
    )]
    NoGuard(PathBuf),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the address it listens on is none that can be advertised; say with --advertise where clients reach it")]
    Advertise(#[source] Invalid),
    #[error("threads cannot be started")]
    Threads(#[source] std::io::Error),
    #[error("the reflection service cannot be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("{0}")]
    Beginning(ApiError),
    #[error("this server's member of the store cannot go on; the messages before this one say why")]
    StoreEnded,
}

/// Runs a server until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), ServeError> {
    // About eight a VM, and one a client. The guard gives QEMUs limits of their own.
    chainfire::descriptors::raise_limit();
    let _claim = ground::prepare(&config)?;
    let identity = identity_of(&config)?;
    let kvm = match identity.witness {
        true => None,
        false => {
            ground::prepare_for_vms(&config)?;
            Some(Arc::new(kvm_host(&config).await?))
        }
    };
    let listener = transport::bind(&config.listen).await?;
    let address = listener.local_addr().map_err(ServeError::Threads)?;
    let raft = raft_threads().map_err(ServeError::Threads)?;
    let streams = CancellationToken::new();
    let store_metrics = Arc::<chainfire::metrics::Metrics>::default();
    let api = match &config.advertise {
        Some(api) => api.clone(),
        None => advertised(address)?,
    };
    let beginning = config.beginning.clone();
    say_hello(&config, &identity, address);
    let enrolment = Arc::new(Enrolment::new(
        Starter {
            config,
            identity,
            kvm,
            raft: raft.handle().clone(),
            store_metrics: Arc::clone(&store_metrics),
            streams: streams.clone(),
        },
        api,
    ));
    let port = ClientPort {
        cluster: ClusterService::new(Arc::clone(&enrolment)),
        calls: Calls {
            metrics: Metrics::default(),
            seat: enrolment.seat(),
        },
        store_metrics,
        stop: streams.clone(),
    };
    let clients = tokio::spawn(serve_connections(
        listener.into_inner(),
        port.router()?,
        CLIENTS,
        None,
        streams.clone(),
    ));
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = live(&enrolment, beginning) => ended,
    };
    let ending = async {
        streams.cancel();
        // A panic in there has been reported by its own message.
        let _ = clients.await;
        enrolment.stop().await;
    };
    if tokio::time::timeout(STOP_WITHIN, ending).await.is_err() {
        tracing::warn!("stopped without waiting any longer; nothing acknowledged is lost, and VMs run on");
    }
    raft.shutdown_background();
    outcome
}

/// Begins as told, then returns only when the store ends by itself.
async fn live(enrolment: &Arc<Enrolment>, beginning: Beginning) -> Result<(), ServeError> {
    if enrolment.is_member() {
        enrolment.resume().await?;
    } else {
        match beginning {
            Beginning::Wait => tracing::info!(
                "this server belongs to no cluster yet: 'plasmavmc cluster init' founds one, 'plasmavmc cluster join' \
                 joins one"
            ),
            Beginning::Init => drop(enrolment.found().await.map_err(ServeError::Beginning)?),
            Beginning::Join { via, token } => drop(enrolment.join(via, token).await.map_err(ServeError::Beginning)?),
        }
    }
    let mut seat = enrolment.seat();
    // An error means that this server stops.
    let _ = seat.wait_for(|standing| standing.place().is_ok()).await;
    let Ok(place) = place_of(&seat) else {
        return Err(ServeError::StoreEnded);
    };
    let mut phase = place.node.phase();
    // An error means the same: the node is gone.
    let _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped)).await;
    Err(ServeError::StoreEnded)
}

/// Who this host is, or is to be.
pub fn identity_of(config: &Config) -> Result<HostIdentity, IdentityError> {
    let wanted = identity::Wanted {
        name: config.name.as_ref(),
        usual: &Config::usual_name(),
        witness: config.witness,
        is_member: config.folders.is_member(),
    };
    HostIdentity::load_or_make(&config.folders.state, wanted)
}

fn say_hello(config: &Config, identity: &HostIdentity, address: SocketAddr) {
    let HostIdentity { name, host_id, witness } = identity;
    let (cluster, dir) = (&config.cluster_listen, config.folders.state.display());
    tracing::info!(%address, %cluster, host = %name, id = %host_id, witness, %dir, version = env!("CARGO_PKG_VERSION"), "listening");
    if config.transport_security == TransportSecurity::NoneByConsent {
        tracing::warn!("nothing is encrypted and nobody has to log in: whoever can connect controls every VM");
    }
}

/// Where clients reach a port that the system chose.
fn advertised(address: SocketAddr) -> Result<Address, ServeError> {
    address.to_string().parse().map_err(ServeError::Advertise)
}

/// Threads of replication, which are its own so that no load delays a heartbeat.
fn raft_threads() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((processors / 2).clamp(1, 2))
        .thread_name("raft")
        .enable_all()
        .build()
}

async fn kvm_host(config: &Config) -> Result<Host, ServeError> {
    let qemu = Qemu::find(config.vms.qemu.as_deref()).await.map_err(ServeError::Qemu)?;
    let guard = match &config.vms.guard {
        Some(guard) => guard.clone(),
        None => guard_beside(),
    };
    if !guard.is_file() {
        return Err(ServeError::NoGuard(guard));
    }
    Ok(Host {
        vms: config.folders.vms.clone(),
        keeper: Keeper::new(config.folders.guard.clone(), guard),
        qemu,
        run_as: config.vms.run_as.clone(),
        cgroup: config.vms.cgroup.clone(),
    })
}

fn guard_beside() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("plasmavmc-guard")
}
