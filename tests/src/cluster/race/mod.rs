//! `torture api`: many clients at once, through all nodes of a cluster, and a model that judges every answer.
//!
//! ```text
//!   client 1..N ── half of the calls ──▶ VMs of its own        every answer is foretold, to the reason
//!        │
//!        └──────── the other half ─────▶ VMs that all fight for  every answer has to fit the others:
//!                                                                 judged when all is over
//! ```
//! Every call goes to a random node. What was not answered is repeated on any, under the same request id; now
//! and then a client does not wait for the answer, or repeats a call although it was answered. In the end all nodes must show the same, everything
//! can be deleted, and nothing is left.

mod asker;
mod contested;
mod history;
mod own;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::{Client, Cluster, Programs, Site, until};
use asker::Asker;

const SETTLE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many calls, of all clients together
    #[arg(long, default_value_t = 10_000)]
    pub calls: u64,
    #[arg(long, default_value_t = 8)]
    pub clients: u64,
    /// Repeat a run's random choices (its timing cannot be repeated)
    #[arg(long)]
    pub seed: Option<u64>,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub calls: u64,
    /// Calls that were sent again because nothing was answered, or nobody waited for it.
    pub retries: u64,
    pub answers: BTreeMap<String, u64>,
    pub violations: Vec<String>,
    pub slowest_call_s: f64,
    pub seconds: f64,
    pub seed: u64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.violations.is_empty() && self.calls > 0
    }
}

pub async fn run(options: &Options) -> Result<Report> {
    let cluster = Cluster::start_at(Site::new()?, Programs::find()?, 3).await?;
    let outcome = race(&cluster, options).await;
    outcome.with_context(|| cluster.last_words())
}

async fn race(cluster: &Cluster, options: &Options) -> Result<Report> {
    let begun = Instant::now();
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    let mut report = Report {
        seed,
        ..Report::default()
    };
    let each = options.calls / options.clients.max(1);
    let mut running = Vec::new();
    for number in 0..options.clients {
        let clients = cluster
            .nodes()
            .iter()
            .map(super::Node::client)
            .collect::<Result<Vec<_>>>()?;
        let random = StdRng::seed_from_u64(seed.wrapping_add(number));
        let asker = Asker::new(number, clients, random, begun);
        running.push(one_client(asker, each));
    }
    let mut events = Vec::new();
    // In one task: its clients spend their time waiting.
    for (asker, violations) in futures::future::join_all(running).await {
        report.violations.extend(violations);
        report.retries += asker.retries;
        report.calls += asker.calls;
        report.slowest_call_s = report.slowest_call_s.max(asker.slowest.as_secs_f64());
        for (answer, count) in &asker.answers {
            *report.answers.entry(answer.clone()).or_default() += count;
        }
        events.extend(asker.into_events());
    }
    report.violations.extend(history::judge(&events));
    if let Err(error) = settle(cluster).await {
        report.violations.push(format!("in the end: {error:#}"));
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Half of the calls are about VMs that nobody else knows.
async fn one_client(mut asker: Asker, calls: u64) -> (Asker, Vec<String>) {
    let mut violations = Vec::new();
    let mut own = own::Own::new(asker.number);
    while asker.calls < calls {
        let step = if asker.random.random_bool(0.5) {
            own.step(&mut asker).await
        } else {
            contested::step(&mut asker).await
        };
        if let Err(error) = step {
            violations.push(format!("client {}: {error:#}", asker.number));
            // What follows from a wrong model is of no use.
            break;
        }
    }
    (asker, violations)
}

/// All nodes show the same; then everything goes, and nothing is left.
async fn settle(cluster: &Cluster) -> Result<()> {
    let clients = cluster
        .nodes()
        .iter()
        .map(super::Node::client)
        .collect::<Result<Vec<_>>>()?;
    let first = clients.first().context("a node")?;
    until("all operations to end", SETTLE, async || {
        let open = first.open_operations().await.map_err(|status| status.to_string())?;
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are open, such as {:?}", open.len(), open.first()))
        }
    })
    .await?;
    until("all nodes to show the same", SETTLE, async || {
        let mut shown = Vec::new();
        for client in &clients {
            shown.push(listing(client).await?);
        }
        let mut pairs = shown.iter().zip(shown.iter().skip(1));
        if pairs.all(|(one, other)| one == other) {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    })
    .await?;
    for vm in first.list().await? {
        first
            .delete(&vm.id, true)
            .await
            .with_context(|| format!("deleting {}", vm.name))?;
    }
    cluster.until_no_debris(first, SETTLE).await
}

async fn listing(client: &Client) -> Result<Vec<String>, String> {
    let vms = client.list().await.map_err(|status| status.to_string())?;
    let key =
        |vm: &plasmavmc_proto::api::Vm| format!("{} {} {} {:?} {}", vm.id, vm.name, vm.vmid, vm.state(), vm.generation);
    let mut all: Vec<String> = vms.iter().map(key).collect();
    all.sort();
    Ok(all)
}
