//! A guard in a folder of its own, children that obey, and the cleaning up of both.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plasmavmc_guard::client::{Client, Events};
use plasmavmc_guard::wire::{DeathSignal, Event, Exit, Held, Key, Lease, Phase, SpawnOrder};
use plasmavmc_types::{AttemptId, Incarnation, VmId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_plasmavmc-guard");
/// Within which everything on these machines happens, also when all tests run at once.
pub const SOON: Duration = Duration::from_secs(20);

/// A folder with a guard. Whatever runs in it, and names it on its command line, dies with it.
pub struct Place {
    folder: TempDir,
    guard: Option<Child>,
}

impl Place {
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, guard: None }
    }

    pub fn with_guard() -> Self {
        let mut place = Self::empty();
        place.start_guard(&[]);
        place
    }

    /// Where the guard is; the place itself is its parent, for what tests put beside it.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("guard")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a guard and waits until it listens.
    pub fn start_guard(&mut self, options: &[&str]) {
        let mut guard = self.run_guard(PROGRAM, options).expect("a guard");
        let mut word = String::new();
        let stdout = guard.stdout.take().expect("its output");
        Read::read_to_string(&mut stdout.take(6), &mut word).expect("a word");
        self.guard = Some(guard);
        assert_eq!(word, "ready\n", "{}", self.log());
    }

    pub fn run_guard(&self, program: &str, options: &[&str]) -> std::io::Result<Child> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path().join("log"))?;
        Command::new(program)
            .args(["run", "--dir"])
            .arg(self.folder())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.folder()).expect("a guard that listens")
    }

    pub fn guard_pid(&self) -> Pid {
        Pid::from_child(self.guard.as_ref().expect("a guard"))
    }

    pub fn signal_guard(&self, signal: Signal) {
        rustix::process::kill_process(self.guard_pid(), signal).expect("a signal to our own child");
    }

    /// As a crash would.
    pub fn kill_guard(&mut self) {
        let mut guard = self.guard.take().expect("a guard");
        guard.kill().expect("SIGKILL");
        guard.wait().expect("its end");
    }

    /// Waits for the guard to end by itself.
    pub fn guard_ends(&mut self) -> std::process::ExitStatus {
        let mut guard = self.guard.take().expect("a guard");
        let pidfd = pidfd_open(Pid::from_child(&guard), PidfdFlags::empty()).expect("a pidfd");
        assert!(ends_soon(&pidfd), "the guard did not end");
        guard.wait().expect("its end")
    }

    pub fn records(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("children")).expect("records");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// An order for a shell that waits until it is told its exit code.
    pub fn obedient(&self) -> Obedient {
        let key = new_key();
        let pipe = self.path().join(format!("{}.pipe", key.vm));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .expect("a named pipe");
        let mut order = SpawnOrder::new(key, "/bin/sh", self.path().to_str().expect("a plain path"));
        let script = r#"read code < "$0"; exit $code"#;
        order.arguments = vec!["-c".to_owned(), script.to_owned(), pipe.display().to_string()];
        Obedient { order, pipe }
    }

    /// As [`Self::obedient`], and leased.
    pub fn leased(&self, incarnation: u64, claims: &[&Path]) -> Obedient {
        let mut obedient = self.obedient();
        lease(&mut obedient.order, incarnation, claims);
        obedient
    }

    /// A leased child that notes all the time that it executes.
    pub fn beating(&self) -> Beating {
        let script = "while :; do read up rest < /proc/uptime; echo $up >> $0.beats; sleep 0.01; done";
        let mut order = self.script(script);
        lease(&mut order, 1, &[]);
        let beats = self.path().join(format!("{}.beats", order.key.vm));
        Beating { order, beats }
    }

    /// An order for a shell that runs a script; `$0` is the VM's id.
    pub fn script(&self, script: &str) -> SpawnOrder {
        let key = new_key();
        let mut order = SpawnOrder::new(key, "/bin/sh", self.path().to_str().expect("a plain path"));
        order.arguments = vec!["-c".to_owned(), script.to_owned(), key.vm.to_string()];
        order.environment.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
        order
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let own = rustix::process::getpid();
        // Until a look finds none: a launcher may just have started.
        while !processes_naming(&self.path().display().to_string())
            .into_iter()
            .filter(|pid| *pid != own)
            .map(kill)
            .collect::<Vec<_>>()
            .is_empty()
        {}
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

/// Kills a process and waits for its end, so that the next look does not find it.
fn kill(pid: Pid) {
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        ends_soon(&pidfd);
    }
}

/// All processes with this text on their command line or in their working folder's path.
pub fn processes_naming(text: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text) || (!line.is_empty() && folder.starts_with(text))
    })
    .filter_map(Pid::from_raw)
    .collect()
}

fn lease(order: &mut SpawnOrder, incarnation: u64, claims: &[&Path]) {
    order.death_signal = Some(DeathSignal::Stop);
    order.lease = Some(Lease {
        incarnation: Incarnation::from_raw(incarnation),
        claims: claims.iter().map(|folder| folder.display().to_string()).collect(),
    });
}

pub struct Beating {
    pub order: SpawnOrder,
    beats: PathBuf,
}

impl Beating {
    /// When it last executed, on the clock of deadlines, to a hundredth of a second; 0 if never.
    pub fn last_ms(&self) -> u64 {
        let beats = std::fs::read_to_string(&self.beats).unwrap_or_default();
        let complete = beats.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let last = complete.lines().last().unwrap_or("0.00");
        last.replace('.', "").parse::<u64>().expect("a time") * 10
    }

    /// Waits until it executes at or after this moment.
    pub async fn beats_at(&self, moment_ms: u64) {
        eventually("it executes", async || (self.last_ms() >= moment_ms).then_some(())).await;
    }
}

pub struct Obedient {
    pub order: SpawnOrder,
    pipe: PathBuf,
}

impl Obedient {
    pub fn key(&self) -> Key {
        self.order.key
    }

    /// Makes it exit with this code. It must run.
    pub fn exit(&self, code: u8) {
        // Opening for both never waits for the reader, who may still be on its way.
        let mut pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.pipe)
            .expect("its pipe");
        writeln!(pipe, "{code}").expect("room for a line");
        // Held until it has read: what is in a pipe that nobody has open is lost.
        let nobody = || {
            OpenOptions::new()
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
                .open(&self.pipe)
        };
        let deadline = Instant::now() + SOON;
        while bytes_in(&pipe) > 0 && nobody().is_ok() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

fn bytes_in(pipe: &File) -> u64 {
    rustix::io::ioctl_fionread(pipe).expect("what is in a pipe")
}

pub fn new_key() -> Key {
    Key {
        vm: VmId::from_uuid(Uuid::new_v4()),
        attempt: AttemptId::from_uuid(Uuid::new_v4()),
    }
}

/// Whether the process of a pidfd ends in time.
pub fn ends_soon(pidfd: &OwnedFd) -> bool {
    let timeout = Timespec::try_from(SOON).expect("a short time");
    let mut polled = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    loop {
        match poll(&mut polled, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.is_ok_and(|ready| ready == 1),
        }
    }
}

/// The next exit that is told of.
pub async fn next_exit(events: &mut Events) -> (Held, Exit) {
    let held = loop {
        match next_event(events).await {
            Event::Exited(held) => break held,
            Event::Frozen(_) => {}
        }
    };
    let Phase::Exited(exit) = held.phase.clone() else {
        panic!("an exit is told of a child that runs: {held:?}");
    };
    (held, exit)
}

pub async fn next_event(events: &mut Events) -> Event {
    let event = timeout(SOON, events.next()).await.expect("an event in time");
    event.expect("a subscription")
}

/// The state of a process as the kernel names it: `T` is stopped.
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.chars().next()
}

/// The clock of deadlines.
pub fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).expect("after the boot")
}

/// Looks again and again until what is looked for is there. For conditions that nothing tells of.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
