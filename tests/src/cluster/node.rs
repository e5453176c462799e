//! One server of a cluster, as a process of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use super::client::Client;
use super::programs::Programs;
use crate::hosts::Process;

pub const API_PORT: u16 = 50051;
pub const CLUSTER_PORT: u16 = 50052;
const END: Duration = Duration::from_secs(20);

/// How a server comes into its cluster.
#[derive(Debug, Clone, Copy)]
pub enum Entrance<'a> {
    Init,
    Join {
        via: &'a str,
        token: &'a str,
    },
    /// It was there before.
    Again,
}

/// A server, running or not. Its folder stays.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    /// HOST:PORT of the client API.
    pub api: String,
    cluster: String,
    dir: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Node {
    /// `address` is one of loopback's.
    pub fn plan(name: &str, address: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            api: format!("{address}:{API_PORT}"),
            cluster: format!("{address}:{CLUSTER_PORT}"),
            dir: folder.join(name),
            log: folder.join(format!("{name}.log")),
            process: Mutex::new(None),
        }
    }

    /// Its `--dir`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the server with something in its environment.
    pub fn start(&self, programs: &Programs, entrance: Entrance<'_>, env: &[(&str, &str)]) -> Result<()> {
        let mut process = self.process.lock();
        let runs = process.as_ref().is_some_and(|process| process.exit().is_none());
        ensure!(!runs, "{} runs already", self.name);
        let out = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command(programs)?;
        match entrance {
            Entrance::Init => {
                command.arg("--init");
            }
            Entrance::Join { via, token } => {
                command.args(["--join", via, "--token", token]);
            }
            Entrance::Again => {}
        }
        command
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", programs.server.display()))?;
        *process = Some(Process::adopt(child, self.log.clone())?);
        Ok(())
    }

    /// The program with what is always said to it.
    fn command(&self, programs: &Programs) -> Result<Command> {
        settings(&self.dir, "")?;
        let mut command = Command::new(&programs.server);
        command.arg("--dir").arg(&self.dir).arg("--guard").arg(&programs.guard);
        command.args([
            "--listen",
            &self.api,
            "--cluster-listen",
            &self.cluster,
            "--name",
            &self.name,
        ]);
        // To a server, variables with such names are flags.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PLASMAVMC_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    /// Recovers its cluster from what this node knows, with more said; whether it did, and all it said.
    pub fn recover(&self, programs: &Programs, more: &[&str]) -> Result<(bool, String)> {
        let out = self.command(programs)?.arg("recover").args(more).output()?;
        let said = [out.stdout, out.stderr].concat();
        Ok((out.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Saves what its store knows, as an operator would.
    pub fn back_up(&self, programs: &Programs, file: &Path) -> Result<()> {
        let mut command = Command::new(&programs.chainfire);
        command.args(["--server", &self.cluster, "snapshot", "save"]).arg(file);
        let out = command.env_remove("CHAINFIRE_SERVER").output()?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    pub fn client(&self) -> Result<Client> {
        Client::new(&self.api)
    }

    /// SIGKILL: no goodbye. The moment it was sent.
    pub fn kill(&self) -> Instant {
        let killed = Instant::now();
        if let Some(process) = self.process.lock().take() {
            process.kill();
        }
        killed
    }

    /// SIGTERM, and its end.
    pub fn stop(&self) -> Result<()> {
        let Some(process) = self.process.lock().take() else {
            return Ok(());
        };
        process.terminate();
        let status = process.wait(END);
        if status.is_none() {
            process.kill();
        }
        let status = status.with_context(|| format!("{} does not end within {END:?} of SIGTERM", self.name))?;
        ensure!(
            status.success(),
            "{} ended with {status}: {}",
            self.name,
            self.log_tail(10)
        );
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.lock().as_ref().map(Process::pid)
    }

    /// How it ended, if nobody of ours ended it.
    pub fn ended_by_itself(&self) -> Option<String> {
        let process = self.process.lock();
        let status = process.as_ref()?.exit()?;
        Some(format!("{} ended with {status}: {}", self.name, self.log_tail(10)))
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// What all servers of tests are told. Guests run under TCG: what they show does not depend on it, and nothing has
/// to be probed. Small VMs are many.
pub fn settings(dir: &Path, more: &str) -> Result<()> {
    let file = dir.join("server.toml");
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let text = format!("[vms]\naccel = \"tcg\"\nvcpus_per_cpu = 1000\nreserve_memory_mb = 0\n{more}");
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
