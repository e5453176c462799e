//! `chainfire serve`: one member, until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chainfire::kv::Limits;
use chainfire::metrics::Metrics;
use chainfire::node::{Node, NodeOptions, Start};
use chainfire::raft::timing::Timing;
use chainfire::service::Server;

/// Run a member of a cluster.
///
/// The first member founds the cluster, the others join it through any member:
///
///   chainfire serve --dir a --listen 127.0.0.1:50061 --init
///   chainfire serve --dir b --listen 127.0.0.1:50062 --join 127.0.0.1:50061
///   chainfire serve --dir c --listen 127.0.0.1:50063 --join 127.0.0.1:50061
///
/// A folder that belongs to a cluster goes on with it; --init and --join are then ignored, so the same
/// command can start a member every time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of this member's data; made if needed, used by one server at a time
    #[arg(long, env = "CHAINFIRE_DIR")]
    dir: PathBuf,
    /// HOST:PORT to listen on, for clients and other members
    #[arg(long, env = "CHAINFIRE_LISTEN", default_value = "127.0.0.1:50061")]
    listen: String,
    /// HOST:PORT where others reach this member [default: the address it listens on]
    #[arg(long)]
    advertise: Option<String>,
    /// A name for people [default: the advertised address]
    #[arg(long)]
    name: Option<String>,
    /// Found a new cluster
    #[arg(long, conflicts_with = "join")]
    init: bool,
    /// Join through these members
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    join: Vec<String>,
    /// Join without a vote: a copy that counts for no quorum
    #[arg(long, requires = "join")]
    learner: bool,
    /// Refuse writes while the disk has less room than this
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    disk_reserve_mib: u64,
    /// Connections of clients at once
    #[arg(long, default_value_t = Limits::default().clients)]
    max_clients: usize,
    /// Watches at once
    #[arg(long, default_value_t = Limits::default().watches)]
    max_watches: usize,
}

/// Threads that answer clients, and threads of replication, so that no load delays a heartbeat; the first few
/// connections have seats on the latter. Where processors are few, a second thread costs more wake-ups than it saves.
fn threads() -> (usize, usize) {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ((processors / 2).clamp(1, 4), (processors / 2).clamp(1, 2))
}

/// How long a shutdown may take before the process ends anyway.
const STOP_DEADLINE: Duration = Duration::from_millis(1800);

pub fn run(args: Args) -> anyhow::Result<()> {
    chainfire::descriptors::raise_limit();
    let (for_clients, for_replication) = threads();
    let clients = runtime("chainfire-client", for_clients)?;
    let replication = runtime("chainfire-raft", for_replication)?;
    let outcome = clients.block_on(serve(args, replication.handle().clone()));
    replication.shutdown_timeout(Duration::from_millis(100));
    clients.shutdown_timeout(Duration::from_millis(100));
    outcome
}

fn runtime(name: &str, threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .context("cannot start threads")
}

async fn serve(args: Args, replication: tokio::runtime::Handle) -> anyhow::Result<()> {
    let advertise = args.advertise.clone().unwrap_or_else(|| args.listen.clone());
    advertise
        .parse::<chainfire::transport::Address>()
        .context("--advertise (or --listen) must be HOST:PORT")?;
    let metrics = Arc::new(Metrics::default());
    let options = NodeOptions {
        folder: args.dir.clone(),
        name: args.name.clone().unwrap_or_else(|| advertise.clone()),
        advertise,
        start: start_of(&args),
        limits: Limits {
            clients: args.max_clients,
            watches: args.max_watches,
            ..Limits::default()
        },
        timing: Timing::default(),
        disk_reserve_bytes: args.disk_reserve_mib << 20,
    };
    let node = Node::start(options, metrics, replication).await?;
    let server = match Server::start(node.clone(), &args.listen).await {
        Ok(server) => server,
        Err(error) => {
            node.shutdown().await;
            return Err(error.into());
        }
    };
    tracing::info!(address = %server.address(), id = node.id(), "serving");
    let ended = wait_for_end(&node).await?;
    let stopping = async {
        server.stop().await;
        node.shutdown().await;
    };
    if tokio::time::timeout(STOP_DEADLINE, stopping).await.is_err() {
        tracing::warn!("stopped without waiting any longer; nothing acknowledged is lost");
    }
    ended
}

/// Returns on a signal, or with an error when the node gave up by itself.
async fn wait_for_end(node: &Node) -> anyhow::Result<anyhow::Result<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut phase = node.phase();
    let stopped = phase.wait_for(|phase| matches!(phase, chainfire::node::Phase::Stopped));
    Ok(tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = stopped => Err(anyhow::anyhow!("this member cannot go on; its last message says why")),
    })
}

fn start_of(args: &Args) -> Start {
    if args.init {
        Start::Found
    } else if args.join.is_empty() {
        Start::Resume
    } else {
        Start::Join {
            via: args.join.clone(),
            as_learner: args.learner,
        }
    }
}
