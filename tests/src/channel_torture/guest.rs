//! The guest that is abused: an agent's port, and ports that echo.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use plasmavmc_kvm::channel::{Channel, ChannelOptions, Incoming};
use plasmavmc_kvm::qga::{Agent, AgentOptions, Exec};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Ports on which a program in the guest answers with what it reads.
pub const ECHO_PORTS: usize = 20;
/// The port whose reader here is slow. It holds so much.
pub const UNREAD_BYTES: usize = 64 * 1024;

const BOOT: Duration = Duration::from_secs(90);
pub const COMMAND: Duration = Duration::from_secs(20);
/// Between two looks at what nobody announces.
pub const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// In which order things come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    ListenerFirst,
    /// QEMU runs, and retries, before anybody listens.
    ListenerLast,
    /// The server is restarted while the guest boots.
    ListenerReplaced,
    /// The guest stands still while it boots.
    GuestStopped,
}

impl Start {
    pub const ALL: [Self; 4] = [
        Self::ListenerFirst,
        Self::ListenerLast,
        Self::ListenerReplaced,
        Self::GuestStopped,
    ];
}

pub struct Guest {
    qemu: Qemu,
    pub agent: Agent,
    folder: TempDir,
}

/// Dies with its value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// Boots until the agent has answered.
    pub async fn boot(image: &Path, start: Start) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("channel-torture-").tempdir()?;
        let attach = || -> Result<Agent> {
            let channel = Channel::listen(&folder.path().join("qga.sock"), ChannelOptions::default())?;
            let sync_within = Duration::from_millis(1000);
            Ok(Agent::attach(
                channel,
                "the tortured guest",
                AgentOptions { sync_within },
            ))
        };
        let (qemu, agent) = match start {
            Start::ListenerFirst => {
                let agent = attach()?;
                (spawn(image, folder.path())?, agent)
            }
            Start::ListenerLast => {
                let qemu = spawn(image, folder.path())?;
                // Long enough for QEMU to have failed at least once.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                (qemu, attach()?)
            }
            Start::ListenerReplaced => {
                let first = attach()?;
                let qemu = spawn(image, folder.path())?;
                while first
                    .health(COMMAND)
                    .await
                    .is_err_and(|error| error.to_string().contains("not connected"))
                {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                }
                first.close().await;
                (qemu, attach()?)
            }
            Start::GuestStopped => {
                let agent = attach()?;
                let qemu = spawn(image, folder.path())?;
                let pid = Pid::from_child(&qemu.0);
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    kill_process(pid, Signal::STOP)?;
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    kill_process(pid, Signal::CONT)?;
                }
                (qemu, agent)
            }
        };
        let guest = Self { qemu, agent, folder };
        guest
            .answers(BOOT)
            .await
            .with_context(|| format!("started as {start:?}"))?;
        Ok(guest)
    }

    /// Waits until the agent has answered.
    pub async fn answers(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while let Err(error) = self.agent.health(COMMAND).await {
            if Instant::now() >= deadline {
                return Err(error).context("the agent did not come back");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// Runs a shell command in the guest, which has to succeed.
    pub async fn shell(&self, script: &str) -> Result<()> {
        let outcome = self
            .agent
            .exec(&Exec::new("/bin/sh").args(["-c", script]), COMMAND)
            .await?;
        if outcome.end != plasmavmc_kvm::qga::ExecEnd::Exited(0) {
            bail!("{script:?} ended with {outcome:?}");
        }
        Ok(())
    }

    /// Listens at a port of the guest.
    pub fn listen(&self, port: &str, inbox_bytes: usize) -> Result<Channel> {
        let options = ChannelOptions {
            inbox_bytes,
            owner: None,
        };
        Ok(Channel::listen(&self.socket(port), options)?)
    }

    fn socket(&self, port: &str) -> PathBuf {
        self.folder.path().join(format!("{port}.sock"))
    }

    pub fn pid(&self) -> String {
        self.qemu.0.id().to_string()
    }

    /// QEMU's descriptors once they are back at `expected`, or what they are when that takes too long.
    pub async fn settled_fds(&self, expected: usize) -> Result<usize> {
        let deadline = Instant::now() + super::FLOW_RETURNS;
        loop {
            let now = super::open_fds(&self.pid())?;
            if now <= expected || Instant::now() >= deadline {
                return Ok(now);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    pub async fn close(self) {
        let Self { qemu, agent, folder } = self;
        agent.close().await;
        drop(qemu);
        drop(folder);
    }
}

/// Waits until a session is there, and for nothing else.
pub async fn connected(channel: &Channel) -> Result<()> {
    let mut state = channel.state();
    let waited = tokio::time::timeout(super::FLOW_RETURNS, state.wait_for(|state| state.connected)).await;
    waited.context("QEMU did not connect again")??;
    Ok(())
}

/// The bytes that come next, however they are cut.
pub async fn until_seen(channel: &mut Channel, wanted: &str, within: Duration) -> Result<()> {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(wanted) {
            match channel.receive().await {
                Some(Incoming::Data(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Some(_) => {}
                None => bail!("the channel has ended"),
            }
        }
        Ok(())
    };
    tokio::time::timeout(within, read).await?
}

fn spawn(image: &Path, folder: &Path) -> Result<Qemu> {
    let mut command = Command::new("qemu-system-x86_64");
    command.current_dir(folder);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "pc,accel=tcg",
        "-m",
        "256",
    ]);
    command.args([
        "-append",
        "console=ttyS0 quiet",
        "-chardev",
        "file,id=console,path=console.log",
    ]);
    command.args(["-serial", "chardev:console"]);
    command
        .arg("-kernel")
        .arg(image.join("kernel"))
        .arg("-initrd")
        .arg(image.join("initrd"));
    command.args(["-device", "virtio-serial-pci,max_ports=31"]);
    let mut port = |id: &str, name: &str| {
        command.args(["-chardev", &format!("socket,id={id},path={id}.sock,reconnect=1")]);
        command.args(["-device", &format!("virtserialport,chardev={id},name={name}")]);
    };
    port("qga", "org.qemu.guest_agent.0");
    port("flood", "flood");
    for number in 0..ECHO_PORTS {
        port(&format!("echo{number}"), &format!("echo{number}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("qemu.log"))?);
    let child = command
        .spawn()
        .context("cannot start qemu-system-x86_64 (package qemu-system-x86)")?;
    Ok(Qemu(child))
}
