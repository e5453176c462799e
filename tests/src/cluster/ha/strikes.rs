//! Faults of hosts, networks and processes: each done, held for a while, and undone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::leader;
use crate::cluster::HostedCluster;

/// What can happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    PowerCut,
    PowerCutLeader,
    /// Shorter than a host's lease plus the time until it is given up: nothing may be started elsewhere.
    Blink,
    Cut,
    CutLeader,
    /// It hears, and is not heard; or the other way round.
    CutOneWay,
    /// Every host alone.
    SwitchOff,
    /// For less time than it takes to give a host up.
    SwitchBlink,
    ServerKilled,
    LeaderKilled,
    /// And back before its lease is over.
    ServerRestarted,
    ServerStopped,
    GuardKilled,
    ServerAndGuardKilled,
    DiskFull,
    AllPowerCut,
}

impl Fault {
    pub const ALL: [Fault; 16] = [
        Fault::PowerCut,
        Fault::PowerCutLeader,
        Fault::Blink,
        Fault::Cut,
        Fault::CutLeader,
        Fault::CutOneWay,
        Fault::SwitchOff,
        Fault::SwitchBlink,
        Fault::ServerKilled,
        Fault::LeaderKilled,
        Fault::ServerRestarted,
        Fault::ServerStopped,
        Fault::GuardKilled,
        Fault::ServerAndGuardKilled,
        Fault::DiskFull,
        Fault::AllPowerCut,
    ];

    /// Whether all VMs must be the same processes afterwards: a false alarm costs a pause, and no more.
    pub fn costs_a_pause_only(self) -> bool {
        matches!(
            self,
            Fault::Blink | Fault::SwitchBlink | Fault::ServerRestarted | Fault::GuardKilled
        )
    }

    /// In milliseconds. A blink is over when a host has frozen and before it is given up.
    fn held_for_ms(self) -> std::ops::Range<u64> {
        match self {
            Fault::Blink | Fault::SwitchBlink => 500..4800,
            Fault::ServerRestarted => 0..1000,
            Fault::GuardKilled => 0..500,
            Fault::ServerStopped => 500..9000,
            Fault::AllPowerCut => 0..2000,
            Fault::SwitchOff => 2000..12_000,
            _ => 1000..12_000,
        }
    }
}

/// Who strikes.
pub struct Striker<'a> {
    pub cluster: &'a HostedCluster,
    pub random: StdRng,
    pub tally: BTreeMap<Fault, u32>,
}

impl Striker<'_> {
    /// Does a fault, holds it, and mends it: afterwards all hosts are on and serve.
    pub async fn strike(&mut self, fault: Fault) -> Result<()> {
        let hosts = self.cluster.lab().hosts().len();
        let leads = leader(self.cluster, self.random.random_range(0..hosts)).await?;
        let any = self.random.random_range(0..hosts);
        let followers: Vec<usize> = (0..hosts).filter(|host| *host != leads).collect();
        let follower = *followers.choose(&mut self.random).context("a follower")?;
        let held = Duration::from_millis(self.random.random_range(fault.held_for_ms()));
        eprintln!(
            "{fault:?} for {held:?} (leader h{}, other h{}, any h{})",
            leads + 1,
            follower + 1,
            any + 1
        );
        match fault {
            Fault::PowerCut => self.power(&[follower], held).await?,
            Fault::PowerCutLeader => self.power(&[leads], held).await?,
            Fault::AllPowerCut => self.power(&(0..hosts).collect::<Vec<_>>(), held).await?,
            Fault::Blink | Fault::Cut => self.cut(follower, held).await?,
            Fault::CutLeader => self.cut(leads, held).await?,
            Fault::CutOneWay => self.cut_one_way(any, held).await?,
            Fault::SwitchOff | Fault::SwitchBlink => self.switch_off(held).await?,
            Fault::ServerKilled => self.kill(follower, &["plasmavmc-server"], held).await?,
            Fault::LeaderKilled => self.kill(leads, &["plasmavmc-server"], held).await?,
            Fault::ServerRestarted => self.kill(any, &["plasmavmc-server"], held).await?,
            Fault::GuardKilled => self.kill_guard(any, held).await?,
            Fault::ServerAndGuardKilled => self.kill(any, &["plasmavmc-guard", "plasmavmc-server"], held).await?,
            Fault::ServerStopped => self.stop(any, held).await?,
            Fault::DiskFull => self.fill(any, held).await?,
        }
        *self.tally.entry(fault).or_default() += 1;
        Ok(())
    }

    /// Holding a fault is what it is about: nothing says when it has been long enough.
    async fn hold(held: Duration) {
        tokio::time::sleep(held).await;
    }

    async fn power(&mut self, hosts: &[usize], held: Duration) -> Result<()> {
        for host in hosts {
            self.cluster.lab()[*host].power_cut()?;
        }
        Self::hold(held).await;
        let mut back = hosts.to_vec();
        back.shuffle(&mut self.random);
        for host in back {
            self.cluster.lab()[host].power_on()?;
            self.cluster.serve(host, &[])?;
        }
        Ok(())
    }

    async fn cut(&self, island: usize, held: Duration) -> Result<()> {
        let hosts = self.cluster.lab().hosts().len();
        let mainland: Vec<usize> = (0..hosts).filter(|host| *host != island).collect();
        self.cluster.lab().partition(&[&[island], &mainland])?;
        Self::hold(held).await;
        Ok(self.cluster.lab().heal()?)
    }

    async fn cut_one_way(&mut self, host: usize, held: Duration) -> Result<()> {
        if self.random.random_bool(0.5) {
            self.cluster.lab().deafen(host)?;
        } else {
            self.cluster.lab().mute(host)?;
        }
        Self::hold(held).await;
        Ok(self.cluster.lab().heal()?)
    }

    async fn switch_off(&self, held: Duration) -> Result<()> {
        let hosts: Vec<[usize; 1]> = (0..self.cluster.lab().hosts().len()).map(|host| [host]).collect();
        let alone: Vec<&[usize]> = hosts.iter().map(<[usize; 1]>::as_slice).collect();
        self.cluster.lab().partition(&alone)?;
        Self::hold(held).await;
        Ok(self.cluster.lab().heal()?)
    }

    async fn kill(&self, host: usize, programs: &[&str], held: Duration) -> Result<()> {
        for program in programs {
            for pid in self.cluster.programs_of(host, program) {
                signal(pid, Signal::KILL)?;
            }
        }
        Self::hold(held).await;
        self.cluster.serve(host, &[])
    }

    async fn kill_guard(&self, host: usize, held: Duration) -> Result<()> {
        for pid in self.cluster.programs_of(host, "plasmavmc-guard") {
            signal(pid, Signal::KILL)?;
        }
        Self::hold(held).await;
        Ok(())
    }

    async fn stop(&self, host: usize, held: Duration) -> Result<()> {
        let pids = self.cluster.programs_of(host, "plasmavmc-server");
        for pid in &pids {
            signal(*pid, Signal::STOP)?;
        }
        Self::hold(held).await;
        for pid in pids {
            signal(pid, Signal::CONT)?;
        }
        Ok(())
    }

    async fn fill(&self, host: usize, held: Duration) -> Result<()> {
        self.cluster.lab()[host].fill_disk()?;
        Self::hold(held).await;
        Ok(self.cluster.lab()[host].free_disk()?)
    }
}

/// To a process of the lab, found in it a moment ago. One that has just ended needs no signal.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
