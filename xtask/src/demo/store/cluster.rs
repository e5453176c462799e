//! Three member processes with their folders.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use super::client::Client;
use crate::deadline::Interrupt;

const NAMES: [&str; 3] = ["one", "two", "three"];
const SERVES_WITHIN: Duration = Duration::from_secs(30);

struct MemberProcess {
    name: &'static str,
    address: String,
    child: Option<Child>,
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

pub struct Cluster {
    program: PathBuf,
    interrupt: Interrupt,
    members: Vec<MemberProcess>,
    // Dropped after the members, which are killed in `drop`.
    folder: TempDir,
}

impl Cluster {
    pub fn new(program: PathBuf, interrupt: Interrupt) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("chainfire-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let members = NAMES
            .iter()
            .zip(free_addresses(NAMES.len())?)
            .map(|(name, address)| MemberProcess {
                name,
                address,
                child: None,
            })
            .collect();
        Ok(Self {
            program,
            interrupt,
            members,
            folder,
        })
    }

    /// Starts the first member as a cluster of one and lets the others join.
    pub fn form(&mut self) -> Result<()> {
        let first = self.members[0].address.clone();
        self.start(Place(0), &["--init"])?;
        self.await_serving(&[Place(0)], 1)?;
        for place in [Place(1), Place(2)] {
            self.start(place, &["--join", &first])?;
            self.await_serving(&[place], place.0 + 1)?;
        }
        self.await_serving(&[Place(0), Place(1), Place(2)], NAMES.len())
    }

    /// A client that may use any member.
    pub fn client(&self) -> Client {
        Client::new(self.program.clone(), self.addresses(), self.interrupt.clone())
    }

    fn client_of(&self, place: Place) -> Client {
        let address = self.members[place.0].address.clone();
        Client::new(self.program.clone(), address, self.interrupt.clone())
    }

    pub fn leader(&self) -> Result<Place> {
        let status = self.client().status()?;
        let leader = status
            .members
            .iter()
            .find(|member| member.id == status.leader_id)
            .context("the leader is not among the members")?;
        self.members
            .iter()
            .position(|member| member.address == leader.address)
            .map(Place)
            .with_context(|| format!("no member of the demo has the address {}", leader.address))
    }

    /// SIGKILL: the member gets no chance to say goodbye or to write anything more.
    pub fn kill(&mut self, place: Place) -> Result<()> {
        let member = &mut self.members[place.0];
        let mut child = member.child.take().context("the member does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a killed member on its old folder and waits until it has what the others had by then.
    pub fn restart(&mut self, place: Place) -> Result<()> {
        let goal = self.client().status()?.applied_index;
        self.start(place, &[])?;
        self.await_serving(&[place], NAMES.len())?;
        let client = self.client_of(place);
        self.interrupt
            .await_condition("the restarted member to catch up", SERVES_WITHIN, || {
                let applied = client.status()?.applied_index;
                if applied < goal {
                    bail!("it has applied {applied} of {goal} entries");
                }
                Ok(())
            })
    }

    fn start(&mut self, place: Place, how: &[&str]) -> Result<()> {
        let member = &self.members[place.0];
        let log = File::create(self.log(place))?;
        let child = Command::new(&self.program)
            .args(["serve", "--name", member.name, "--listen", &member.address, "--dir"])
            .arg(self.folder.path().join(member.name))
            .args(how)
            // Ctrl-C is for us: a member that ends with it would look like one that failed.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.members[place.0].child = Some(child);
        Ok(())
    }

    fn await_serving(&mut self, places: &[Place], voters: usize) -> Result<()> {
        let interrupt = self.interrupt.clone();
        for &place in places {
            let client = self.client_of(place);
            let what = format!("{} to serve in a cluster of {voters}", self.describe(place));
            interrupt.await_condition(&what, SERVES_WITHIN, || match self.ended_by_itself() {
                Some(reason) => Err(anyhow!(reason)),
                None => client.status()?.check_serving(voters),
            })?;
        }
        Ok(())
    }

    /// Says which member ended though nobody killed it.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        self.members.iter_mut().find_map(|member| {
            let status = member.child.as_mut()?.try_wait().ok()??;
            Some(format!("member {} ended by itself: {status}", member.name))
        })
    }

    pub fn describe(&self, place: Place) -> String {
        let member = &self.members[place.0];
        format!("member {} ({})", member.name, member.address)
    }

    /// All addresses as `--server` takes them.
    pub fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        addresses.join(",")
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// The end of every member's log, for whoever has to find out what went wrong.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (index, member) in self.members.iter().enumerate() {
            let log = std::fs::read_to_string(self.log(Place(index))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(15)..];
            text += &format!("--- last words of member {}\n{}\n", member.name, tail.join("\n"));
        }
        text
    }

    fn log(&self, place: Place) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.members[place.0].name))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                // Errors mean that it has ended already, which is what we want.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Addresses on loopback that nobody uses now.
fn free_addresses(count: usize) -> Result<Vec<String>> {
    // All are held at once, or the system might name one twice.
    let listeners = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot find a free port on loopback")?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ() {
        let mut addresses = free_addresses(3).unwrap();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 3);
    }
}
