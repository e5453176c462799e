//! Guests that write to a disk on a pool which the hosts share: the second layer below the leases, and the guest's own
//! proof that it runs once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::{Vm, vm::State};
use plasmavmc_tests::cluster::ha::guests::{counting, read, until_counted};
use plasmavmc_tests::cluster::ha::{Entry, Reader, Sampler, leader, leased_on, signal, until_elsewhere};
use plasmavmc_tests::cluster::{HostedCluster, measured, until};
use plasmavmc_tests::hosts::DiskPlan;
use rustix::process::Signal;

use crate::BOOT;

const ELSEWHERE_WITHIN: Duration = Duration::from_secs(30);

fn on_a_shared_pool<F: Future<Output = Result<()>>>(test: impl FnOnce(Arc<HostedCluster>, Arc<Sampler>) -> F + Send) {
    let cluster = Arc::new(HostedCluster::build_with_pool(3, DiskPlan::Folder).unwrap());
    let sampler = Arc::new(Sampler::start(cluster.lab().folder()));
    let outcome = cluster.run(async || {
        cluster.form().await?;
        cluster.until_shared().await?;
        test(Arc::clone(&cluster), Arc::clone(&sampler)).await
    });
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
    assert!(sampler.looks() > 0);
}

/// A counting guest on a host, its first ten writes, and who reads them.
async fn counting_on(cluster: &HostedCluster, host: usize, name: &str) -> Result<(Vm, Reader, Entry)> {
    let vm = leased_on(cluster, host, counting(name)?).await?;
    let reader = read(cluster, name)?;
    let first = until_counted(&reader, "the guest to count", |entry| entry.count >= 10).await?;
    Ok((vm, reader, first))
}

/// It went on in another boot, and the one before never wrote again.
async fn went_on_once(reader: &Reader, before: &Entry, boots: usize) -> Result<()> {
    until_counted(reader, "the guest to count elsewhere", |entry| {
        entry.boot != before.boot && entry.count >= 10
    })
    .await?;
    let ledger = reader.ledger();
    ensure!(ledger.faults.is_empty() && ledger.boots.len() == boots, "{ledger:?}");
    Ok(())
}

fn signal_all(pids: &[u32], with: Signal) -> Result<()> {
    pids.iter().try_for_each(|pid| signal(*pid, with))
}

#[test]
fn a_guest_counts_on_elsewhere_and_its_disk_never_forks() {
    on_a_shared_pool(|cluster, sampler| async move {
        let leads = leader(&cluster, 0).await?;
        let victim = (leads + 1) % 3;
        let (vm, reader, first) = counting_on(&cluster, victim, "counter").await?;
        // Cut off, not dead: its guest stands still with the disk open, and is killed by the claim of the next one.
        let mainland: Vec<usize> = (0..3).filter(|host| *host != victim).collect();
        let cut = Instant::now();
        cluster.lab().partition(&[&[victim], &mainland])?;
        let moved = until_elsewhere(&cluster, leads, &vm, ELSEWHERE_WITHIN).await?;
        measured("a guest with a shared disk runs elsewhere", cut);
        ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
        went_on_once(&reader, &first, 2).await?;
        ensure!(cluster.qemus(victim).is_empty(), "its claim did not end the old one");
        cluster.lab().heal()?;
        cluster.until_whole(victim, 3).await?;
        // And once more, as a power cut.
        let second = reader.ledger().newest().cloned().context("a write")?;
        let host = cluster.host_called(&moved.host)?;
        cluster.lab()[host].power_cut()?;
        let asked = (0..3).find(|other| *other != host).context("another")?;
        until_elsewhere(&cluster, asked, &moved, ELSEWHERE_WITHIN).await?;
        went_on_once(&reader, &second, 3).await?;
        ensure!(sampler.doubles().is_empty(), "{:?}", sampler.doubles());
        Ok(())
    });
}

/// Nobody is left who could freeze the guest: only the locks of its image stand between it and a second one.
#[test]
fn when_server_and_guard_stand_still_the_image_locks_hold() {
    on_a_shared_pool(|cluster, _| async move {
        let leads = leader(&cluster, 0).await?;
        let victim = (leads + 1) % 3;
        let (vm, reader, first) = counting_on(&cluster, victim, "counter").await?;
        let old = cluster.qemus(victim);
        let mut still = cluster.programs_of(victim, "plasmavmc-server");
        still.extend(cluster.programs_of(victim, "plasmavmc-guard"));
        ensure!(still.len() >= 2 && old.len() == 1, "{still:?} {old:?}");
        signal_all(&still, Signal::STOP)?;
        let stopped = Instant::now();
        let client = cluster.client(leads)?;
        let waiting = client
            .until_vm(&vm.id, "another host to wait for the lock", ELSEWHERE_WITHIN, |seen| {
                seen.host != vm.host
                    && seen.state() == State::Starting
                    && seen.reason.contains("in use by another process")
            })
            .await?;
        measured("another host waits for the lock", stopped);
        // The old guest goes on all the while, and nobody beside it.
        let seen = reader.ledger().newest().cloned().context("a write")?;
        until_counted(&reader, "the old guest to go on", |entry| {
            entry.count >= seen.count + 50
        })
        .await?;
        ensure!(cluster.qemus(victim) == old, "the old one is gone");
        let now = client.get(&vm.id).await?;
        ensure!(now.host == waiting.host && now.state() == State::Starting, "{now:?}");
        let ledger = reader.ledger();
        ensure!(ledger.faults.is_empty() && ledger.boots.len() == 1, "{ledger:?}");
        // They go on, see the higher claim, and end what they should have stopped: the lock is free.
        let healed = Instant::now();
        signal_all(&still, Signal::CONT)?;
        let moved = client.until_state(&vm.id, State::Running, ELSEWHERE_WITHIN).await?;
        measured("it runs elsewhere once its guard goes on", healed);
        ensure!(moved.host == waiting.host, "{moved:?}");
        went_on_once(&reader, &first, 2).await
    });
}

#[test]
fn a_host_that_lost_the_pool_gives_its_vm_to_one_that_has_it() {
    on_a_shared_pool(|cluster, sampler| async move {
        let leads = leader(&cluster, 0).await?;
        let victim = (leads + 1) % 3;
        let (vm, reader, first) = counting_on(&cluster, victim, "counter").await?;
        cluster.take_pool(victim)?;
        let lost = Instant::now();
        signal_all(&cluster.qemus(victim), Signal::KILL)?;
        let moved = until_elsewhere(&cluster, leads, &vm, BOOT).await?;
        measured("a VM whose host lost its pool runs elsewhere", lost);
        ensure!(moved.incarnation > vm.incarnation, "{moved:?}");
        went_on_once(&reader, &first, 2).await?;
        let client = cluster.client(victim)?;
        until("the host to offer it no more", BOOT, async || {
            let hosts = client.list_hosts().await.map_err(|status| status.to_string())?;
            let host = hosts.into_iter().find(|host| host.name == cluster.name(victim));
            match host.filter(|host| host.shared_pools.is_empty()) {
                Some(_) => Ok(()),
                None => Err("it still does".to_owned()),
            }
        })
        .await?;
        measured("a host that lost a pool offers it no more", lost);
        ensure!(sampler.doubles().is_empty(), "{:?}", sampler.doubles());
        Ok(())
    });
}
