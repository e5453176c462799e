//! Making namespaces, keeping them by descriptor, and running things inside.
//!
//! Namespaces are made by `unshare` and entered by `nsenter`, both of util-linux; only threads of this
//! process that exist for nothing else enter one themselves.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::LabError;
use super::process::wait_exit;

const READY: Duration = Duration::from_secs(20);
const TOOL: Duration = Duration::from_secs(20);

/// A process that lives as long as its owner, holds something, and has said that it is ready.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    /// The line it said when it was ready.
    pub greeting: String,
}

impl Holder {
    /// `script` runs in bash, must print one line when ready, and then ends at the end of its input.
    pub fn start(mut command: Command, script: &str, label: &str) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .args(["bash", "-c"])
            .arg(format!("{script}\nwhile read -r _; do :; done"))
            .arg(label)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start { program, source })?;
        let greeting = first_line(&mut child, label);
        match greeting {
            Ok(greeting) => Ok(Self { child, greeting }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid()))
    }

    /// Waits for its end, which somebody else has brought about.
    pub fn wait(&mut self, limit: Duration) -> bool {
        wait_exit(&mut self.child, limit).is_some()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !self.wait(Duration::from_secs(5)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn first_line(child: &mut Child, label: &str) -> Result<String, LabError> {
    let ended = || LabError::EndedEarly { what: label.to_owned() };
    let stdout = child.stdout.take().ok_or_else(ended)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let listen = move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(read.map(|_| line.trim().to_owned()));
    };
    std::thread::Builder::new()
        .name("first-line".to_owned())
        .spawn(listen)
        .map_err(|_| ended())?;
    match receiver.recv_timeout(READY) {
        Ok(Ok(line)) if !line.is_empty() => Ok(line),
        Ok(_) => {
            let mut stderr = String::new();
            if let Some(pipe) = child.stderr.as_mut() {
                let _ = pipe.read_to_string(&mut stderr);
            }
            Err(LabError::Refused {
                command: label.to_owned(),
                stderr: stderr.trim().to_owned(),
            })
        }
        Err(_) => Err(LabError::Late {
            what: label.to_owned(),
            waited: READY,
        }),
    }
}

/// A network namespace that lives while this value does.
#[derive(Debug)]
pub(super) struct Network {
    namespace: OwnedFd,
}

impl Network {
    pub fn of(holder: &Holder) -> Result<Self, LabError> {
        let path = holder.namespace("net");
        let namespace = File::open(&path).map_err(LabError::file(path))?.into();
        Ok(Self { namespace })
    }

    /// How other processes of ours name it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_raw_fd()
        ))
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<(), LabError> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| LabError::Enter(errno.into()))
    }

    /// Runs a tool in it that reads `input`.
    pub fn feed(&self, tool: &'static str, package: &'static str, args: &[&str], input: &str) -> Result<(), LabError> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(tool)
            .args(args);
        feed(command, tool, package, input)
    }
}

/// Runs a short tool to its end, feeding it `input`; what it says on stderr becomes the error.
pub(super) fn feed(
    mut command: Command,
    tool: &'static str,
    package: &'static str,
    input: &str,
) -> Result<(), LabError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LabError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
    if let Some(mut pipe) = child.stdin.take() {
        // A tool that refuses its input closes it early; its stderr says more than this error.
        let _ = pipe.write_all(input.as_bytes());
    }
    let Some(status) = wait_exit(&mut child, TOOL) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(LabError::Late {
            what: tool.to_owned(),
            waited: TOOL,
        });
    };
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(127) {
        return Err(LabError::MissingTool { program: tool, package });
    }
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut stderr);
    }
    Err(LabError::Refused {
        command: format!("{tool}: {input}"),
        stderr: stderr.trim().to_owned(),
    })
}

/// Starts `command` as a direct child inside the PID namespace of another process.
///
/// Entering one concerns only the children that a thread starts from then on, so a thread is made for
/// this one child.
pub(super) fn spawn_in_pid_namespace(init: u32, mut command: Command) -> Result<Child, LabError> {
    let path = format!("/proc/{init}/ns/pid");
    let namespace = File::open(&path).map_err(LabError::file(path))?;
    let spawned = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
                .map_err(|errno| LabError::Enter(errno.into()))?;
            command.spawn().map_err(|source| LabError::Start {
                program: command.get_program().to_string_lossy().into_owned(),
                source,
            })
        });
        thread.join()
    });
    spawned.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
