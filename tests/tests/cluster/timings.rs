//! The timings of a cluster are changed while its VMs run leased: nobody is frozen, and the new ones hold.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{ClusterTimings, Vm, vm::State};
use plasmavmc_tests::cluster::ha::{Sampler, leader, leased_on, movable, until_elsewhere};
use plasmavmc_tests::cluster::{HostedCluster, code_and_reason, measured, until};
use tonic::Code;

use crate::SOON;
use crate::failover::on_hosts;

const fn timings(beat_ms: u64, freeze_after_ms: u64, failover_after_ms: u64) -> ClusterTimings {
    ClusterTimings {
        beat_ms,
        freeze_after_ms,
        failover_after_ms,
    }
}

const USUAL: ClusterTimings = timings(1000, 4000, 6000);
const SHORT: ClusterTimings = timings(500, 2500, 4000);
const LONG: ClusterTimings = timings(1000, 12_000, 15_000);

/// Changes them, and waits until every host beats under them.
async fn change(cluster: &HostedCluster, asked: usize, wanted: ClusterTimings) -> Result<()> {
    let client = cluster.client(asked)?;
    let changed = client.set_timings(wanted).await?;
    ensure!(changed.after == Some(wanted), "{changed:?}");
    let asked_at = Instant::now();
    until("every host to beat under the new timings", SOON, async || {
        let status = client.status().await.map_err(|status| status.to_string())?;
        match status.other_timings.as_slice() {
            [] if status.failover_after_ms == wanted.failover_after_ms => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await?;
    measured("every host beats under the new timings", asked_at);
    Ok(())
}

/// On every host one VM, with the process that it runs in.
struct Watched {
    vms: Vec<Vm>,
    qemus: Vec<Vec<u32>>,
}

impl Watched {
    async fn on_all(cluster: &HostedCluster) -> Result<Self> {
        let mut vms = Vec::new();
        for host in 0..3 {
            vms.push(leased_on(cluster, host, movable(&format!("on-{host}"))).await?);
        }
        let qemus = (0..3).map(|host| cluster.qemus(host)).collect();
        Ok(Self { vms, qemus })
    }

    /// All run where they ran, in the same processes, which have not stood still for a moment.
    async fn ran_on(&self, cluster: &HostedCluster, asked: usize, sampler: &Sampler) -> Result<()> {
        for (host, vm) in self.vms.iter().enumerate() {
            let seen = cluster.client(asked)?.get(&vm.id).await?;
            ensure!(
                seen.state() == State::Running && seen.pid == vm.pid && seen.incarnation == vm.incarnation,
                "{seen:?}"
            );
            let qemus = cluster.qemus(host);
            ensure!(qemus.len() == 1 && qemus == self.qemus[host], "{qemus:?} on {host}");
        }
        let stopped = sampler.stopped();
        let ours = self.qemus.iter().flatten();
        ensure!(
            ours.clone().all(|pid| !stopped.contains(pid)),
            "{stopped:?} stood still"
        );
        Ok(())
    }
}

#[test]
fn shorter_and_longer_timings_freeze_nobody_and_a_failover_becomes_faster() {
    on_hosts(3, |cluster, sampler| async move {
        let leads = leader(&cluster, 0).await?;
        let watched = Watched::on_all(&cluster).await?;
        for wanted in [SHORT, LONG, USUAL, LONG, SHORT] {
            change(&cluster, leads, wanted).await?;
            watched.ran_on(&cluster, leads, &sampler).await?;
        }
        // Without waiting for anybody in between.
        for wanted in [LONG, SHORT, USUAL] {
            cluster.client(leads)?.set_timings(wanted).await?;
        }
        change(&cluster, leads, SHORT).await?;
        watched.ran_on(&cluster, leads, &sampler).await?;

        let victim = (leads + 1) % 3;
        let vm = watched.vms.get(victim).context("one")?;
        let cut = Instant::now();
        cluster.lab()[victim].power_cut()?;
        let moved = until_elsewhere(&cluster, leads, vm, Duration::from_secs(20)).await?;
        let took = measured(
            "with 4 s to a failover a VM of a host without power runs elsewhere",
            cut,
        );
        ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
        ensure!(took < Duration::from_secs(6), "{took:?}");
        Ok(())
    });
}

#[test]
fn with_longer_timings_a_cut_freezes_nobody_that_froze_before() {
    on_hosts(3, |cluster, sampler| async move {
        let leads = leader(&cluster, 0).await?;
        let watched = Watched::on_all(&cluster).await?;
        change(&cluster, leads, LONG).await?;
        let island = (leads + 1) % 3;
        let mainland: Vec<usize> = (0..3).filter(|host| *host != island).collect();
        cluster.lab().partition(&[&[island], &mainland])?;
        let name = cluster.name(island);
        until(
            "it to be silent for longer than it used to be allowed",
            SOON,
            async || {
                let client = cluster.client(leads).map_err(|error| error.to_string())?;
                let hosts = client.list_hosts().await.map_err(|status| status.to_string())?;
                let silent = hosts.iter().find(|host| host.name == name);
                match silent.map(|host| host.last_heard_ms) {
                    Some(ago_ms) if ago_ms >= 7000 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        )
        .await?;
        cluster.lab().heal()?;
        cluster.until_whole(leads, 3).await?;
        watched.ran_on(&cluster, leads, &sampler).await
    });
}

#[test]
fn timings_that_do_not_fit_are_refused_and_change_nothing() {
    on_hosts(3, |cluster, _| async move {
        let client = cluster.client(0)?;
        let refused = client.set_timings(timings(2000, 4000, 4500)).await.unwrap_err();
        ensure!(code_and_reason(&refused).0 == Code::InvalidArgument, "{refused:?}");
        ensure!(
            refused.message().contains("two beats and an election take 5500")
                && refused.message().contains("freeze_after_ms plus 1000"),
            "{refused:?}"
        );
        let status = client.status().await?;
        ensure!(
            (status.beat_ms, status.freeze_after_ms, status.failover_after_ms) == (1000, 4000, 6000),
            "{status:?}"
        );
        Ok(())
    });
}
