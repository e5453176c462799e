//! The members of one cluster as processes on this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;
use tokio::time::sleep;

use super::client::{self, Client, MemberStatus};
use super::process::{Memory, Process};
use super::programs::{self, Address, Entrance, Product};

/// How long a cluster may take to be whole.
const WHOLE_DEADLINE: Duration = Duration::from_secs(90);
/// How often a member that cannot notify us is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How often a starting member is asked whether it serves: the error of a restart time.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// So much of its log is shown of a member that fails.
const TAIL_LINES: usize = 12;
/// A probe of a starting member is repeated rather than waited for.
const PROBE_DEADLINE: Duration = Duration::from_millis(500);

/// What a cluster is made of, before it runs.
#[derive(Debug, Clone)]
pub struct Blueprint {
    pub product: Product,
    pub program: PathBuf,
    pub environment: Vec<(String, String)>,
    /// The process group that members join.
    pub group: i32,
    pub dir: PathBuf,
    /// What its founders are called and where they live.
    pub founders: Vec<Address>,
}

/// A running cluster. Its processes end and its folder goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    plan: Blueprint,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    address: Address,
    process: Option<Process>,
}

/// A cluster whose members agree and have all caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// The leader's place among the members.
    pub leader: usize,
    pub term: u64,
}

impl Cluster {
    /// Starts the founders and waits until the cluster is whole.
    pub async fn found(plan: Blueprint) -> Result<Self> {
        std::fs::create_dir_all(&plan.dir)?;
        let members = plan
            .founders
            .iter()
            .cloned()
            .map(|address| Member { address, process: None });
        let mut cluster = Self {
            members: members.collect(),
            plan,
        };
        for index in 0..cluster.members.len() {
            cluster.start(index, &Entrance::Founder(cluster.plan.founders.clone()))?;
            if cluster.plan.product == Product::ChainFire && index == 0 {
                // The others join what must be there first; etcd's founders wait for one another.
                cluster.wait_serving(0).await?;
            }
        }
        cluster.wait_whole().await?;
        Ok(cluster)
    }

    pub fn product(&self) -> Product {
        self.plan.product
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn address(&self, index: usize) -> &str {
        &self.members[index].address.client
    }

    pub fn addresses(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.address.client.clone())
            .collect()
    }

    pub fn dir(&self) -> &Path {
        &self.plan.dir
    }

    pub async fn connect(&self, index: usize, deadline: Duration) -> Result<Client> {
        Client::connect(self.plan.product, self.address(index), deadline).await
    }

    pub async fn status(&self, index: usize) -> Result<MemberStatus> {
        client::status(self.plan.product, self.address(index)).await
    }

    fn start(&mut self, index: usize, entrance: &Entrance) -> Result<()> {
        let log = self.log(index);
        let member = &mut self.members[index];
        let mut command = Command::new(&self.plan.program);
        command
            .args(programs::arguments(self.plan.product, &member.address, entrance))
            .envs(self.plan.environment.iter().cloned());
        member.process = Some(Process::start(command, self.plan.group, &log)?);
        Ok(())
    }

    fn log(&self, index: usize) -> PathBuf {
        self.plan.dir.join(format!("{}.log", self.members[index].address.name))
    }

    fn running(&self, index: usize) -> Result<&Process> {
        let member = &self.members[index];
        member
            .process
            .as_ref()
            .ok_or_else(|| anyhow!("{} is not running", member.address.name))
    }

    fn take(&mut self, index: usize) -> Result<Process> {
        let member = &mut self.members[index];
        member
            .process
            .take()
            .ok_or_else(|| anyhow!("{} is not running", member.address.name))
    }

    /// Starts a member that was there before.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.start(index, &Entrance::Returning)
    }

    /// Starts a member with an empty folder that joins.
    pub async fn join(&mut self, address: Address) -> Result<usize> {
        client::announce(self.plan.product, self.address(0), &address).await?;
        let present = self.members.iter().map(|member| member.address.clone()).collect();
        self.members.push(Member { address, process: None });
        let index = self.members.len() - 1;
        self.start(index, &Entrance::Joiner(present))?;
        Ok(index)
    }

    pub async fn stop(&mut self, index: usize) -> Result<()> {
        self.take(index)?.stop().await
    }

    pub async fn kill(&mut self, index: usize) -> Result<()> {
        self.take(index)?.kill().await
    }

    /// Kills all members at once, as a power cut would.
    pub async fn kill_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                process.start_kill()?;
            }
        }
        for index in 0..self.members.len() {
            self.kill(index).await?;
        }
        Ok(())
    }

    pub fn pause(&self, index: usize) -> Result<()> {
        self.running(index)?.pause()
    }

    pub fn resume(&self, index: usize) -> Result<()> {
        self.running(index)?.resume()
    }

    /// Memory of every member, by place.
    pub fn memory(&self) -> Result<Vec<Memory>> {
        (0..self.members.len())
            .map(|index| self.running(index)?.memory())
            .collect()
    }

    /// Processor time of all members together.
    pub fn cpu_time(&self) -> Result<Duration> {
        (0..self.members.len())
            .map(|index| self.running(index)?.cpu_time())
            .sum()
    }

    /// Has the member drop the log that a snapshot covers, where it can be asked to.
    pub async fn compact_log(&self, index: usize) -> Result<()> {
        client::compact_log(self.plan.product, self.address(index)).await
    }

    /// Waits until all members agree on leader and term and have applied what is committed now.
    pub async fn wait_whole(&mut self) -> Result<Whole> {
        let deadline = Instant::now() + WHOLE_DEADLINE;
        loop {
            self.check_running()?;
            let seen = self.all_statuses().await;
            if let Ok(whole) = seen.as_deref().map_err(drop).and_then(|all| agreed(all).ok_or(())) {
                return Ok(whole);
            }
            if Instant::now() > deadline {
                bail!("{} is not whole after {WHOLE_DEADLINE:?}: {seen:?}", self.plan.product);
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn all_statuses(&self) -> Result<Vec<MemberStatus>> {
        futures::future::try_join_all((0..self.members.len()).map(|index| self.status(index))).await
    }

    /// Waits until a linearizable read through the member is answered.
    pub async fn wait_serving(&mut self, index: usize) -> Result<()> {
        self.wait_any_serving(&[index]).await
    }

    /// Waits until a linearizable read through one of the members is answered.
    pub async fn wait_any_serving(&mut self, indices: &[usize]) -> Result<()> {
        let product = self.plan.product;
        let probes = indices
            .iter()
            .map(|&index| Box::pin(probe(product, self.address(index).to_owned())));
        let first = futures::future::select_all(probes);
        let served = tokio::time::timeout(WHOLE_DEADLINE, first).await;
        if served.is_err() {
            self.check_running()?;
            bail!("{product} does not serve after {WHOLE_DEADLINE:?}");
        }
        Ok(())
    }

    /// What every member says of itself, and said last.
    pub async fn last_words(&self) -> String {
        let mut words = String::new();
        for index in 0..self.members.len() {
            let status = tokio::time::timeout(WHOLE_DEADLINE, self.status(index)).await;
            words += &format!(
                "{}: {status:?}\n{}\n",
                self.members[index].address.name,
                tail(&self.log(index))
            );
        }
        words
    }

    /// Says what a member that ended by itself had to say.
    fn check_running(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            let log = self.log(index);
            let member = &mut self.members[index];
            let Some(process) = &mut member.process else { continue };
            if let Some(status) = process.exited()? {
                bail!(
                    "{} of {} ended with {status}:\n{}",
                    member.address.name,
                    self.plan.product,
                    tail(&log)
                );
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.clear();
        let removed = std::fs::remove_dir_all(&self.plan.dir).context("removing a cluster's folder");
        if let Err(error) = removed {
            // The reaper removes the folder above this one.
            eprintln!("{error:#}");
        }
    }
}

/// The last lines of a member's log.
fn tail(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Reads from `address` until an answer comes.
async fn probe(product: Product, address: String) {
    loop {
        if let Ok(mut client) = Client::connect(product, &address, PROBE_DEADLINE).await
            && client.get("/probe".into()).await.is_ok()
        {
            return;
        }
        sleep(PROBE_EVERY).await;
    }
}

/// The leader and term that all members name, if all are voters and have applied what each of them knows
/// to be committed.
fn agreed(members: &[MemberStatus]) -> Option<Whole> {
    let first = members.first()?;
    let committed = members.iter().map(|member| member.committed).max()?;
    let leader = members.iter().position(|member| member.id == first.leader_id)?;
    let all_agree = members.iter().all(|member| {
        member.leader_id == first.leader_id
            && member.term == first.term
            && member.applied >= committed
            && member.voters.is_none_or(|voters| voters == members.len())
    });
    all_agree.then_some(Whole {
        leader,
        term: first.term,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> MemberStatus {
        MemberStatus {
            id,
            leader_id: 2,
            term: 5,
            committed: 10,
            applied: 10,
            voters: Some(3),
        }
    }

    #[test]
    fn a_cluster_is_whole_when_all_agree_and_have_applied() {
        let whole = [member(1), member(2), member(3)];
        assert_eq!(agreed(&whole), Some(Whole { leader: 1, term: 5 }));
        let not_whole = |change: fn(&mut MemberStatus)| {
            let mut members = whole.clone();
            change(&mut members[2]);
            agreed(&members)
        };
        assert_eq!(not_whole(|member| member.term = 6), None);
        assert_eq!(not_whole(|member| member.leader_id = 0), None);
        assert_eq!(not_whole(|member| member.applied = 9), None);
        assert_eq!(not_whole(|member| member.voters = Some(2)), None);
        assert_eq!(agreed(&[]), None);
    }
}
