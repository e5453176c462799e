//! Three hosts that have nothing of ours, each with a root of its own, and somebody who types on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Block, Place};
use crate::hosts::{DiskPlan, Lab, LabPlan, Process, Program};

/// What the documentation calls the hosts; their addresses are those of a lab's.
pub const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const ROOT: &str = include_str!("root.sh");
const SYSTEMCTL: &str = include_str!("systemctl");
/// Room for what is installed, the guest and the logs; memory is used as far as it is filled.
const DISK_MIB: u32 = 2048;
/// A guest boots under TCG, on a busy machine.
const BLOCK_WITHIN: Duration = Duration::from_secs(240);
const STEP_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables and the folder stay from block to block, as in a terminal. A command that fails ends the block.
const TYPED: &str = r#"
exec </dev/null
cd ~
[[ ! -e ~/.terminal ]] || . ~/.terminal >/dev/null 2>&1
[[ ! -e ~/.folder ]] || cd "$(<~/.folder)"
set -eo pipefail
remember() {
    local status=$?
    set +e
    declare -p | grep -Ev '^declare -[a-zA-Z]*r|^declare -[a-zA-Z-]+ (BASH|FUNCNAME|PIPESTATUS|_=)' >~/.terminal
    pwd >~/.folder
    exit $status
}
trap remember EXIT
. "$1"
"#;

/// The hosts, which are on.
#[derive(Debug)]
pub struct Home {
    lab: Lab,
    typed: std::cell::Cell<u32>,
}

/// A command that goes on in a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    process: Process,
}

impl Home {
    /// `hosts`: so many of the three.
    pub fn build(hosts: usize) -> Result<Self> {
        ensure!(hosts <= NAMES.len(), "there are names for {} hosts", NAMES.len());
        let disk = DiskPlan::Limited { mib: DISK_MIB };
        let lab = Lab::build(LabPlan { hosts, disk })?;
        let home = Self {
            lab,
            typed: std::cell::Cell::new(0),
        };
        std::fs::write(home.lab.folder().join("systemctl"), SYSTEMCTL)?;
        for host in 0..hosts {
            home.settle(host)?;
        }
        Ok(home)
    }

    /// Gives a host that was just turned on its root.
    fn settle(&self, host: usize) -> Result<()> {
        let program = Program::new("bash")
            .args(["-c", ROOT])
            .env("DISK", self.lab[host].disk())
            .env("LAB", self.lab.folder())
            .log("root");
        let process = self.lab[host].spawn(&program)?;
        let status = process.wait(STEP_WITHIN);
        let is_done = status.is_some_and(|status| status.success());
        ensure!(is_done, "{} has no root: {}", NAMES[host], process.log_tail(10));
        self.quietly(host, &format!("hostname {0}; echo {0} >/etc/hostname", NAMES[host]))
    }

    /// Power off, and on again.
    pub fn power_cycle(&self, name: &str) -> Result<()> {
        let host = index(name)?;
        self.lab[host].power_cut()?;
        self.lab[host].power_on()?;
        self.settle(host)
    }

    /// Power off, for good.
    pub fn power_cut(&self, name: &str) -> Result<()> {
        Ok(self.lab[index(name)?].power_cut()?)
    }

    /// Lays a file of this machine into the home folder of every host, under a name.
    pub fn bring(&self, file: &Path, name: &str) -> Result<()> {
        // A host sees what this machine has, until it changes it.
        for host in 0..self.lab.hosts().len() {
            self.quietly(host, &format!("cp '{}' /root/{name}", file.display()))?;
        }
        Ok(())
    }

    /// Makes a program of this machine one of the first host.
    pub fn provide(&self, host: usize, program: &Path, name: &str) -> Result<()> {
        self.quietly(host, &format!("ln -s '{}' /usr/local/bin/{name}", program.display()))
    }

    /// Writes a program of a host.
    pub fn write(&self, host: usize, path: &str, text: &str) -> Result<()> {
        let file = self.lab.folder().join("written");
        std::fs::write(&file, text)?;
        self.quietly(host, &format!("install -m 755 '{}' '{path}'", file.display()))
    }

    /// Waits until nothing runs on a host but its first process.
    #[expect(clippy::disallowed_methods, reason = "polled, up to a deadline")]
    pub fn until_quiet(&self, host: usize, within: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.processes(host);
            if found.len() <= 1 {
                return Ok(());
            }
            ensure!(begun.elapsed() < within, "these still run: {found:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Something the reader does not type.
    pub fn quietly(&self, host: usize, script: &str) -> Result<()> {
        let program = Program::new("bash")
            .args(["-ec", script])
            .env("PATH", PATHS)
            .log("quiet");
        let process = self.lab[host].spawn(&program)?;
        let status = process.wait(STEP_WITHIN);
        let is_done = status.is_some_and(|status| status.success());
        ensure!(is_done, "{script}: {}", process.log_tail(10));
        Ok(())
    }

    /// Types a block where it says, and gives what was printed. `Here` is the first host.
    pub fn type_in(&self, block: &Block) -> Result<String> {
        let hosts: Vec<usize> = match &block.place {
            Place::Here => vec![0],
            Place::EveryHost => (0..self.lab.hosts().len()).collect(),
            Place::Hosts(names) => names.iter().map(|name| index(name)).collect::<Result<_>>()?,
            Place::OwnTerminal => bail!("line {}: needs a terminal of its own", block.line),
        };
        let mut printed = String::new();
        for host in hosts {
            let process = self.start(host, &block.script)?;
            let status = process.wait(BLOCK_WITHIN);
            let text = std::fs::read(process.log()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            println!("--- {} (line {})\n{}\n{text}", NAMES[host], block.line, block.script);
            let is_done = status.is_some_and(|status| status.success());
            ensure!(
                is_done,
                "line {}, on {}: {status:?}\n{}\n{text}\n--- its server's last words\n{}",
                block.line,
                NAMES[host],
                block.script,
                self.last_words(host)
            );
            printed.push_str(&text);
        }
        for wanted in &block.shows {
            ensure!(
                printed.contains(wanted.as_str()),
                "line {}: {wanted:?} is not shown:\n{printed}",
                block.line
            );
        }
        Ok(printed)
    }

    /// Types a block that stays, and waits until it has printed this.
    pub fn open_terminal(&self, block: &Block, until: &str) -> Result<(Terminal, String)> {
        let process = self.start(0, &block.script)?;
        let begun = Instant::now();
        loop {
            let text = std::fs::read(process.log()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(until) {
                return Ok((Terminal { process }, text));
            }
            ensure!(process.exit().is_none(), "{} has ended:\n{text}", block.script);
            ensure!(begun.elapsed() < BLOCK_WITHIN, "{until:?} did not come:\n{text}");
            // The end of the process would be news as well; else one looks again.
            process.wait(LOOK_EVERY);
        }
    }

    fn start(&self, host: usize, script: &str) -> Result<Process> {
        let number = self.typed.get() + 1;
        self.typed.set(number);
        let file: PathBuf = self.lab.folder().join(format!("typed-{number}.sh"));
        std::fs::write(&file, script)?;
        let program = Program::new("bash")
            .args(["-c", TYPED, "terminal"])
            .arg(&file)
            .env("HOME", "/root")
            .env("PATH", PATHS)
            .log(format!("typed-{number}"));
        Ok(self.lab[host].spawn(&program)?)
    }

    /// What runs on a host, its first process too: process ids of this machine, and names.
    pub fn processes(&self, host: usize) -> BTreeMap<u32, String> {
        let name = |pid: u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        };
        self.lab[host].processes().into_iter().filter_map(name).collect()
    }

    pub fn qemus(&self, host: usize) -> Vec<u32> {
        let processes = self.processes(host).into_iter();
        let qemus = processes.filter(|(_, name)| name.starts_with("qemu-system"));
        qemus.map(|(pid, _)| pid).collect()
    }

    fn last_words(&self, host: usize) -> String {
        let log = self.lab[host]
            .disk_from_outside()
            .join("upper/var/log/plasmavmc-server.log");
        let tail = Command::new("tail").args(["-n", "15"]).arg(log).output();
        tail.map_or_else(
            |error| error.to_string(),
            |tail| String::from_utf8_lossy(&tail.stdout).into_owned(),
        )
    }
}

impl Terminal {
    /// Ctrl-C, and how it ended.
    pub fn interrupt(&self) -> Result<()> {
        let pid = i32::try_from(self.process.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // To the program in the shell and to the shell, as a terminal does.
        let children = pid.map(children_of).unwrap_or_default();
        for child in children.into_iter().chain(pid) {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::INT);
        }
        let status = self.process.wait(BLOCK_WITHIN);
        ensure!(status.is_some(), "it does not end after Ctrl-C");
        Ok(())
    }

    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }
}

fn children_of(parent: rustix::process::Pid) -> Vec<rustix::process::Pid> {
    let pid = parent.as_raw_pid();
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| rustix::process::Pid::from_raw(child.parse().ok()?))
        .collect()
}

fn index(name: &str) -> Result<usize> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .with_context(|| format!("no host is called {name:?}"))
}
