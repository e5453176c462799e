//! Servers that are killed and come back, and QEMUs that are killed: how soon what is said is true again.
//!
//! ```text
//!   server:  kill -9 ▸ the others answer ▸ (every other time a QEMU dies meanwhile) ▸ started again
//!            ▸ adopted: the VM obeys an order ▸ true: what died is not said to run
//!   QEMU:    kill -9 ▸ no node says any more that it runs ▸ it runs again, as its policy has it
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{PauseVmRequest, RestartPolicy, ResumeVmRequest, Vm, operation, vm::State};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{Client, Cluster, Node, Programs, Site, bare, until};

const NODES: usize = 3;
/// So many that some share a host, and that one is back when it is its turn again.
const VMS: usize = 12;
/// What is promised.
const ADOPTED_WITHIN: Duration = Duration::from_secs(2);
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// What is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often a server is killed
    #[arg(long, default_value_t = 50)]
    pub servers: u32,
    /// How often a QEMU is killed
    #[arg(long, default_value_t = 150)]
    pub qemus: u32,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub servers_killed: u32,
    /// Adopted, and all that is said is true, within 2 s of the start of the server.
    pub adopted_in_time: u32,
    pub adopted_p50_ms: u64,
    pub adopted_max_ms: u64,
    /// After the death of a server, until both others answered.
    pub others_answer_p50_ms: u64,
    pub others_answer_max_ms: u64,
    pub qemus_killed: u32,
    /// After the death of a QEMU, until no node said any more that it runs.
    pub told_p50_ms: u64,
    pub told_p99_ms: u64,
    pub told_max_ms: u64,
    /// After the death of a QEMU, until the VM ran again; its policy begins with a pause of a second.
    pub again_p50_ms: u64,
    pub again_max_ms: u64,
    pub violations: Vec<String>,
    pub seconds: f64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        let is_told = Duration::from_millis(self.told_p99_ms) <= TOLD_WITHIN;
        self.violations.is_empty() && self.adopted_in_time == self.servers_killed && is_told
    }
}

pub async fn run(options: &Options) -> Result<Report> {
    let cluster = Cluster::start_at(Site::new()?, Programs::find()?, NODES).await?;
    let outcome = both(&cluster, options).await;
    outcome.with_context(|| cluster.last_words())
}

async fn both(cluster: &Cluster, options: &Options) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    let first = cluster.client(0)?;
    let mut vms = Vec::new();
    for number in 0..VMS {
        vms.push(created(&first, number).await?);
    }
    kill_servers(cluster, &vms, options.servers, &mut report).await?;
    kill_qemus(cluster, &vms, options.qemus, &mut report).await?;
    for vm in &vms {
        first.delete(&vm.id, true).await?;
    }
    if let Err(error) = cluster.until_no_debris(&first, PATIENCE).await {
        report.violations.push(format!("{error:#}"));
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// A VM that is always started again: what is counted is forgotten as soon as it can be.
async fn created(client: &Client, number: usize) -> Result<Vm> {
    let mut request = bare(&format!("vm-{number}"));
    request.wait = true;
    request.restart = Some(RestartPolicy {
        never: false,
        tries: 100,
        window_s: 10,
    });
    Ok(client.create(request).await?)
}

async fn kill_servers(cluster: &Cluster, vms: &[Vm], rounds: u32, report: &mut Report) -> Result<()> {
    let (mut adopted, mut answered) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let node = &cluster.nodes()[round as usize % NODES];
        let mut here = vms.iter().filter(|vm| vm.host == node.name);
        let (Some(stays), Some(dies)) = (here.next(), here.next()) else {
            // Where less than two are, nothing can be compared.
            continue;
        };
        let killed = node.kill();
        for other in cluster.others(node) {
            let client = other.client()?;
            until(&format!("{} to answer", other.name), PATIENCE, async || {
                client.get(&stays.id).await
            })
            .await?;
        }
        answered.push(killed.elapsed());
        let victim = (round % 2 == 0).then_some(dies);
        match comes_back(cluster, node, stays, victim).await {
            Ok(took) => {
                report.adopted_in_time += u32::from(took <= ADOPTED_WITHIN);
                eprintln!(
                    "server {} killed, {round}: adopted after {} ms",
                    node.name,
                    took.as_millis()
                );
                adopted.push(took);
            }
            Err(error) => report
                .violations
                .push(format!("round {round}, {}: {error:#}", node.name)),
        }
        report.servers_killed += 1;
        cluster.until_all_whole().await?;
        for vm in [stays, dies] {
            node.client()?.until_state(&vm.id, State::Running, PATIENCE).await?;
        }
    }
    (report.adopted_p50_ms, _, report.adopted_max_ms) = figures(adopted);
    (report.others_answer_p50_ms, _, report.others_answer_max_ms) = figures(answered);
    Ok(())
}

/// Starts a server again; after the returned time it has adopted what runs, and says nothing that is not true.
async fn comes_back(cluster: &Cluster, node: &Node, stays: &Vm, victim: Option<&Vm>) -> Result<Duration> {
    let pid = only_qemu(cluster, stays)?;
    let dead = victim.map(|vm| only_qemu(cluster, vm)).transpose()?;
    if let Some(dead) = dead {
        kill(dead)?;
    }
    let started = cluster.restart(node, &[])?;
    let client = node.client()?;
    let id = stays.id.clone();
    // Only who has taken the VM over can hold it.
    let request = PauseVmRequest {
        id: id.clone(),
        wait: true,
        request_id: format!("pause-{}-{}", node.name, started.elapsed().as_nanos()),
    };
    let paused = until("the VM to obey", PATIENCE, async || {
        client.vms().pause_vm(request.clone()).await
    })
    .await?;
    ensure!(
        paused.get_ref().state() == operation::State::Done,
        "{:?}",
        paused.get_ref()
    );
    if let (Some(vm), Some(dead)) = (victim, dead) {
        let is_true = |seen: &Vm| seen.state() != State::Running || i64::from(seen.pid) != i64::from(dead);
        client
            .until_vm(&vm.id, "its death to be told", PATIENCE, is_true)
            .await?;
    }
    let took = started.elapsed();
    let seen = client.get(&id).await?;
    ensure!(
        i64::from(seen.pid) == i64::from(pid) && only_qemu(cluster, stays)? == pid,
        "its QEMU is not the one that ran: {seen:?}"
    );
    let request = ResumeVmRequest {
        id,
        wait: true,
        ..ResumeVmRequest::default()
    };
    client.vms().resume_vm(request).await?;
    Ok(took)
}

async fn kill_qemus(cluster: &Cluster, vms: &[Vm], rounds: u32, report: &mut Report) -> Result<()> {
    let clients = cluster.nodes().iter().map(Node::client).collect::<Result<Vec<_>>>()?;
    let first = clients.first().context("a node")?;
    let (mut told, mut again) = (Vec::new(), Vec::new());
    for (round, vm) in vms.iter().cycle().take(rounds as usize).enumerate() {
        let runs = first.until_state(&vm.id, State::Running, PATIENCE).await?;
        let killed = Instant::now();
        kill(i32::try_from(runs.pid)?)?;
        let is_told = |seen: &Vm| seen.state() != State::Running || seen.pid != runs.pid;
        let each = clients
            .iter()
            .map(|client| client.until_vm(&vm.id, "the death of a QEMU to be told", PATIENCE, is_told));
        futures::future::try_join_all(each).await?;
        told.push(killed.elapsed());
        // The first time of each: later ones come back after longer and longer pauses.
        if round < vms.len() {
            let is_back = |seen: &Vm| seen.state() == State::Running && seen.pid != runs.pid;
            let back = first.until_vm(&vm.id, "it to run again", PATIENCE, is_back).await?;
            again.push(killed.elapsed());
            only_qemu(cluster, &back)?;
        }
        report.qemus_killed += 1;
    }
    (report.told_p50_ms, report.told_p99_ms, report.told_max_ms) = figures(told);
    (report.again_p50_ms, _, report.again_max_ms) = figures(again);
    Ok(())
}

fn only_qemu(cluster: &Cluster, vm: &Vm) -> Result<i32> {
    let pids = cluster.site().qemus_of(&vm.id);
    ensure!(pids.len() == 1, "{} has the QEMUs {pids:?}", vm.name);
    pids.first().copied().context("one")
}

fn kill(pid: i32) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid).context("a pid")?, Signal::KILL)?)
}

/// Median, 99th percentile and maximum, in milliseconds.
fn figures(mut all: Vec<Duration>) -> (u64, u64, u64) {
    all.sort_unstable();
    let at = |part: usize| {
        let index = (all.len() * part).div_ceil(100).saturating_sub(1);
        let found = all.get(index).copied().unwrap_or_default();
        u64::try_from(found.as_millis()).unwrap_or(u64::MAX)
    };
    (at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_that_was_measured() {
        let all = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(figures(all), (100, 198, 200));
        assert_eq!(figures(Vec::new()), (0, 0, 0));
    }
}
