//! The console on a real pseudo-terminal, as the program: whatever ends it, the terminal is as it was before.

#[path = "../src/fake.rs"]
#[allow(dead_code, reason = "the tests of the library use more of it")]
mod fake;

use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fake::Fake;
use futures::{StreamExt, stream};
use plasmavmc_proto::api::ConsoleOutput;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::process::{Child, Command};

const WITHIN: Duration = Duration::from_secs(20);

struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        Self { master, slave }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    async fn becomes_raw(&self) {
        let begun = Instant::now();
        while !self.is_raw() {
            assert!(begun.elapsed() < WITHIN, "the terminal never became raw");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn end(&self) -> Stdio {
        self.slave.as_fd().try_clone_to_owned().unwrap().into()
    }

    fn console(&self, server: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plasmavmc"));
        command
            .args(["--server", server, "vm", "console", "web"])
            .kill_on_drop(true);
        command
            .stdin(self.end())
            .stdout(self.end())
            .stderr(self.end())
            .spawn()
            .unwrap()
    }
}

/// A guest that has said something and then is silent.
async fn silent_guest() -> Fake {
    Fake::streaming(|_| {
        let said = ConsoleOutput {
            data: b"login: ".to_vec(),
            is_history: true,
            lost_bytes: 0,
        };
        Ok(stream::iter([Ok(said.encode_to_vec())])
            .chain(stream::pending())
            .boxed())
    })
    .await
}

async fn status_of(mut console: Child) -> Option<i32> {
    tokio::time::timeout(WITHIN, console.wait())
        .await
        .expect("it ends")
        .unwrap()
        .code()
}

#[tokio::test]
async fn ctrl_bracket_gives_the_terminal_back() {
    let (fake, terminal) = (silent_guest().await, Terminal::new());
    let console = terminal.console(&fake.address);
    terminal.becomes_raw().await;
    rustix::io::write(&terminal.master, b"\x03\x1d").unwrap();
    assert_eq!(status_of(console).await, Some(0));
    assert!(!terminal.is_raw());
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let (fake, terminal) = (silent_guest().await, Terminal::new());
        let console = terminal.console(&fake.address);
        terminal.becomes_raw().await;
        let pid = i32::try_from(console.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        assert_eq!(status_of(console).await, Some(130), "{signal:?}");
        assert!(!terminal.is_raw(), "{signal:?}");
    }
}

#[tokio::test]
async fn a_vm_that_is_not_there_never_touches_the_terminal() {
    let fake = Fake::streaming(|_| Err(tonic::Status::not_found("there is no vm web"))).await;
    let terminal = Terminal::new();
    assert_eq!(status_of(terminal.console(&fake.address)).await, Some(3));
    assert!(!terminal.is_raw());
}
