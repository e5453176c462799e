//! A host dies, and what it ran runs elsewhere within seconds; never twice, whatever is cut or stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Dependency, DependencyReached, Vm, vm::State};
use plasmavmc_tests::cluster::ha::{
    Sampler, leader, leased_on, movable, running_leased, state_of, until_elsewhere, watched,
};
use plasmavmc_tests::cluster::{HostedCluster, measured, until};

use crate::SOON;

/// Three hosts and what watches them.
fn on_three_hosts<F: Future<Output = Result<()>>>(test: impl FnOnce(Arc<HostedCluster>) -> F + Send) {
    on_hosts(3, |cluster, _| test(cluster));
}

pub fn on_hosts<F: Future<Output = Result<()>>>(
    hosts: usize,
    test: impl FnOnce(Arc<HostedCluster>, Arc<Sampler>) -> F + Send,
) {
    watched(HostedCluster::build(hosts), &[], test);
}

async fn vm_on(cluster: &HostedCluster, host: usize, name: &str) -> Result<Vm> {
    leased_on(cluster, host, movable(name)).await
}

async fn power_cut_of(cluster: &HostedCluster, is_leader: bool) -> Result<()> {
    let leads = leader(cluster, 0).await?;
    let victim = (0..3).find(|host| (*host == leads) == is_leader).context("one")?;
    let asked = (0..3).find(|host| *host != victim).context("another")?;
    let vm = vm_on(cluster, victim, "wanderer").await?;
    let cut = Instant::now();
    cluster.lab()[victim].power_cut()?;
    let moved = until_elsewhere(cluster, asked, &vm, Duration::from_secs(20)).await?;
    let took = measured("a VM of a host without power runs elsewhere", cut);
    ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
    ensure!(took < Duration::from_secs(12), "{took:?}");
    cluster.lab()[victim].power_on()?;
    cluster.serve(victim, &[])?;
    cluster.until_whole(asked, 3).await?;
    let still = cluster
        .client(victim)?
        .until_state(&vm.id, State::Running, SOON)
        .await?;
    ensure!(still.host == moved.host && still.pid == moved.pid, "{still:?}");
    Ok(())
}

#[test]
fn a_follower_without_power_costs_seconds() {
    on_three_hosts(|cluster| async move { power_cut_of(&cluster, false).await });
}

#[test]
fn a_leader_without_power_costs_seconds_and_freezes_nobody_else() {
    on_hosts(3, |cluster, sampler| async move {
        let leads = leader(&cluster, 0).await?;
        let beside = (leads + 1) % 3;
        let bystander = vm_on(&cluster, beside, "bystander").await?;
        let qemus = cluster.qemus(beside);
        power_cut_of(&cluster, true).await?;
        let seen = cluster.client(beside)?.get(&bystander.id).await?;
        ensure!(
            seen.pid == bystander.pid && seen.incarnation == bystander.incarnation,
            "{seen:?}"
        );
        let stopped = sampler.stopped();
        ensure!(
            qemus.len() == 1 && !qemus.iter().any(|pid| stopped.contains(pid)),
            "{qemus:?} of {stopped:?} stood still"
        );
        Ok(())
    });
}

#[test]
fn two_of_five_hosts_without_power_cost_seconds() {
    on_hosts(5, |cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let victims = [leads, (leads + 1) % 5];
        let asked = (leads + 2) % 5;
        let mut vms = Vec::new();
        for victim in victims {
            vms.push(vm_on(&cluster, victim, &format!("on-{victim}")).await?);
        }
        let cut = Instant::now();
        for victim in victims {
            cluster.lab()[victim].power_cut()?;
        }
        for vm in &vms {
            let moved = until_elsewhere(&cluster, asked, vm, Duration::from_secs(20)).await?;
            let host = cluster.host_called(&moved.host)?;
            ensure!(
                !victims.contains(&host) && moved.incarnation == vm.incarnation + 1,
                "{moved:?}"
            );
        }
        let took = measured("the VMs of two of five hosts run elsewhere", cut);
        ensure!(took < Duration::from_secs(12), "{took:?}");
        for victim in victims {
            cluster.lab()[victim].power_on()?;
            cluster.serve(victim, &[])?;
        }
        cluster.until_whole(asked, 5).await
    });
}

/// The leader dies a moment after another server has begun, which may lead next and may never have heard it. The third
/// member has, so it is no cold start.
#[test]
fn a_host_that_dies_just_after_another_server_was_restarted_costs_seconds() {
    on_three_hosts(|cluster| async move {
        for round in 0..3 {
            let victim = leader(&cluster, 0).await?;
            let (restarted, asked) = ((victim + 1) % 3, (victim + 2) % 3);
            let vm = vm_on(&cluster, victim, &format!("wanderer-{round}")).await?;
            cluster.server(restarted).context("a server")?.kill();
            cluster.serve(restarted, &[])?;
            let client = cluster.client(restarted)?;
            until("the server to be back", SOON, async || {
                let status = client.status().await.map_err(|status| status.to_string())?;
                if status.has_quorum { Ok(()) } else { Err(status.leader) }
            })
            .await?;
            let cut = Instant::now();
            cluster.lab()[victim].power_cut()?;
            let moved = until_elsewhere(&cluster, asked, &vm, Duration::from_secs(20)).await?;
            let took = measured("a VM runs elsewhere though a server had just begun", cut);
            ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
            ensure!(took < Duration::from_secs(12), "{took:?}");
            cluster.lab()[victim].power_on()?;
            cluster.serve(victim, &[])?;
            cluster.until_whole(asked, 3).await?;
            // Else both that are left in the next round may have begun after the last beat of its victim.
            for host in [restarted, asked] {
                cluster.until_beats(victim, host).await?;
            }
        }
        Ok(())
    });
}

/// Powered off and on as a whole: what is wanted runs, what depends on another starts after it, wherever both are.
#[test]
fn after_a_power_loss_of_all_everything_wanted_runs_in_order() {
    on_three_hosts(|cluster| async move {
        let client = cluster.client(0)?;
        let mut chain: Vec<Vm> = Vec::new();
        for name in ["base", "middle", "top"] {
            let mut request = movable(name);
            request.depends_on = chain
                .last()
                .map(|below| Dependency {
                    vm: below.id.clone(),
                    until: DependencyReached::Running.into(),
                })
                .into_iter()
                .collect();
            chain.push(running_leased(&client, request).await?);
        }
        let mut off = movable("off");
        off.powered_off = true;
        let off = client.create(off).await?;
        for host in 0..3 {
            cluster.lab()[host].power_cut()?;
        }
        let back = Instant::now();
        // The one that the others depend on need not be on the first host that comes.
        for host in [2, 0, 1] {
            cluster.lab()[host].power_on()?;
            cluster.serve(host, &[])?;
        }
        let mut started = Vec::new();
        for vm in &chain {
            let again = until("it to run again", SOON, async || {
                let seen = cluster.client(1)?.get(&vm.id).await?;
                let (host, is_running) = (cluster.host_called(&seen.host)?, seen.state() == State::Running);
                let pid = cluster.qemus(host).into_iter().find(|pid| names(*pid, &vm.id));
                match pid.filter(|_| is_running) {
                    Some(pid) => Ok(pid),
                    None => Err(anyhow::anyhow!("{seen:?}")),
                }
            })
            .await?;
            started.push(start_ticks(again)?);
        }
        measured("after a power loss of all hosts everything wanted runs", back);
        ensure!(started.is_sorted(), "not in their order: {started:?}");
        let off = cluster.client(1)?.get(&off.id).await?;
        ensure!(off.state() == State::Stopped, "{off:?}");
        cluster.until_whole(0, 3).await
    });
}

fn names(pid: u32, word: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
}

/// When a process was started, as the kernel has it.
fn start_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name")?;
    Ok(fields.split_ascii_whitespace().nth(19).context("a start")?.parse()?)
}

#[test]
fn a_host_that_is_cut_off_freezes_and_loses_what_was_moved() {
    on_three_hosts(|cluster| async move {
        let leads = leader(&cluster, 0).await?;
        let island = (leads + 1) % 3;
        let mainland: Vec<usize> = (0..3).filter(|host| *host != island).collect();
        freezes_and_loses(&cluster, island, leads, || {
            Ok(cluster.lab().partition(&[&[island], &mainland])?)
        })
        .await
    });
}

/// Cuts a host off in whatever way, and mends it when what it ran runs elsewhere. `asked` is never cut off.
pub async fn freezes_and_loses(
    cluster: &HostedCluster,
    island: usize,
    asked: usize,
    cut_off: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let vm = vm_on(cluster, island, "islander").await?;
    let old = cluster.qemus(island);
    let cut = Instant::now();
    cut_off()?;
    until("its QEMU to be stopped", SOON, async || {
        let states: Vec<char> = old.iter().map(|pid| state_of(*pid)).collect();
        if states == ['T'] {
            Ok(())
        } else {
            Err(format!("{states:?}"))
        }
    })
    .await?;
    let frozen = measured("it is frozen", cut);
    ensure!(frozen < Duration::from_millis(5500), "{frozen:?}");
    let moved = until_elsewhere(cluster, asked, &vm, Duration::from_secs(20)).await?;
    measured("it runs on the mainland", cut);
    ensure!(cluster.qemus(island) == old, "killed without proof");
    cluster.lab().heal()?;
    let healed = Instant::now();
    until("what was left behind to be killed", SOON, async || {
        let left = cluster.qemus(island);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await?;
    measured("what was left behind is killed", healed);
    cluster.until_whole(island, 3).await?;
    let still = cluster.client(island)?.get(&vm.id).await?;
    ensure!(still.pid == moved.pid && still.host == moved.host, "{still:?}");
    Ok(())
}

#[test]
fn a_cut_that_is_shorter_than_the_failover_costs_a_pause_only() {
    on_three_hosts(|cluster| async move {
        let leads = leader(&cluster, 0).await?;
        let island = (leads + 1) % 3;
        let mainland: Vec<usize> = (0..3).filter(|host| *host != island).collect();
        let vm = vm_on(&cluster, island, "sleeper").await?;
        let pid = *cluster.qemus(island).first().context("one")?;
        cluster.lab().partition(&[&[island], &mainland])?;
        until("it to be frozen", SOON, async || match state_of(pid) {
            'T' => Ok(()),
            state => Err(state.to_string()),
        })
        .await?;
        cluster.lab().heal()?;
        let healed = Instant::now();
        let seen = until("it to go on", SOON, async || {
            let seen = cluster.client(leads)?.get(&vm.id).await?;
            let goes_on = state_of(pid) != 'T' && seen.state() == State::Running && seen.qemu_state == "running";
            if goes_on {
                Ok(seen)
            } else {
                Err(anyhow::anyhow!("{} {seen:?}", state_of(pid)))
            }
        })
        .await?;
        measured("it goes on", healed);
        ensure!(seen.pid == vm.pid && seen.incarnation == vm.incarnation, "{seen:?}");
        Ok(())
    });
}
