//! Strikes: does a fault to the fleet, holds it, and undoes it.

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tracing::debug;

use super::faults::{Fault, Tally};
use crate::members::{Expectation, Fleet};

/// How long a change of members may take with nothing else wrong.
const MEMBERSHIP: Duration = Duration::from_secs(40);
const CALL: Duration = Duration::from_secs(10);

/// Who strikes.
#[derive(Debug)]
pub struct Nemesis<'a> {
    pub fleet: &'a Fleet<'a>,
    pub random: StdRng,
    pub tally: Tally,
}

impl Nemesis<'_> {
    /// Strikes in turn until `end`, each fault at least once.
    pub async fn rage(&mut self, faults: &[Fault], end: Instant) -> anyhow::Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        for round in 0.. {
            for fault in faults {
                if round > 0 && Instant::now() >= end {
                    return Ok(());
                }
                debug!(?fault, "striking");
                self.strike(*fault)
                    .await
                    .with_context(|| format!("striking with {fault:?}"))?;
                self.breathe(50..300).await;
            }
        }
        Ok(())
    }

    async fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::KillOne => self.kill(fault, 1).await,
            Fault::KillLeader => self.kill_leader().await,
            Fault::KillAll => self.kill(fault, usize::MAX).await,
            Fault::PowerCut => self.cut_power().await,
            Fault::Pause => self.pause().await,
            Fault::PartitionLeaderMinority
            | Fault::PartitionLeaderMajority
            | Fault::PartitionBridge
            | Fault::PartitionOneWay => self.part(fault).await,
            Fault::Membership => self.exchange().await,
            Fault::Resize => self.resize().await,
            Fault::Snapshot => self.snapshot().await,
            Fault::DiskFull => self.fill_disks().await,
        }
    }

    /// Holding a fault is what it is about: nothing says when it has been long enough.
    async fn breathe(&mut self, millis: std::ops::Range<u64>) {
        let pause = Duration::from_millis(self.random.random_range(millis));
        tokio::time::sleep(pause).await;
    }

    fn shuffled(&mut self) -> Vec<usize> {
        let mut hosts = self.fleet.enrolled();
        hosts.shuffle(&mut self.random);
        hosts
    }

    /// The leader first, then the others at random. Where nobody leads, anybody is as good.
    async fn leader_first(&mut self) -> Vec<usize> {
        let leader = self.fleet.leader().await;
        let mut hosts = self.shuffled();
        hosts.sort_by_key(|host| Some(*host) != leader);
        hosts
    }

    async fn kill(&mut self, fault: Fault, count: usize) -> anyhow::Result<()> {
        let victims: Vec<usize> = self.shuffled().into_iter().take(count).collect();
        self.kill_these(fault, &victims).await
    }

    async fn kill_leader(&mut self) -> anyhow::Result<()> {
        let victim = self.leader_first().await[0];
        self.kill_these(Fault::KillLeader, &[victim]).await
    }

    async fn kill_these(&mut self, fault: Fault, victims: &[usize]) -> anyhow::Result<()> {
        for victim in victims {
            self.tally.kills += u64::from(self.fleet.kill(*victim));
        }
        self.tally.count(fault);
        // A restart at once, within an election, and after one all happen.
        self.breathe(0..900).await;
        for victim in victims {
            self.fleet.restart(*victim)?;
        }
        self.breathe(100..700).await;
        Ok(())
    }

    async fn cut_power(&mut self) -> anyhow::Result<()> {
        let hosts = self.shuffled();
        let count = self.random.random_range(1..=hosts.len());
        for host in &hosts[..count] {
            self.tally.kills += u64::from(self.fleet.power_cycle(*host)?);
        }
        self.tally.count(Fault::PowerCut);
        self.breathe(0..500).await;
        for host in &hosts[..count] {
            self.fleet.restart(*host)?;
        }
        self.breathe(100..700).await;
        Ok(())
    }

    async fn pause(&mut self) -> anyhow::Result<()> {
        let hosts = self.leader_first().await;
        let victim = if self.random.random_bool(0.7) {
            hosts[0]
        } else {
            hosts[hosts.len() - 1]
        };
        self.fleet.pause(victim);
        self.tally.count(Fault::Pause);
        self.breathe(500..3000).await;
        self.fleet.resume(victim);
        self.breathe(100..500).await;
        Ok(())
    }

    async fn part(&mut self, fault: Fault) -> anyhow::Result<()> {
        let hosts = self.leader_first().await;
        let lab = self.fleet.lab();
        let minority = (hosts.len() - 1) / 2;
        match fault {
            Fault::PartitionLeaderMinority => lab.partition(&[&hosts[..minority], &hosts[minority..]])?,
            Fault::PartitionLeaderMajority => {
                let majority = hosts.len() - minority;
                lab.partition(&[&hosts[..majority], &hosts[majority..]])?;
            }
            Fault::PartitionBridge => {
                // Whether the leader is the bridge or on a side is left to chance.
                let mut hosts = hosts;
                hosts.shuffle(&mut self.random);
                let bridge = hosts.len() / 2;
                lab.partition(&[&hosts[..=bridge], &hosts[bridge..]])?;
            }
            _ => {
                let other = *hosts[1..]
                    .choose(&mut self.random)
                    .context("nobody to be cut off from")?;
                let (from, to) = if self.random.random() {
                    (hosts[0], other)
                } else {
                    (other, hosts[0])
                };
                lab.cut_one_way(from, to)?;
            }
        }
        self.tally.count(fault);
        self.breathe(1000..3000).await;
        lab.heal()?;
        self.breathe(100..500).await;
        Ok(())
    }

    /// Removes a member, and adds a fresh one on its host.
    async fn exchange(&mut self) -> anyhow::Result<()> {
        let hosts = self.shuffled();
        self.await_voters(hosts.len()).await?;
        self.expel(hosts[0]).await?;
        self.breathe(0..500).await;
        self.fleet.join(hosts[0])?;
        self.await_voters(hosts.len()).await?;
        self.tally.count(Fault::Membership);
        Ok(())
    }

    async fn resize(&mut self) -> anyhow::Result<()> {
        let normal = self.fleet.enrolled().len();
        let spare = self.fleet.spare();
        self.await_voters(normal).await?;
        if spare.is_empty() {
            self.shrink(2).await?;
            self.grow(2).await?;
        } else {
            self.grow(spare.len()).await?;
            self.shrink(spare.len()).await?;
        }
        self.await_voters(normal).await?;
        self.tally.count(Fault::Resize);
        Ok(())
    }

    async fn grow(&mut self, by: usize) -> anyhow::Result<()> {
        let target = self.fleet.enrolled().len() + by;
        for host in self.fleet.spare().into_iter().take(by) {
            self.fleet.join(host)?;
        }
        self.await_voters(target).await
    }

    async fn shrink(&mut self, by: usize) -> anyhow::Result<()> {
        for host in self.shuffled().into_iter().take(by) {
            self.expel(host).await?;
        }
        Ok(())
    }

    /// Removes a host's member from the cluster and ends it. Only when the others confirm that it is no
    /// member any more does its folder go: a voter that forgets could vote twice.
    async fn expel(&mut self, host: usize) -> anyhow::Result<()> {
        let id = self.fleet.member_id(host).await?;
        let others: Vec<usize> = self
            .fleet
            .enrolled()
            .into_iter()
            .filter(|other| *other != host)
            .collect();
        let end = Instant::now() + MEMBERSHIP;
        let mut last = String::new();
        while Instant::now() < end {
            let other = self
                .fleet
                .client(*others.choose(&mut self.random).context("the last member")?, CALL)?;
            if let Err(failure) = other.remove_member(id).await {
                last = failure.to_string();
            }
            let status = other.status().await;
            if status
                .is_ok_and(|status| !status.members.is_empty() && status.members.iter().all(|member| member.id != id))
            {
                return self.fleet.retire(host);
            }
            self.breathe(100..200).await;
        }
        anyhow::bail!("member {id} could not be removed within {MEMBERSHIP:?}: {last}")
    }

    async fn await_voters(&self, voters: usize) -> anyhow::Result<()> {
        let expected = Expectation {
            voters,
            same_state: false,
        };
        self.fleet.await_whole(expected, MEMBERSHIP).await
    }

    /// Snapshots on all members, and a kill around the time one is made.
    async fn snapshot(&mut self) -> anyhow::Result<()> {
        let hosts = self.shuffled();
        let clients = hosts
            .iter()
            .map(|host| self.fleet.client(*host, CALL))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let made = futures::future::join_all(clients.iter().map(|client| client.snapshot())).await;
        if made.iter().any(Result::is_ok) {
            self.tally.count(Fault::Snapshot);
        }
        let interrupted = clients[0].clone();
        let making = tokio::spawn(async move { interrupted.snapshot().await });
        self.breathe(0..50).await;
        self.tally.kills += u64::from(self.fleet.kill(hosts[0]));
        // It was asked to be cut short; what it answered does not matter.
        let _ = making.await;
        self.breathe(0..500).await;
        self.fleet.restart(hosts[0])
    }

    async fn fill_disks(&mut self) -> anyhow::Result<()> {
        let hosts = self.leader_first().await;
        let count = if self.random.random_bool(0.3) { hosts.len() } else { 1 };
        for host in &hosts[..count] {
            self.fleet.lab()[*host].fill_disk()?;
        }
        self.tally.count(Fault::DiskFull);
        self.breathe(500..2500).await;
        for host in &hosts[..count] {
            self.fleet.lab()[*host].free_disk()?;
        }
        self.breathe(300..800).await;
        Ok(())
    }

    /// Undoes whatever may still be in force, and starts every member that does not run.
    pub fn mend(fleet: &Fleet<'_>) -> anyhow::Result<()> {
        fleet.lab().heal()?;
        for host in fleet.lab().hosts() {
            host.free_disk()?;
            host.power_on()?;
        }
        for host in fleet.enrolled() {
            fleet.resume(host);
            fleet.restart(host)?;
        }
        Ok(())
    }
}
