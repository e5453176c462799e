//! The system calls of running processes, with the times they began and returned, as strace tells them.
//!
//! All times are those of the system's clock, so that traces of several processes and the test's own notes
//! can be laid side by side. A call that had not returned when the trace ended is left out.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

const ATTACH: Duration = Duration::from_secs(10);
const CALLS: &str = "trace=fsync,fdatasync,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg";

/// Seconds of the system's clock.
pub type Clock = f64;

/// Now, on the clock of traces.
pub fn now() -> Clock {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// One system call on a file or socket.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemCall {
    pub name: String,
    /// The file, or `TCP:[from->to]`.
    pub target: String,
    /// The other arguments, as strace prints them.
    pub arguments: String,
    pub began: Clock,
    pub returned: Clock,
    pub succeeded: bool,
}

impl SystemCall {
    pub fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }
}

/// A trace under way.
#[derive(Debug)]
pub struct Tracer {
    strace: Child,
    file: PathBuf,
}

impl Tracer {
    /// Attaches to all threads of a process.
    pub fn attach(pid: u32, file: &Path) -> anyhow::Result<Self> {
        let mut strace = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-yy", "-s", "4096", "-e", CALLS])
            .args(["-p", &pid.to_string(), "-o"])
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .context("strace is needed; `cargo xtask test` installs it (Debian package strace)")?;
        let stderr = strace.stderr.take().context("its stderr")?;
        let tracer = Self {
            strace,
            file: file.to_owned(),
        };
        let (sender, receiver) = mpsc::sync_channel(1024);
        let listen = move || {
            // Read to the end, so that it never waits for a reader.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        };
        std::thread::Builder::new().name("strace".to_owned()).spawn(listen)?;
        let line = receiver.recv_timeout(ATTACH).context("strace did not attach in time")?;
        anyhow::ensure!(line.contains("attached"), "strace: {line}");
        Ok(tracer)
    }

    /// Detaches, and answers what has been seen. The process goes on.
    pub fn finish(mut self) -> anyhow::Result<Vec<SystemCall>> {
        self.detach();
        let bytes = std::fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        Ok(parse(&String::from_utf8_lossy(&bytes)))
    }

    fn detach(&mut self) {
        // SIGINT makes it detach; SIGKILL could leave the process stopped.
        let _ = kill_process(Pid::from_child(&self.strace), Signal::INT);
        let _ = self.strace.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Ok(None) = self.strace.try_wait() {
            self.detach();
        }
    }
}

/// The calls of a trace, in order of their return.
fn parse(trace: &str) -> Vec<SystemCall> {
    let mut calls = Vec::new();
    let mut begun: HashMap<&str, (Clock, &str)> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((time, text)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let Ok(time) = time.parse::<Clock>() else { continue };
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (time, start));
        } else if let Some(resumed) = text.strip_prefix("<... ") {
            let tail = resumed.split_once(" resumed>").map(|(_, tail)| tail);
            if let (Some((began, start)), Some(tail)) = (begun.remove(thread), tail) {
                calls.extend(call(&format!("{start}{tail}"), began, Some(time)));
            }
        } else {
            calls.extend(call(text, time, None));
        }
    }
    calls.sort_by(|one, other| one.returned.total_cmp(&other.returned));
    calls
}

/// `name(fd<target>, arguments) = result <seconds>`
fn call(text: &str, began: Clock, resumed: Option<Clock>) -> Option<SystemCall> {
    let (name, rest) = text.split_once('(')?;
    // Data may contain anything; the result is what follows the last " = ".
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let (_, target) = arguments.split_once('<')?;
    // A socket's target has an arrow in it; both end where the next argument, or nothing, follows.
    let end = target.find(">, ").or_else(|| target.strip_suffix('>').map(str::len))?;
    let took = result.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>'));
    let took: Clock = took.and_then(|took| took.parse().ok()).unwrap_or(0.0);
    Some(SystemCall {
        name: name.to_owned(),
        target: target[..end].to_owned(),
        arguments: target[end + 1..].trim_start_matches([',', ' ']).to_owned(),
        began,
        returned: resumed.unwrap_or(began + took),
        succeeded: !result.starts_with('-') && !result.starts_with('?'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_their_times() {
        let trace = "\
7 100.000100 writev(9</d/log/1.wal>, [{iov_base=\"a = b\", iov_len=5}], 1) = 5 <0.000050>
7 100.000200 fdatasync(9</d/log/1.wal> <unfinished ...>
8 100.000300 sendto(12<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"x>, y\", 5, MSG_NOSIGNAL, NULL, 0) = 5 <0.000010>
7 100.000700 <... fdatasync resumed>) = 0 <0.000500>
7 100.000800 fsync(3</d/state>) = -1 EIO (Input/output error) <0.1>
9 100.000900 fdatasync(3</d/never> <unfinished ...>
7 100.001000 +++ exited with 0 +++
";
        let calls = parse(trace);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["writev", "sendto", "fdatasync", "fsync"]);
        let [write, send, sync, failed] = calls.as_slice() else {
            unreachable!()
        };
        assert_eq!(
            (write.target.as_str(), write.succeeded, write.is_sync()),
            ("/d/log/1.wal", true, false)
        );
        assert!((write.returned - 100.000_150).abs() < 1e-6);
        assert!(write.arguments.contains("a = b"));
        assert_eq!(send.target, "TCP:[127.0.0.1:1->127.0.0.1:2]");
        assert_eq!(
            (sync.began, sync.returned, sync.target.as_str()),
            (100.000_2, 100.000_7, "/d/log/1.wal")
        );
        assert!(failed.is_sync() && !failed.succeeded);
    }

    #[test]
    fn a_process_is_traced() {
        let folder = crate::hosts::OwnedFolder::create("trace-test").expect("a folder");
        let script = format!(
            "while read -r line; do echo $line >{0}/out; sync -d {0}/out; done",
            folder.path().display()
        );
        let mut traced = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash");
        let tracer = Tracer::attach(traced.id(), &folder.path().join("trace")).expect("a trace");
        let before = now();
        std::io::Write::write_all(traced.stdin.as_mut().expect("its input"), b"hello\n").expect("a write");
        drop(traced.stdin.take());
        traced.wait().expect("its end");
        let calls = tracer.finish().expect("calls");
        let of = |test: &dyn Fn(&SystemCall) -> bool| calls.iter().find(|call| test(call)).expect("a call").clone();
        let write = of(&|call| call.name == "write" && call.arguments.contains("hello"));
        let sync = of(&SystemCall::is_sync);
        assert!(
            before <= write.began && write.returned <= sync.began && sync.returned <= now(),
            "{calls:?}"
        );
        assert!(sync.target.ends_with("/out"));
    }
}
