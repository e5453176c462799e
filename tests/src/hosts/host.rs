//! One host: power, disk, and the processes on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::disk::Disk;
use super::namespace::{Holder, Network, feed, spawn_in_pid_namespace};
use super::process::Process;
use super::{DiskPlan, LabError, Program, links};

const NET: [u8; 3] = [10, 77, 0];
const NET6: u16 = 0xfd77;
const FIRST_ADDRESS: u8 = 10;
/// How long a killed PID namespace may take to be gone; measured are 25 ms.
const POWER_CUT: Duration = Duration::from_secs(10);

/// Runs as PID 1 of a host. Prints its id outside; bash reaps what others leave behind.
const INIT: &str = "
read -r outside _ </proc/self/stat
mount -t proc proc /proc && echo \"$0\" >/proc/sys/kernel/hostname && echo \"$outside\"
";

/// A machine of the lab.
#[derive(Debug)]
pub struct Host {
    index: usize,
    network: Network,
    disk: Disk,
    logs: PathBuf,
    anchor_mounts: PathBuf,
    power: Mutex<Option<Power>>,
}

/// What exists only while the host is on.
#[derive(Debug)]
struct Power {
    /// The parent of PID 1, which ends with it.
    shell: Holder,
    /// PID 1 of the host, as seen from outside.
    init: u32,
    processes: Vec<Process>,
}

impl Host {
    /// Makes a host, plugs it into the switch and turns it on.
    pub(super) fn make(
        index: usize,
        plan: DiskPlan,
        folder: &Path,
        switch: &Network,
        anchor: &Holder,
    ) -> Result<Self, LabError> {
        let name = links::port(index);
        let logs = folder.join(&name);
        let disk = Disk::make(plan, &logs.join("disk"), anchor)?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--"]);
        let plug = Holder::start(unshare, "echo ready", &name)?;
        let network = Network::of(&plug)?;
        let wire = format!(
            "link add {name} type veth peer name eth0 netns {}\nlink set {name} master switch up\n",
            plug.pid()
        );
        switch.feed("ip", "iproute2", &["-batch", "-"], &wire)?;
        let host = Self {
            index,
            network,
            disk,
            logs,
            anchor_mounts: anchor.namespace("mnt"),
            power: Mutex::new(None),
        };
        let addresses = format!(
            "link set lo up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
            host.ipv4(),
            host.ipv6()
        );
        host.network.feed("ip", "iproute2", &["-batch", "-"], &addresses)?;
        host.power_on()?;
        Ok(host)
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn ipv4(&self) -> Ipv4Addr {
        let last = FIRST_ADDRESS + u8::try_from(self.index).unwrap_or(u8::MAX);
        Ipv4Addr::new(NET[0], NET[1], NET[2], last)
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        let last = u16::from(FIRST_ADDRESS) + u16::try_from(self.index).unwrap_or(u16::MAX);
        Ipv6Addr::new(NET6, 0, 0, 0, 0, 0, 0, last)
    }

    /// Its IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.ipv4().into()
    }

    /// The disk as processes on the host name it.
    pub fn disk(&self) -> &Path {
        self.disk.inside()
    }

    /// The same disk, for the test to look into or to damage. Works with the power off.
    pub fn disk_from_outside(&self) -> &Path {
        self.disk.outside()
    }

    /// Uses up all room on its limited disk.
    pub fn fill_disk(&self) -> Result<(), LabError> {
        match self.disk.fill()? {
            true => Ok(()),
            false => Err(LabError::NoLimit { host: self.index }),
        }
    }

    /// Gives back what [`Self::fill_disk`] took.
    pub fn free_disk(&self) -> Result<(), LabError> {
        self.disk.free()
    }

    /// Puts an empty folder in the place of one, for this host alone, until its power goes.
    pub fn hide(&self, folder: &Path) -> Result<(), LabError> {
        let power = self.power.lock();
        let Some(power) = power.as_ref() else {
            return Err(LabError::NoPower { host: self.index });
        };
        let mut mount = Command::new("nsenter");
        mount
            .arg(format!("--mount=/proc/{}/ns/mnt", power.init))
            .args(["--", "mount", "-t", "tmpfs", "-o", "size=1m,mode=000", "gone"])
            .arg(folder);
        feed(mount, "mount", "mount", "")
    }

    pub fn has_power(&self) -> bool {
        self.power.lock().is_some()
    }

    /// Turns it on: an empty machine with its old disk. Does nothing if it is on.
    pub fn power_on(&self) -> Result<(), LabError> {
        let mut power = self.power.lock();
        if power.is_some() {
            return Ok(());
        }
        let mut enter = Command::new("nsenter");
        enter
            .arg(format!("--net={}", self.network.path().display()))
            .arg(format!("--mount={}", self.anchor_mounts.display()))
            .args([
                "--",
                "unshare",
                "--pid",
                "--mount",
                "--uts",
                "--fork",
                "--kill-child",
                "--",
            ]);
        let name = links::port(self.index);
        let shell = Holder::start(enter, INIT, &name)?;
        let init = shell
            .greeting
            .parse()
            .map_err(|_| LabError::EndedEarly { what: name })?;
        *power = Some(Power {
            shell,
            init,
            processes: Vec::new(),
        });
        Ok(())
    }

    /// Ends every process on the host at once, as nothing but a power cut does. The disk stays.
    pub fn power_cut(&self) -> Result<(), LabError> {
        let Some(mut power) = self.power.lock().take() else {
            return Ok(());
        };
        // The holder has not been waited for, so its child's id is not reused: PID 1 is reaped by it only.
        if let Some(init) = i32::try_from(power.init).ok().and_then(Pid::from_raw) {
            let _ = kill_process(init, Signal::KILL);
        }
        // The kernel keeps PID 1 until every process of its namespace has been waited for; ours are here.
        for process in &power.processes {
            process.kill();
        }
        if power.shell.wait(POWER_CUT) {
            return Ok(());
        }
        Err(LabError::Late {
            what: format!("the power cut of host {}", self.index),
            waited: POWER_CUT,
        })
    }

    /// Every process that runs on the host, PID 1 too, by its id outside.
    pub fn processes(&self) -> Vec<u32> {
        let power = self.power.lock();
        let Some(Power { init, processes, .. }) = power.as_ref() else {
            return Vec::new();
        };
        // Asking how a process ended reaps it: what has ended does not run.
        for process in processes {
            let _ = process.exit();
        }
        let Ok(namespace) = std::fs::read_link(format!("/proc/{init}/ns/pid")) else {
            return Vec::new();
        };
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == namespace))
            .collect()
    }

    /// Runs a closure on a thread in the host's network. Sockets made there stay in it.
    pub fn on_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.network.enter()?;
                Ok(work())
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a program on the host. Its output goes to a log file of the lab.
    pub fn spawn(&self, program: &Program) -> Result<Process, LabError> {
        let mut power = self.power.lock();
        let Some(power) = power.as_mut() else {
            return Err(LabError::NoPower { host: self.index });
        };
        let log = self.logs.join(format!("{}.log", program.log_name()));
        let out = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::file(&log))?;
        let both = out.try_clone().map_err(LabError::file(&log))?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.network.path().display()))
            .arg(format!("--mount=/proc/{}/ns/mnt", power.init))
            .arg(format!("--uts=/proc/{}/ns/uts", power.init))
            .arg("--")
            .arg(&program.path)
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(both);
        let child = spawn_in_pid_namespace(power.init, command)?;
        let process = Process::adopt(child, log).map_err(|source| LabError::Start {
            program: program.path.display().to_string(),
            source,
        })?;
        power.processes.retain(|old| old.exit().is_none());
        power.processes.push(process.clone());
        Ok(process)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A failure leaves processes that end with the pipe of their init.
        let _ = self.power_cut();
    }
}
