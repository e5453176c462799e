//! `torture ha`: faults at random, one after the other, on a cluster that runs VMs. Nothing may ever run twice, nothing
//! may get lost, and after each fault everything must run again soon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plasmavmc_proto::api::{Vm, vm::State};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Serialize;

use super::guests::{counting, read, until_counted};
use super::strikes::{Fault, Striker};
use super::{Entry, Reader, Sampler, movable, running_leased};
use crate::cluster::{Client, HostedCluster, until};
use crate::hosts::DiskPlan;

/// What is promised: everything runs again this long after a fault is mended.
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);
/// What is waited for, to tell slow from never.
const PATIENCE: Duration = Duration::from_secs(180);
const DISK_MIB: u32 = 256;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Faults in a row
    #[arg(long, default_value_t = 300)]
    pub faults: u32,
    #[arg(long, default_value_t = 3)]
    pub hosts: usize,
    #[arg(long, default_value_t = 8)]
    pub vms: usize,
    /// Guests among them that count on a disk of a shared pool
    #[arg(long, default_value_t = 2)]
    pub guests: usize,
    /// The same seed strikes in the same order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Each fault twice
    #[arg(long)]
    pub quick: bool,
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub faults: BTreeMap<Fault, u32>,
    pub struck: u32,
    /// Kinds of faults that never came.
    pub missed: Vec<Fault>,
    pub double_runs: usize,
    pub lost_vms: usize,
    /// VMs that were started anew by a fault that may only pause them.
    pub spurious_reboots: u32,
    /// Guests that were booted though their process is the same, that wrote no more, or what no guest may write.
    pub guest_faults: Vec<String>,
    /// Boots that the guests wrote down on their disks.
    pub guest_boots: usize,
    /// VMs that were started on another host.
    pub moves: u64,
    pub max_converge_s: f64,
    pub p50_converge_s: f64,
    /// Faults after which not everything ran in time.
    pub late: u32,
    /// The longest time in which the processes were not looked at.
    pub slowest_look_ms: u64,
    pub looks: u64,
    pub problems: Vec<String>,
    pub seconds: f64,
}

impl Report {
    /// Counts what a fault moved, and what it should have left alone. How many VMs are not what they were.
    fn compare(&mut self, what: &str, fault: Fault, before: &Seen, after: &Seen) -> usize {
        let changed = changed(before, after);
        let starts = after
            .iter()
            .map(|(id, vm)| vm.incarnation - before.get(id).map_or(0, |vm| vm.incarnation));
        self.moves += starts.sum::<u64>();
        if fault.costs_a_pause_only() && !changed.is_empty() {
            self.spurious_reboots += u32::try_from(changed.len()).unwrap_or(u32::MAX);
            self.problems.push(format!("{what}: {}", changed.join("; ")));
        }
        changed.len()
    }

    fn sum_up(&mut self, mut converged: Vec<f64>, tally: BTreeMap<Fault, u32>) {
        converged.sort_by(f64::total_cmp);
        self.max_converge_s = converged.last().copied().unwrap_or_default();
        self.p50_converge_s = converged.get(converged.len() / 2).copied().unwrap_or_default();
        self.struck = tally.values().sum();
        self.missed = Fault::ALL
            .into_iter()
            .filter(|fault| !tally.contains_key(fault))
            .collect();
        self.faults = tally;
    }

    pub fn is_success(&self) -> bool {
        self.double_runs == 0
            && self.lost_vms == 0
            && self.spurious_reboots == 0
            && self.late == 0
            && self.missed.is_empty()
            && self.guest_faults.is_empty()
            && self.problems.is_empty()
    }
}

pub fn run(options: &Options) -> Result<Report> {
    let began = Instant::now();
    let cluster = HostedCluster::build_with_pool(options.hosts, DiskPlan::Limited { mib: DISK_MIB })?;
    let sampler = Sampler::start(cluster.lab().folder());
    let mut report = cluster.run(async || {
        cluster.form().await?;
        cluster.until_shared().await?;
        rage(&cluster, options, &sampler).await
    })?;
    let doubles = sampler.doubles();
    for double in &doubles {
        report.problems.push(format!("{double:?}"));
    }
    report.double_runs = doubles.len();
    report.slowest_look_ms = sampler.slowest_ms();
    report.looks = sampler.looks();
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// VMs without guests, and guests that count.
async fn populate(cluster: &HostedCluster, options: &Options) -> Result<Vec<Witness>> {
    let client = cluster.client(0)?;
    for number in options.guests..options.vms {
        running_leased(&client, movable(&format!("vm-{number}"))).await?;
    }
    let mut witnesses = Vec::new();
    for number in 0..options.guests.min(options.vms) {
        let vm = running_leased(&client, counting(&format!("guest-{number}"))?).await?;
        witnesses.push(Witness::of(cluster, vm).await?);
    }
    Ok(witnesses)
}

async fn rage(cluster: &HostedCluster, options: &Options, sampler: &Sampler) -> Result<Report> {
    let mut witnesses = populate(cluster, options).await?;
    let mut report = Report::default();
    let mut striker = Striker {
        cluster,
        random: StdRng::seed_from_u64(options.seed),
        tally: BTreeMap::new(),
    };
    let mut converged = Vec::new();
    let mut before = until_all_run(cluster, sampler, options.vms).await?.0;
    let faults = match options.quick {
        true => 2 * u32::try_from(Fault::ALL.len())?,
        false => options.faults,
    };
    for number in 0..faults {
        // First each once, so that a short run has met all of them.
        let fault = match Fault::ALL.get(usize::try_from(number)?) {
            Some(fault) => *fault,
            None => *Fault::ALL.choose(&mut striker.random).context("a fault")?,
        };
        striker
            .strike(fault)
            .await
            .with_context(|| format!("{fault:?}, number {number}"))?;
        let (after, took) = match until_all_run(cluster, sampler, options.vms).await {
            Ok(found) => found,
            Err(error) => {
                report.lost_vms += 1;
                report.problems.push(format!("{fault:?}, number {number}: {error:#}"));
                break;
            }
        };
        converged.push(took.as_secs_f64());
        report.late += u32::from(took > CONVERGE_WITHIN);
        for witness in &mut witnesses {
            let is_same = before.get(&witness.vm).map(place) == after.get(&witness.vm).map(place);
            report.guest_faults.extend(witness.goes_on(fault, is_same).await.err());
        }
        let changed = report.compare(&format!("{fault:?}, number {number}"), fault, &before, &after);
        eprintln!(
            "  {}/{faults}: all run after {:.1} s, {} changed, {} doubles",
            number + 1,
            took.as_secs_f64(),
            changed,
            sampler.doubles().len()
        );
        before = after;
        if !sampler.doubles().is_empty() {
            break;
        }
    }
    report.sum_up(converged, striker.tally);
    for witness in &witnesses {
        let ledger = witness.reader.ledger();
        report.guest_boots += ledger.boots.len();
        report.guest_faults.extend(ledger.faults);
    }
    Ok(report)
}

/// A guest that proves by its disk that it runs once, and goes on after a pause.
struct Witness {
    vm: String,
    name: String,
    reader: Reader,
    /// What it had written before the fault.
    before: Entry,
}

impl Witness {
    async fn of(cluster: &HostedCluster, vm: Vm) -> Result<Self> {
        let reader = read(cluster, &vm.name)?;
        let before = until_counted(&reader, &format!("{} to count", vm.name), |_| true).await?;
        let (vm, name) = (vm.id, vm.name);
        Ok(Self {
            vm,
            name,
            reader,
            before,
        })
    }

    /// It writes on: in the same boot if it is the same process, else in another.
    async fn goes_on(&mut self, fault: Fault, is_same: bool) -> Result<(), String> {
        let before = self.before.clone();
        let what = format!("{} to write on", self.name);
        let wrote_on = |entry: &Entry| match is_same {
            true => *entry != before,
            false => entry.boot != before.boot,
        };
        let now = until_counted(&self.reader, &what, wrote_on).await;
        let now = now.map_err(|error| format!("{fault:?}: {error:#}"))?;
        self.before = now.clone();
        match is_same && now.boot != before.boot {
            true => Err(format!("{} was booted by {fault:?}: {before:?}, {now:?}", self.name)),
            false => Ok(()),
        }
    }
}

type Seen = BTreeMap<String, Vm>;

/// Until every host says that every VM runs, says the same of each, and it is so: what is stored may be old. And how long
/// that took.
async fn until_all_run(cluster: &HostedCluster, sampler: &Sampler, vms: usize) -> Result<(Seen, Duration)> {
    let began = Instant::now();
    let clients: Vec<Client> = (0..cluster.lab().hosts().len())
        .map(|host| Client::with_deadline(&cluster.api(host), Duration::from_secs(5)))
        .collect::<Result<_>>()?;
    let seen = until("all VMs to run", PATIENCE, async || {
        let seen = all_run(&clients, vms).await?;
        as_executing(seen, sampler)
    })
    .await?;
    Ok((seen, began.elapsed()))
}

/// Each VM with the process that executes it, as this machine numbers it: a host that was off begins to count anew. Or a
/// VM that is said to run and does not.
fn as_executing(mut seen: Seen, sampler: &Sampler) -> Result<Seen, String> {
    let executing = sampler.executing();
    for vm in seen.values_mut() {
        match executing.get(&vm.id).map(Vec::as_slice) {
            Some([pid]) => vm.pid = *pid,
            other => return Err(format!("{} is said to run on {}: {other:?}", vm.name, vm.host)),
        }
    }
    Ok(seen)
}

async fn all_run(clients: &[Client], vms: usize) -> Result<Seen, String> {
    let mut first: Option<Seen> = None;
    for client in clients {
        let listed = client.list().await.map_err(|status| status.to_string())?;
        let seen: Seen = listed.into_iter().map(|vm| (vm.id.clone(), vm)).collect();
        if seen.len() != vms {
            return Err(format!("{} of {vms} VMs are there", seen.len()));
        }
        let is_well = |vm: &&Vm| vm.state() == State::Running && vm.qemu_state == "running";
        if let Some(vm) = seen.values().find(|vm| !is_well(vm)) {
            return Err(format!("{} is {:?} on {}: {}", vm.name, vm.state(), vm.host, vm.reason));
        }
        match &first {
            None => first = Some(seen),
            Some(first) if changed(first, &seen).is_empty() => {}
            Some(_) => return Err("the hosts say different things".to_owned()),
        }
    }
    first.ok_or_else(|| "no host was asked".to_owned())
}

/// Which process it is, and where.
fn place(vm: &Vm) -> (u32, &str, u64) {
    (vm.pid, &vm.host, vm.incarnation)
}

/// The VMs that are not the same processes in the same places.
fn changed(before: &Seen, after: &Seen) -> Vec<String> {
    let pairs = before.iter().filter_map(|(id, vm)| Some((vm, after.get(id)?)));
    let others = pairs.filter(|(vm, other)| place(vm) != place(other));
    others
        .map(|(vm, other)| {
            format!(
                "{} was pid {} on {} as {}, is pid {} on {} as {}",
                vm.name, vm.pid, vm.host, vm.incarnation, other.pid, other.host, other.incarnation
            )
        })
        .collect()
}
