//! A real QEMU for one test. It dies with its value, however the test ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plasmavmc_kvm::qmp::{ConnectError, Connection, connect};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For everything that takes milliseconds when all is well, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Qemu {
    child: Child,
    folder: TempDir,
}

impl Qemu {
    /// Starts one in its own folder, with a monitor at `qmp.sock` there.
    pub fn start_in(folder: TempDir, args: &[&str]) -> Self {
        let errors = std::fs::File::create(folder.path().join("qemu.log")).unwrap();
        let child = Command::new("qemu-system-x86_64")
            .current_dir(folder.path())
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-machine",
                "pc,accel=tcg",
            ])
            .args(["-qmp", "unix:qmp.sock,server=on,wait=off"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("qemu-system-x86_64 starts (package qemu-system-x86)");
        Self { child, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn monitor(&self) -> PathBuf {
        self.folder().join("qmp.sock")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops it, and waits until none of its threads does anything any more.
    pub async fn stop(&self) {
        self.signal(Signal::STOP);
        let start = Instant::now();
        while !self.is_stopped() {
            assert!(start.elapsed() < SOON, "it does not stop");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let is_stopped = |stat: std::io::Result<String>| stat.is_ok_and(|stat| stat.contains(") T "));
        threads
            .flatten()
            .all(|thread| is_stopped(std::fs::read_to_string(thread.path().join("stat"))))
    }

    /// Connects as soon as the socket is there.
    pub async fn connect(&self) -> Connection {
        let start = Instant::now();
        loop {
            match connect(&self.monitor(), SOON).await {
                Ok(connection) => return connection,
                Err(ConnectError::Socket(error)) if start.elapsed() < SOON => {
                    // The socket appears at some moment that nobody announces.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    drop(error);
                }
                Err(error) => panic!("{error}; QEMU said: {}", self.log()),
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("qemu.log")).unwrap_or_default()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
