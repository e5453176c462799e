//! Members as plain processes on loopback: for tests that need no faults of the network, and no root.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::client::MemberClient;
use super::readiness::{Expectation, await_agreement};
use super::{MemberEnv, binary};
use crate::hosts::{LabError, OwnedFolder, Process};

const START: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_secs(5);

/// One member.
#[derive(Debug)]
pub struct LocalMember {
    pub name: String,
    pub address: String,
    pub dir: PathBuf,
    pub process: Option<Process>,
}

/// A cluster on loopback. Its processes and folders end with the process that started it.
#[derive(Debug)]
pub struct Local {
    pub members: Vec<LocalMember>,
    binary: PathBuf,
    env: MemberEnv,
    // Last: the folder goes when all processes are gone.
    folder: OwnedFolder,
}

impl Local {
    /// Founds a cluster of `size` voters and waits until it is whole.
    pub async fn found(size: usize, env: MemberEnv) -> anyhow::Result<Self> {
        let mut local = Self {
            members: Vec::new(),
            binary: binary()?,
            env,
            folder: OwnedFolder::create("local")?,
        };
        for index in 0..size {
            local.members.push(local.plan(&format!("m{index}"))?);
            local.launch(index, index > 0)?;
            // One after the other: a port that somebody took in between is noticed where it happened.
            local.await_whole(index + 1, false, START).await?;
        }
        Ok(local)
    }

    fn plan(&self, name: &str) -> anyhow::Result<LocalMember> {
        // The port is free now and asked for at once; who binds port 0 meanwhile gets another.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Ok(LocalMember {
            name: name.to_owned(),
            address: format!("127.0.0.1:{port}"),
            dir: self.folder.path().join(name),
            process: None,
        })
    }

    /// A client of one member.
    pub fn client(&self, index: usize) -> anyhow::Result<MemberClient> {
        Ok(MemberClient::new(&self.members[index].address, CALL)?)
    }

    /// Waits until all members agree.
    pub async fn await_whole(&self, voters: usize, same_state: bool, limit: Duration) -> anyhow::Result<()> {
        let clients = (0..self.members.len())
            .map(|index| self.client(index))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let agreed = await_agreement(&clients, Expectation { voters, same_state }, limit).await;
        agreed
            .map(drop)
            .map_err(|detail| anyhow::anyhow!("{detail}{}", self.ends()))
    }

    fn ends(&self) -> String {
        let processes = self.members.iter().filter_map(|member| member.process.as_ref());
        let ended = processes.filter_map(|process| Some(format!("\n{}: {}", process.exit()?, process.log_tail(8))));
        ended.collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(process) = self.members[index].process.take() {
            self.folder.will().exclude(process.pid());
            process.kill();
        }
    }

    /// Starts a member on its folder; a `newcomer` has an empty one and joins the others.
    pub fn launch(&mut self, index: usize, newcomer: bool) -> anyhow::Result<()> {
        let member = &self.members[index];
        let log = self.folder.path().join(format!("{}.log", member.name));
        let out = std::fs::File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--dir").arg(&member.dir);
        command.args(["--listen", &member.address, "--name", &member.name]);
        if newcomer {
            let others = self.members.iter().filter(|other| other.address != member.address);
            let others: Vec<&str> = others.map(|other| other.address.as_str()).collect();
            command.args(["--join", &others.join(",")]);
        } else if !member.dir.exists() {
            command.arg("--init");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.folder.will().include(child.id());
        let process = Process::adopt(child, log).map_err(|source| LabError::Start {
            program: self.binary.display().to_string(),
            source,
        })?;
        self.members[index].process = Some(process);
        Ok(())
    }

    /// The folder with all data and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
    }
}
