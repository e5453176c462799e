//! A cluster whose hosts are namespaces: they can be cut off from each other and lose their power.
//!
//! Its clients must be made, and used, inside [`HostedCluster::run`]: nobody else can reach the hosts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use plasmavmc_proto::api::Host;

use super::client::{Client, is_whole};
use super::node::{API_PORT, CLUSTER_PORT, settings};
use super::{Programs, until};
use crate::hosts::{DiskPlan, Lab, LabPlan, Process, Program};

const WHOLE: Duration = Duration::from_secs(60);
/// The servers' folder on their disks.
const FOLDER: &str = "plasmavmc";
/// The pool that hosts share, and its folder.
pub const SHARED_POOL: &str = "shared";
const CONSENT: &str = "--insecure-i-accept-that-anyone-on-this-network-controls-my-vms";

/// One server on each host of a lab.
#[derive(Debug)]
pub struct HostedCluster {
    lab: Lab,
    programs: Programs,
    /// The folder of the pool that all hosts share, if they do.
    shared: Option<PathBuf>,
    servers: Mutex<Vec<Option<Process>>>,
}

impl HostedCluster {
    /// Hosts that are on, and run nothing yet.
    pub fn build(size: usize) -> Result<Self> {
        Self::build_with(size, DiskPlan::Folder)
    }

    /// The same, with disks of this kind.
    pub fn build_with(size: usize, disk: DiskPlan) -> Result<Self> {
        Ok(Self {
            lab: Lab::build(LabPlan { hosts: size, disk })?,
            programs: Programs::find()?,
            shared: None,
            servers: Mutex::new(vec![None; size]),
        })
    }

    /// The same, with a pool that all of them share.
    pub fn build_with_pool(size: usize, disk: DiskPlan) -> Result<Self> {
        let mut cluster = Self::build_with(size, disk)?;
        let folder = cluster.lab.folder().join(SHARED_POOL);
        std::fs::create_dir(&folder).context("making the shared pool")?;
        cluster.shared = Some(folder);
        Ok(cluster)
    }

    /// The shared pool, for the test to look into.
    pub fn shared_pool(&self) -> Result<&Path> {
        self.shared.as_deref().context("the hosts share no pool")
    }

    /// Waits until every host says that another one has the shared pool, too.
    pub async fn until_shared(&self) -> Result<()> {
        for host in 0..self.lab.hosts().len() {
            let client = self.client(host)?;
            until("the pool to be offered as shared", WHOLE, async || {
                let hosts = client.list_hosts().await.map_err(|status| status.to_string())?;
                let shares = |host: &&Host| host.shared_pools.iter().any(|pool| pool == SHARED_POOL);
                match hosts.iter().filter(shares).count() {
                    count if count == self.lab.hosts().len() => Ok(()),
                    _ => Err(format!("{hosts:?}")),
                }
            })
            .await?;
        }
        Ok(())
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs what speaks to the hosts.
    pub fn run<T: Send, F: Future<Output = Result<T>>>(&self, work: impl FnOnce() -> F + Send) -> Result<T> {
        self.lab
            .run_made(async || work().await.with_context(|| self.last_words()))
    }

    /// Founds the cluster and waits until all hosts are in it.
    pub async fn form(&self) -> Result<()> {
        self.form_with(&[]).await
    }

    /// The same; what is told to the last one when it joins makes it another kind of member.
    pub async fn form_with(&self, last: &[&str]) -> Result<()> {
        let size = self.lab.hosts().len();
        self.serve(0, &["--init"])?;
        let first = self.client(0)?;
        self.until_whole(0, 1).await?;
        let token = first.token(u32::try_from(size)?).await?;
        let via = self.api(0);
        for host in 1..size {
            let kind = if host + 1 == size { last } else { &[] };
            self.serve(host, &[&["--join", &via, "--token", &token], kind].concat())?;
            self.until_whole(host, host + 1).await?;
        }
        for host in 0..size {
            self.until_whole(host, size).await?;
        }
        // Of a host that has beaten once, before the others were there, nobody but itself knows that it lived.
        let beating = if last.is_empty() { size } else { size - 1 };
        for host in 0..beating {
            self.until_beats(size - 1, host).await?;
        }
        Ok(())
    }

    /// Waits until a host says that so many hosts are one cluster, and alive.
    pub async fn until_whole(&self, asked: usize, hosts: usize) -> Result<()> {
        let client = self.client(asked)?;
        until(&format!("host {asked} in a cluster of {hosts}"), WHOLE, async || {
            let status = client.status().await.map_err(|status| status.to_string())?;
            if is_whole(&status, hosts) {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// The same, with servers that can be told to die.
    pub fn build_mortal(size: usize) -> Result<Self> {
        let mut cluster = Self::build(size)?;
        cluster.programs = Programs::mortal()?;
        Ok(cluster)
    }

    /// Waits until one has heard the next beat of another: from then on it is a witness of that host's life.
    pub async fn until_beats(&self, asked: usize, host: usize) -> Result<()> {
        self.client(asked)?.until_beats(&self.name(host)).await
    }

    /// Makes the next start of a host without power the first one of another boot. All hosts of a lab are in one boot of
    /// this machine, which a server would take for its own.
    pub fn boots_anew(&self, host: usize) -> Result<()> {
        let file = self.lab[host].disk_from_outside().join(FOLDER).join("instance");
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Starts the server of a host; `how` is said the first time.
    pub fn serve(&self, host: usize, how: &[&str]) -> Result<()> {
        self.serve_with(host, how, &[])
    }

    /// The same, with something in its environment.
    pub fn serve_with(&self, host: usize, how: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let dir = self.dir(host);
        let pools = self.pools(host)?;
        settings(&self.lab[host].disk_from_outside().join(FOLDER), &pools)?;
        let cluster = format!("{}:{CLUSTER_PORT}", self.lab[host].ipv4());
        let program = Program::new(&self.programs.server)
            .arg("--dir")
            .arg(&dir)
            .arg("--guard")
            .arg(&self.programs.guard)
            .args(["--listen", &self.api(host), "--cluster-listen", &cluster])
            .args(["--name", &name(host), CONSENT])
            .args(how);
        let program = env
            .iter()
            .fold(program, |program, (name, value)| program.env(name, value));
        let process = self.lab[host].spawn(&program)?;
        if let Some(slot) = self.servers.lock().get_mut(host) {
            *slot = Some(process);
        }
        Ok(())
    }

    /// Runs a program on a host until it ends, with what it said.
    pub async fn runs(
        &self,
        host: usize,
        program: &Path,
        arguments: &[&str],
        within: Duration,
    ) -> Result<(bool, String)> {
        let program = Program::new(program)
            .args(arguments)
            .env("PLASMAVMC_SERVER", self.api(host));
        let process = self.lab[host].spawn(&program)?;
        let words = arguments.join(" ");
        let status = until(&format!("the end of {words:?}"), within, async || {
            process.exit().ok_or("it runs")
        })
        .await?;
        Ok((status.success(), process.log_tail(40)))
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Takes the shared pool away from one host: nothing of it is found there any more. What is open stays open.
    pub fn take_pool(&self, host: usize) -> Result<()> {
        Ok(self.lab[host].hide(self.shared_pool()?)?)
    }

    /// What the settings of a host say of pools.
    fn pools(&self, host: usize) -> Result<String> {
        let Some(shared) = &self.shared else {
            return Ok(String::new());
        };
        let own = self.dir(host).join("pools/default");
        std::fs::create_dir_all(&own).context("making the host's own pool")?;
        let pool = |name: &str, kind: &str, path: &Path| {
            format!("[[pool]]\nname = \"{name}\"\nkind = \"{kind}\"\npath = {path:?}\n")
        };
        Ok(pool("default", "dir", &own) + &pool(SHARED_POOL, "shared", shared))
    }

    pub fn client(&self, host: usize) -> Result<Client> {
        Client::new(&self.api(host))
    }

    pub fn api(&self, host: usize) -> String {
        format!("{}:{API_PORT}", self.lab[host].ipv4())
    }

    pub fn dir(&self, host: usize) -> PathBuf {
        self.lab[host].disk().join(FOLDER)
    }

    /// What the host of this index is called.
    pub fn name(&self, host: usize) -> String {
        name(host)
    }

    /// The server of a host, if one was started.
    pub fn server(&self, host: usize) -> Option<Process> {
        self.servers.lock().get(host).cloned().flatten()
    }

    /// The processes of a host whose program has this name, as this machine numbers them.
    pub fn programs_of(&self, host: usize, program: &str) -> Vec<u32> {
        // The kernel keeps 15 bytes of it.
        let name = &program[..program.len().min(15)];
        let is_it = |pid: &u32| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        self.lab[host].processes().into_iter().filter(is_it).collect()
    }

    /// The host of a name.
    pub fn host_called(&self, wanted: &str) -> Result<usize> {
        let found = (0..self.lab.hosts().len()).find(|host| name(*host) == wanted);
        found.with_context(|| format!("no host is called {wanted:?}"))
    }

    /// What the server of a host takes of this machine's memory.
    pub fn server_memory_kb(&self, host: usize) -> Result<u64> {
        let is_server = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("plasmavmc-serve"))
        };
        let pid = self.lab[host].processes().into_iter().find(is_server);
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.context("no server")?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().next());
        Ok(kb.context("no VmRSS")?.parse()?)
    }

    /// The QEMUs of a host, as this machine numbers them.
    pub fn qemus(&self, host: usize) -> Vec<u32> {
        let is_qemu = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
        };
        self.lab[host].processes().into_iter().filter(is_qemu).collect()
    }

    fn last_words(&self) -> String {
        let servers = self.servers.lock();
        let words = |(host, server): (usize, &Option<Process>)| {
            let said = server.as_ref().map_or(String::new(), |server| server.log_tail(15));
            format!("--- {}\n{said}\n", name(host))
        };
        servers.iter().enumerate().map(words).collect()
    }
}

fn name(host: usize) -> String {
    format!("h{}", host + 1)
}
