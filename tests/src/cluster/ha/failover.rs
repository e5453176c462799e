//! `bench failover`: a host loses its power; how soon does what it ran run elsewhere?
//!
//! ```text
//!   power cut ▸ fenced (detection) ▸ placed elsewhere (decision) ▸ executes there (start) ▸ its agent answers (boot)
//! ```
//! Hosts are namespaces of one machine, with real servers, guards, QEMUs and guests. The wall clock is the same
//! everywhere, so the times of decisions can be put between those of the test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{CreateVmRequest, ExplainVmRequest, HaPolicy, Vm, vm::State};
use serde_json::{Value, json};

use super::{Sampler, leader, leased_on, movable, until_elsewhere};
use crate::cluster::{Client, HostedCluster, micro, until};

const HOSTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);
/// VMs that a host with many has.
const MANY: usize = 50;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Hosts that die of each kind, a follower's and the leader's
    #[arg(long, default_value_t = 30)]
    pub trials: usize,
    /// Three of each kind, and ten VMs instead of fifty
    #[arg(long)]
    pub quick: bool,
}

pub type Figures = BTreeMap<&'static str, Value>;

/// One death, in seconds from the power cut.
#[derive(Debug, Clone, Copy)]
struct Trial {
    fenced: f64,
    placed: f64,
    executing: f64,
    ready: f64,
}

pub fn run(options: &Options) -> Result<Figures> {
    let (trials, many) = if options.quick { (3, 10) } else { (options.trials, MANY) };
    let cluster = HostedCluster::build(HOSTS)?;
    let sampler = Sampler::start(cluster.lab().folder());
    let figures = cluster.run(async || {
        cluster.form().await?;
        let mut followers = Vec::new();
        let mut leaders = Vec::new();
        for trial in 0..trials {
            for (is_leader, kind, found) in [(false, "follower", &mut followers), (true, "leader", &mut leaders)] {
                let seen = one(&cluster, is_leader, trial)
                    .await
                    .with_context(|| format!("{kind}, trial {trial}"))?;
                eprintln!(
                    "{kind} {trial}: fenced {:.2} s, placed {:.2} s, executing {:.2} s, ready {:.2} s",
                    seen.fenced, seen.placed, seen.executing, seen.ready
                );
                found.push(seen);
            }
        }
        let fifty = at_once(&cluster, many).await.context("many VMs at once")?;
        Ok(figures(&followers, &leaders, many, fifty))
    })?;
    let doubles = sampler.doubles();
    ensure!(doubles.is_empty(), "VMs ran twice: {doubles:?}");
    Ok(figures)
}

fn guest(name: &str) -> Result<CreateVmRequest> {
    let mut request = micro(name, "")?;
    request.set_ha(HaPolicy::Auto);
    Ok(request)
}

/// A host whose VM has a guest with an agent dies.
async fn one(cluster: &HostedCluster, is_leader: bool, trial: usize) -> Result<Trial> {
    let leads = leader(cluster, 0).await?;
    let victim = (0..HOSTS).find(|host| (*host == leads) == is_leader).context("one")?;
    let asked = (0..HOSTS)
        .find(|host| *host != victim && *host != leads)
        .context("another")?;
    let vm = leased_on(cluster, victim, guest(&format!("trial-{trial}-{is_leader}"))?).await?;
    let client = cluster.client(asked)?;
    client
        .until_vm(&vm.id, "its agent to answer", PATIENCE, |vm| vm.agent == "responding")
        .await?;
    let (cut, cut_ms) = (Instant::now(), wall_ms());
    cluster.lab()[victim].power_cut()?;
    until_elsewhere(cluster, asked, &vm, PATIENCE).await?;
    let executing = cut.elapsed().as_secs_f64();
    let is_ready = |seen: &Vm| seen.agent == "responding" && seen.host != vm.host;
    client
        .until_vm(&vm.id, "its agent to answer again", PATIENCE, is_ready)
        .await?;
    let ready = cut.elapsed().as_secs_f64();
    let (fenced, placed) = decided(&client, &vm, cut_ms).await?;
    client.delete(&vm.id, true).await?;
    bring_back(cluster, victim, asked).await?;
    Ok(Trial {
        fenced,
        placed,
        executing,
        ready,
    })
}

async fn bring_back(cluster: &HostedCluster, victim: usize, asked: usize) -> Result<()> {
    cluster.lab()[victim].power_on()?;
    cluster.serve(victim, &[])?;
    for host in [asked, victim] {
        cluster.until_whole(host, HOSTS).await?;
    }
    Ok(())
}

/// When the fence and the new place were decided, in seconds from the power cut.
async fn decided(client: &Client, vm: &Vm, cut_ms: u64) -> Result<(f64, f64)> {
    let request = ExplainVmRequest { id: vm.id.clone() };
    let explained = client.vms().explain_vm(request).await?.into_inner();
    let moved = explained.decisions.iter().find(|decision| decision.kind == "failover");
    let placed_ms = moved.context("no failover was decided")?.at_ms;
    let hosts = client.list_hosts().await?;
    let fenced_ms = hosts
        .iter()
        .map(|host| host.fenced_at_ms)
        .filter(|at_ms| *at_ms >= cut_ms)
        .min();
    let since = |at_ms: u64| at_ms.saturating_sub(cut_ms) as f64 / 1000.0;
    Ok((since(fenced_ms.unwrap_or(placed_ms)), since(placed_ms)))
}

/// A host with many VMs dies: until the last of them executes elsewhere.
async fn at_once(cluster: &HostedCluster, many: usize) -> Result<f64> {
    let leads = leader(cluster, 0).await?;
    let victim = (leads + 1) % HOSTS;
    let first = leased_on(cluster, victim, movable("many-0")).await?;
    let client = cluster.client(leads)?;
    for host in (0..HOSTS).filter(|host| *host != victim) {
        client.drain(&cluster.name(host)).await?;
    }
    let mut vms = vec![first];
    for number in 1..many {
        vms.push(super::running_leased(&client, movable(&format!("many-{number}"))).await?);
    }
    for host in (0..HOSTS).filter(|host| *host != victim) {
        client.activate(&cluster.name(host)).await?;
    }
    let cut = Instant::now();
    cluster.lab()[victim].power_cut()?;
    until("all of them to run elsewhere", PATIENCE, async || {
        let seen = client.list().await.map_err(|status| status.to_string())?;
        let there = seen
            .iter()
            .filter(|vm| vm.state() == State::Running && vm.host != cluster.name(victim));
        match there.count() {
            count if count == vms.len() => Ok(()),
            count => Err(format!("{count} of {}", vms.len())),
        }
    })
    .await?;
    let took = cut.elapsed().as_secs_f64();
    eprintln!("{many} VMs executing elsewhere after {took:.2} s");
    for vm in &vms {
        client.delete(&vm.id, true).await?;
    }
    Ok(took)
}

fn figures(followers: &[Trial], leaders: &[Trial], many: usize, fifty: f64) -> Figures {
    let mut figures = Figures::new();
    let of = |trials: &[Trial], what: fn(&Trial) -> f64| trials.iter().map(what).collect::<Vec<f64>>();
    let all: Vec<Trial> = followers.iter().chain(leaders).copied().collect();
    for (name, trials) in [("follower", followers), ("leader", leaders)] {
        let executing = of(trials, |trial| trial.executing);
        let (p50, p99) = (at(&executing, 0.5), at(&executing, 0.99));
        eprintln!("{name}: executing elsewhere after {p50:.2} s (p50), {p99:.2} s (p99)");
        let keys = match name {
            "follower" => ("follower_p50_s", "follower_p99_s"),
            _ => ("leader_p50_s", "leader_p99_s"),
        };
        figures.insert(keys.0, json!(rounded(p50)));
        figures.insert(keys.1, json!(rounded(p99)));
    }
    let mid = |what: fn(&Trial) -> f64| rounded(at(&of(&all, what), 0.5));
    figures.insert("ready_p50_s", json!(mid(|trial| trial.ready)));
    figures.insert(
        "phases",
        json!({
            "detection_s": mid(|trial| trial.fenced),
            "decision_s": mid(|trial| trial.placed - trial.fenced),
            "start_s": mid(|trial| trial.executing - trial.placed),
            "boot_s": mid(|trial| trial.ready - trial.executing),
        }),
    );
    figures.insert("trials", json!(followers.len()));
    figures.insert("many_vms", json!(many));
    figures.insert("fifty_vms_s", json!(rounded(fifty)));
    figures
}

/// The smallest of which this share is not above it.
fn at(times: &[f64], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
