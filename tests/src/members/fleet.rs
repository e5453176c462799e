//! Members on the hosts of a lab, one a host.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use super::client::MemberClient;
use super::readiness::{Expectation, await_agreement};
use super::{MemberEnv, binary};
use crate::hosts::{Host, Lab, Process, Program};

const PORT: u16 = 7400;
/// Deadline of calls that look after the fleet itself.
const ADMIN_CALL: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(30);

/// How a member's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Birth<'a> {
    Init,
    Join(&'a [usize]),
    /// Its folder says who it is.
    Again,
}

/// What runs on one host.
#[derive(Debug, Default)]
struct Slot {
    process: Option<Process>,
    /// Whether this host's member belongs to the cluster, running or not.
    enrolled: bool,
}

/// Members on the hosts of a lab.
#[derive(Debug)]
pub struct Fleet<'lab> {
    lab: &'lab Lab,
    binary: PathBuf,
    env: MemberEnv,
    slots: Vec<Mutex<Slot>>,
}

impl<'lab> Fleet<'lab> {
    /// Founds a cluster on the first `voters` hosts and waits until it is whole. Other hosts are spare.
    pub async fn found(lab: &'lab Lab, voters: usize, env: MemberEnv) -> anyhow::Result<Self> {
        let fleet = Self {
            lab,
            binary: binary()?,
            env,
            slots: lab.hosts().iter().map(|_| Mutex::default()).collect(),
        };
        fleet.launch(0, Birth::Init)?;
        let alone = Expectation {
            voters: 1,
            same_state: false,
        };
        fleet.await_whole(alone, START).await?;
        for host in 1..voters {
            fleet.join(host)?;
        }
        let whole = Expectation {
            voters,
            same_state: false,
        };
        fleet.await_whole(whole, START).await?;
        Ok(fleet)
    }

    pub fn lab(&self) -> &'lab Lab {
        self.lab
    }

    /// The hosts whose members belong to the cluster.
    pub fn enrolled(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|host| self.slots[*host].lock().enrolled)
            .collect()
    }

    /// The hosts without a member.
    pub fn spare(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|host| !self.slots[*host].lock().enrolled)
            .collect()
    }

    pub fn address(&self, host: usize) -> String {
        address(&self.lab[host])
    }

    /// A client of the member on a host. Must be called on the lab's runtime.
    pub fn client(&self, host: usize, limit: Duration) -> anyhow::Result<MemberClient> {
        Ok(MemberClient::new(&self.address(host), limit)?)
    }

    /// Waits until all enrolled members agree.
    pub async fn await_whole(&self, expected: Expectation, limit: Duration) -> anyhow::Result<()> {
        let members = self.enrolled().into_iter().map(|host| self.client(host, ADMIN_CALL));
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        match await_agreement(&members, expected, limit).await {
            Ok(_) => Ok(()),
            Err(detail) => anyhow::bail!("{detail}{}", self.troubles()),
        }
    }

    /// The host of the leader that most members name.
    pub async fn leader(&self) -> Option<usize> {
        let asked = self
            .enrolled()
            .into_iter()
            .filter_map(|host| self.client(host, Duration::from_millis(300)).ok());
        let clients: Vec<MemberClient> = asked.collect();
        let answers = futures::future::join_all(clients.iter().map(MemberClient::status)).await;
        // A deposed leader still names itself, at a lower term.
        let newest = answers
            .into_iter()
            .flatten()
            .filter(|status| status.leader_id != 0)
            .max_by_key(|status| status.term)?;
        (0..self.slots.len()).find(|host| self.address(*host) == newest.leader_address)
    }

    /// The member's id on a host, from its own status.
    pub async fn member_id(&self, host: usize) -> anyhow::Result<u64> {
        let status = self.client(host, ADMIN_CALL)?.status().await?;
        Ok(status.member.context("a status names its member")?.id)
    }

    /// Starts a new member with an empty folder that joins the enrolled ones and becomes a voter.
    pub fn join(&self, host: usize) -> anyhow::Result<()> {
        let others: Vec<usize> = self.enrolled().into_iter().filter(|other| *other != host).collect();
        self.launch(host, Birth::Join(&others))
    }

    /// Ends the member for good and removes its data. Only after it has been removed from the cluster.
    pub fn retire(&self, host: usize) -> anyhow::Result<()> {
        let mut slot = self.slots[host].lock();
        if let Some(process) = slot.process.take() {
            process.kill();
        }
        slot.enrolled = false;
        let data = self.lab[host].disk_from_outside().join("member");
        std::fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))
    }

    /// SIGKILL. False if it was not running.
    pub fn kill(&self, host: usize) -> bool {
        match self.slots[host].lock().process.take() {
            Some(process) => {
                let ran = process.exit().is_none();
                process.kill();
                ran
            }
            None => false,
        }
    }

    /// Cuts the power of the host and gives it back. False if no member was running.
    pub fn power_cycle(&self, host: usize) -> anyhow::Result<bool> {
        let mut slot = self.slots[host].lock();
        let ran = slot.process.take().is_some_and(|process| process.exit().is_none());
        self.lab[host].power_cut()?;
        self.lab[host].power_on()?;
        Ok(ran)
    }

    pub fn pause(&self, host: usize) {
        if let Some(process) = &self.slots[host].lock().process {
            process.pause();
        }
    }

    pub fn resume(&self, host: usize) {
        if let Some(process) = &self.slots[host].lock().process {
            process.resume();
        }
    }

    /// Starts the member on its old folder, if it is enrolled and does not run.
    pub fn restart(&self, host: usize) -> anyhow::Result<()> {
        let idle = {
            let slot = self.slots[host].lock();
            slot.enrolled && slot.process.as_ref().is_none_or(|process| process.exit().is_some())
        };
        if idle { self.launch(host, Birth::Again) } else { Ok(()) }
    }

    /// Members that ended though nobody ended them, with their last words.
    pub fn deserters(&self) -> Vec<(usize, String)> {
        let gone = |host: &usize| {
            let slot = self.slots[*host].lock();
            let process = slot.process.as_ref()?;
            let status = process.exit()?;
            Some((
                *host,
                format!("member on host {host} ended with {status}: {}", process.log_tail(8)),
            ))
        };
        (0..self.slots.len())
            .collect::<Vec<_>>()
            .iter()
            .filter_map(gone)
            .collect()
    }

    /// What the logs of all members say about trouble.
    fn troubles(&self) -> String {
        let trouble = |host: usize| {
            let process = self.slots[host].lock().process.clone()?;
            let (end, trouble) = (process.exit(), process.log_trouble(4));
            let said = end.is_some() || !trouble.is_empty();
            said.then(|| format!("\nhost {host} (ended: {end:?}): {trouble}"))
        };
        (0..self.slots.len()).filter_map(trouble).collect()
    }

    fn launch(&self, host: usize, birth: Birth<'_>) -> anyhow::Result<()> {
        let address = self.address(host);
        let mut program = Program::new(&self.binary)
            .arg("serve")
            .arg("--dir")
            .arg(self.lab[host].disk().join("member"))
            .args(["--listen", &address, "--advertise", &address])
            .args(["--name", &format!("h{host}")]);
        program = match birth {
            Birth::Init => program.arg("--init"),
            Birth::Join(others) => {
                let others: Vec<String> = others.iter().map(|other| self.address(*other)).collect();
                program.args(["--join", &others.join(",")])
            }
            Birth::Again => program,
        };
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        let process = self.lab[host].spawn(&program)?;
        let mut slot = self.slots[host].lock();
        slot.process = Some(process);
        slot.enrolled = true;
        Ok(())
    }
}

fn address(host: &Host) -> String {
    format!("{}:{PORT}", host.ipv4())
}
