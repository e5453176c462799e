//! Many VMs: how fast they come, what they cost, and how soon a server that was killed has its share again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use plasmavmc_proto::api::{
    ListVmsRequest, RestartPolicy, Vm, WatchVmsRequest, vm::State, watch_vms_response::change::Change,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{Figures, bare_loop};
use crate::bench::process::{cpu_time_of, resident_mb_of};
use crate::bench_vm::{millis, percentile, rounded};
use crate::cluster::{Client, Cluster, Node, bare, until};

/// Orders in flight, over all nodes.
const IN_FLIGHT: usize = 12;
const SETTLE: Duration = Duration::from_secs(300);
const CALM: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
const LISTS: usize = 50;

pub async fn measure(cluster: &Cluster, count: usize, figures: &mut Figures) -> Result<()> {
    let clients = cluster.nodes().iter().map(Node::client).collect::<Result<Vec<_>>>()?;
    let first = clients.first().context("a node")?;
    let sample = create(first, "sample".to_owned()).await?;
    let arguments = bare_loop::arguments_of(sample.pid)?;
    first.delete(&sample.id, true).await?;

    let watched = Watched::begin(clients.last().context("a node")?).await?;
    let bare_folder = cluster.folder().join("bare");
    let before = bare_loop::rate(&bare_folder, &arguments, count).await?;
    let begun = Instant::now();
    let orders = (0..count).map(|number| create(&clients[number % clients.len()], format!("many-{number}")));
    let created: Vec<Vm> = futures::stream::iter(orders)
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await?;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    eprintln!(
        "{count} VMs: {rate:.1} a second, a bare loop {before:.1}, ratio {:.3}",
        rate / before
    );
    figures.insert("vms", count.into());
    figures.insert("vms_per_s", rounded(rate));
    figures.insert("bare_vms_per_s", rounded(before));
    figures.insert("spawn_rate_ratio", rounded(rate / before));
    figures.insert("watch_missed", watched.missed(&created).await?.into());

    list(&clients, count, figures).await?;
    idle(cluster, figures).await?;
    readopt(cluster, &created, figures).await
}

async fn create(client: &Client, name: String) -> Result<Vm> {
    let mut request = bare(&name);
    request.wait = true;
    // As in the bare loop: firmware that finds no disk wakes up for ever.
    request.start_paused = true;
    request.restart = Some(RestartPolicy {
        never: true,
        ..RestartPolicy::default()
    });
    let vm = client
        .create(request)
        .await
        .with_context(|| format!("creating {name}"))?;
    ensure!(vm.state() == State::Paused, "{vm:?}");
    Ok(vm)
}

async fn list(clients: &[Client], count: usize, figures: &mut Figures) -> Result<()> {
    let mut times = Vec::new();
    for round in 0..LISTS {
        let client = &clients[round % clients.len()];
        let begun = Instant::now();
        let mut request = ListVmsRequest::default();
        let mut listed = 0;
        loop {
            let page = client.vms().list_vms(request.clone()).await?.into_inner();
            listed += page.vms.len();
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        times.push(millis(begun.elapsed()));
        ensure!(listed == count, "{listed} of {count} VMs are listed");
    }
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    eprintln!("a list of {count} VMs: {p50:.1} ms (p99 {p99:.1})");
    figures.insert("list_500_ms", rounded(p50));
    figures.insert("list_500_p99_ms", rounded(p99));
    Ok(())
}

/// What the servers cost while nothing happens: the one that costs most.
async fn idle(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    tokio::time::sleep(CALM).await;
    let pids: Vec<String> = cluster
        .nodes()
        .iter()
        .filter_map(Node::pid)
        .map(|pid| pid.to_string())
        .collect();
    let before = pids.iter().map(|pid| cpu_time_of(pid)).collect::<Result<Vec<_>>>()?;
    let watched = Instant::now();
    tokio::time::sleep(IDLE).await;
    let (mut most_cpu, mut most_rss) = (0.0_f64, 0.0_f64);
    for (pid, before) in pids.iter().zip(before) {
        let busy = cpu_time_of(pid)?.saturating_sub(before);
        most_cpu = most_cpu.max(100.0 * busy.as_secs_f64() / watched.elapsed().as_secs_f64());
        most_rss = most_rss.max(resident_mb_of(pid)?);
    }
    eprintln!("a server while nothing happens: {most_rss:.1} MB, {most_cpu:.2} % of a processor");
    figures.insert("server_rss_mb", rounded(most_rss));
    figures.insert("idle_cpu_pct", rounded(most_cpu));
    Ok(())
}

/// A server is killed, and one of its QEMUs while it is away: it has its share again when it knows of that death,
/// and holds all the others.
async fn readopt(cluster: &Cluster, vms: &[Vm], figures: &mut Figures) -> Result<()> {
    let node = cluster.nodes().first().context("a node")?;
    let share: Vec<&Vm> = vms.iter().filter(|vm| vm.host == node.name).collect();
    let (victim, others) = share.split_first().context("the first node has no VM")?;
    node.kill();
    let pid = Pid::from_raw(i32::try_from(victim.pid)?).context("a pid")?;
    kill_process(pid, Signal::KILL)?;
    let started = cluster.restart(node, &[])?;
    let client = node.client()?;
    until("the server to have its share again", SETTLE, async || {
        let shown = client.list().await.map_err(|status| status.to_string())?;
        let state = |id: &str| shown.iter().find(|vm| vm.id == id).map(Vm::state);
        let knows = state(&victim.id).is_some_and(|state| state == State::Failed || state == State::Stopped);
        let held = others.iter().filter(|vm| state(&vm.id) == Some(State::Paused)).count();
        if knows && held == others.len() {
            Ok(())
        } else {
            Err(format!(
                "{held} of {} are held, the dead one is {:?}",
                others.len(),
                state(&victim.id)
            ))
        }
    })
    .await?;
    let took = started.elapsed().as_secs_f64();
    eprintln!("a restarted server has its {} VMs again after {took:.2} s", share.len());
    figures.insert("readopt_s", rounded(took));
    figures.insert("readopted", share.len().into());
    Ok(())
}

/// A watch, and what it has told.
struct Watched {
    held: Arc<Mutex<BTreeSet<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    async fn begin(client: &Client) -> Result<Self> {
        // No deadline: a watch has no end.
        let mut changes = client.vms().watch_vms(WatchVmsRequest::default()).await?.into_inner();
        let held = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&held);
        let task = tokio::spawn(async move {
            while let Ok(Some(batch)) = changes.message().await {
                let vms = batch.changes.into_iter().filter_map(|change| match change.change {
                    Some(Change::Vm(vm)) if vm.state() == State::Paused => Some(vm.id),
                    _ => None,
                });
                seen.lock().extend(vms);
            }
        });
        Ok(Self { held, task })
    }

    /// How many of them it has not told of.
    async fn missed(self, vms: &[Vm]) -> Result<usize> {
        let missing = || {
            let seen = self.held.lock();
            vms.iter().filter(|vm| !seen.contains(&vm.id)).count()
        };
        let told = until("the watch to tell of all", CALM, async || match missing() {
            0 => Ok(()),
            count => Err(format!("{count} are missing")),
        });
        if let Err(error) = told.await {
            eprintln!("{error:#}");
        }
        self.task.abort();
        Ok(missing())
    }
}
