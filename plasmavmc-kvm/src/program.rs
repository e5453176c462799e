//! Runs a small program of QEMU's to its end, within limits.
//!
//! These programs read images that somebody else made. So none of them may run for long, take much memory,
//! say much, or stay behind when nobody waits for it any more.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

const MAX_OUTPUT_BYTES: u64 = 4 << 20;
/// Enough of a complaint to understand it.
const MAX_COMPLAINT_BYTES: u64 = 16 << 10;

/// What one run may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub deadline: Duration,
    pub cpu_s: u64,
    pub memory_bytes: u64,
}

impl Limits {
    /// For what looks at a few blocks at most.
    pub const QUICK: Self = Self {
        deadline: Duration::from_secs(10),
        cpu_s: 8,
        memory_bytes: 1 << 30,
    };
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{} was not found", program.display())]
    Missing { program: PathBuf },
    #[error("{} cannot be run", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("{} did not end within {} ms", program.display(), deadline.as_millis())]
    Deadline { program: PathBuf, deadline: Duration },
    #[error("{} said more than {MAX_OUTPUT_BYTES} bytes", program.display())]
    OutputTooLong { program: PathBuf },
    /// It said no.
    #[error("{complaint}")]
    Failed { complaint: String },
}

/// What a program wrote to its standard output.
pub(crate) async fn run(
    program: &Path,
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    limits: Limits,
) -> Result<Vec<u8>, ProgramError> {
    let start_error = |source: io::Error| {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing { program },
            _ => ProgramError::Start { program, source },
        }
    };
    let mut child = Command::new(program)
        .args(arguments.into_iter().map(Into::into))
        // Complaints are understood in English only.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start_error)?;
    limit(&child, limits).map_err(start_error)?;
    // When the deadline passes, dropping the child kills it, and the runtime collects it.
    match tokio::time::timeout(limits.deadline, finish(&mut child)).await {
        Err(_) => Err(ProgramError::Deadline {
            program: program.to_owned(),
            deadline: limits.deadline,
        }),
        Ok(Err(source)) => Err(start_error(source)),
        Ok(Ok(Finished { output, .. })) if exceeds(&output, MAX_OUTPUT_BYTES) => Err(ProgramError::OutputTooLong {
            program: program.to_owned(),
        }),
        Ok(Ok(Finished {
            output, success: true, ..
        })) => Ok(output),
        Ok(Ok(Finished { complaint, .. })) => Err(ProgramError::Failed {
            complaint: String::from_utf8_lossy(&complaint).trim().to_owned(),
        }),
    }
}

/// Takes effect a moment after the program began, which is early enough for limits of this size.
fn limit(child: &Child, limits: Limits) -> io::Result<()> {
    let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
        return Ok(());
    };
    let both = |value| Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    prlimit(Some(pid), Resource::Cpu, both(limits.cpu_s))?;
    prlimit(Some(pid), Resource::As, both(limits.memory_bytes))?;
    prlimit(Some(pid), Resource::Core, both(0))?;
    Ok(())
}

struct Finished {
    output: Vec<u8>,
    complaint: Vec<u8>,
    success: bool,
}

async fn finish(child: &mut Child) -> io::Result<Finished> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (output, complaint) = tokio::try_join!(
        read_at_most(stdout, MAX_OUTPUT_BYTES),
        read_at_most(stderr, MAX_COMPLAINT_BYTES)
    )?;
    if exceeds(&output, MAX_OUTPUT_BYTES) {
        child.start_kill()?;
    }
    let success = child.wait().await?.success();
    Ok(Finished {
        output,
        complaint,
        success,
    })
}

/// One byte more than the limit tells that there was more. The pipe is closed then, which ends the writer.
async fn read_at_most(stream: Option<impl AsyncRead + Unpin>, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit_bytes + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn exceeds(bytes: &[u8], limit_bytes: u64) -> bool {
    bytes.len() as u64 > limit_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, limits: Limits) -> Result<Vec<u8>, ProgramError> {
        run(Path::new("/bin/sh"), ["-c", script], limits).await
    }

    #[tokio::test]
    async fn what_it_says_and_why_it_failed_are_told_apart() {
        assert_eq!(shell("echo a; echo b >&2", Limits::QUICK).await.unwrap(), b"a\n");
        let failed = shell("echo a; echo b >&2; exit 3", Limits::QUICK).await;
        assert!(matches!(failed, Err(ProgramError::Failed { complaint }) if complaint == "b"));
        let missing = run(Path::new("/nonexistent/qemu-img"), ["info"], Limits::QUICK).await;
        assert!(matches!(missing, Err(ProgramError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_program_that_runs_or_talks_for_too_long_is_ended() {
        let deadline = Duration::from_millis(200);
        let slow = shell(
            "sleep 60",
            Limits {
                deadline,
                ..Limits::QUICK
            },
        )
        .await;
        assert!(matches!(slow, Err(ProgramError::Deadline { .. })));
        let talkative = shell("exec yes", Limits::QUICK).await;
        assert!(matches!(talkative, Err(ProgramError::OutputTooLong { .. })));
    }
}
