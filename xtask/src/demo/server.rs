//! Three servers on this machine, each in a folder of its own.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::Programs;
use super::cli::Cli;
use crate::deadline::Interrupt;
use crate::site::Site;

const NAMES: [&str; 3] = ["h1", "h2", "h3"];
/// Where people look first; the next ones where these are taken.
const FIRST_PORT: u16 = 50051;
const PORTS_APART: u16 = 10;
const SERVES_WITHIN: Duration = Duration::from_secs(60);

struct Server {
    name: &'static str,
    api: String,
    cluster: String,
    child: Option<Child>,
}

/// The servers, and everything they started. All of it ends when this is dropped.
pub struct Servers {
    programs: Programs,
    interrupt: Interrupt,
    servers: Vec<Server>,
    // Dropped last: it ends what is left.
    site: Site,
}

impl Servers {
    pub fn new(programs: Programs, interrupt: Interrupt, parent: &Path) -> Result<Self> {
        let ports = free_ports(FIRST_PORT, NAMES.len())?;
        let server = |(name, port): (&&'static str, u16)| Server {
            name,
            api: format!("127.0.0.1:{port}"),
            cluster: format!("127.0.0.1:{}", port + 1),
            child: None,
        };
        Ok(Self {
            programs,
            interrupt,
            servers: NAMES.iter().zip(ports).map(server).collect(),
            site: Site::below(parent, "demo-")?,
        })
    }

    /// Founds a cluster with the first one and lets the others join.
    pub fn form(&mut self) -> Result<()> {
        self.start(0, &["--init"])?;
        self.await_alive(1)?;
        let uses = (NAMES.len() - 1).to_string();
        let token = self.cli().token(&uses)?;
        let via = self.servers[0].api.clone();
        for index in 1..NAMES.len() {
            self.start(index, &["--join", &via, "--token", &token])?;
        }
        self.await_alive(NAMES.len())
    }

    /// A client that may use any of them.
    pub fn cli(&self) -> Cli {
        Cli::new(self.programs.cli.clone(), self.addresses(), self.interrupt.clone())
    }

    pub fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.servers.iter().map(|server| server.api.as_str()).collect();
        addresses.join(",")
    }

    pub fn first_address(&self) -> &str {
        &self.servers[0].api
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self, name: &str) -> Result<Instant> {
        let server = self.servers.iter_mut().find(|server| server.name == name);
        let server = server.with_context(|| format!("no server is called {name:?}"))?;
        let mut child = server.child.take().context("it does not run")?;
        let killed = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(killed)
    }

    /// Starts a killed server on its old folder.
    pub fn restart(&mut self, name: &str) -> Result<Instant> {
        let index = NAMES
            .iter()
            .position(|known| *known == name)
            .context("no such server")?;
        let started = Instant::now();
        self.start(index, &[])?;
        Ok(started)
    }

    fn start(&mut self, index: usize, how: &[&str]) -> Result<()> {
        let name = self.servers[index].name;
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let child = self
            .command(index)
            .args(how)
            // Ctrl-C is for us.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.programs.server.display()))?;
        self.servers[index].child = Some(child);
        Ok(())
    }

    /// A server on its folder. Its address is in the command line, for whoever looks for it there.
    fn command(&self, index: usize) -> Command {
        let server = &self.servers[index];
        let mut command = Command::new(&self.programs.server);
        // To a server, variables with such names are flags.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PLASMAVMC_") {
                command.env_remove(name);
            }
        }
        command
            .arg("--dir")
            .arg(self.site.folder().join(server.name))
            .arg("--guard")
            .arg(&self.programs.guard)
            .args(["--cluster-listen", &server.cluster, "--name", server.name])
            .args(["--listen", &server.api]);
        command
    }

    /// Waits until so many hosts are in the cluster and heard of.
    pub fn await_alive(&mut self, hosts: usize) -> Result<()> {
        let cli = self.cli();
        let interrupt = self.interrupt.clone();
        interrupt.await_condition(&format!("a cluster of {hosts}"), SERVES_WITHIN, || {
            match self.ended_by_itself() {
                Some(reason) => Err(anyhow!(reason)),
                None => cli.check_alive(hosts),
            }
        })
    }

    /// Says which server ended though nobody killed it.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        self.servers.iter_mut().find_map(|server| {
            let status = server.child.as_mut()?.try_wait().ok()??;
            Some(format!("server {} ended by itself: {status}", server.name))
        })
    }

    /// Tells once of a server that somebody ended: how, and how it is started again.
    pub fn newly_ended(&mut self) -> Option<String> {
        let ended = self.servers.iter_mut().enumerate().find_map(|(index, server)| {
            let status = server.child.as_mut()?.try_wait().ok()??;
            server.child = None;
            Some((index, status))
        });
        let (index, status) = ended?;
        let command = shell_line(&self.command(index));
        let name = self.servers[index].name;
        Some(format!("{name} has ended: {status}. Start it again with:\n  {command}"))
    }

    /// The end of every server's log, for whoever has to find out what went wrong.
    pub fn last_words(&self) -> String {
        let words = |server: &Server| {
            let log = std::fs::read_to_string(self.log(server.name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            format!("--- last words of {}\n{tail}\n", server.name)
        };
        self.servers.iter().map(words).collect()
    }

    pub fn folder(&self) -> &Path {
        self.site.folder()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.site.folder().join(format!("{name}.log"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(mut child) = server.child.take() {
                // Errors mean that it has ended already, which is what we want.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The command as a shell takes it; nothing in it needs quotes but folders, which rarely do.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._:,=-".contains(c));
        if is_plain {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// Pairs of neighbouring ports on loopback that nobody uses now; the first of each.
fn free_ports(first: u16, count: usize) -> Result<Vec<u16>> {
    let candidates = (first..u16::MAX - 1).step_by(usize::from(PORTS_APART));
    let is_free = |port: &u16| {
        [*port, port + 1]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    };
    let free: Vec<u16> = candidates.filter(is_free).take(count).collect();
    anyhow::ensure!(free.len() == count, "there are not enough free ports on loopback");
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_as_a_shell_takes_it() {
        let mut command = Command::new("/my folder/it's");
        command.args(["--listen", "127.0.0.1:1"]);
        assert_eq!(shell_line(&command), r"'/my folder/it'\''s' --listen 127.0.0.1:1");
    }

    #[test]
    fn ports_that_are_taken_are_passed_over() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port().min(60_000);
        let found = free_ports(port, 2).unwrap();
        assert!(!found.contains(&held.local_addr().unwrap().port()));
        assert_eq!(found.len(), 2);
    }
}
