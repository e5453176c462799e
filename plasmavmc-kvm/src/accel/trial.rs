//! Runs the trial guest, with a deadline.
//!
//! ```text
//!  spawned --status 85--------------------------> Ran
//!     |----status 43----------------------------> Miscomputed
//!     |----status 0 (-no-reboot and a reset)----> Reset
//!     |----any other end------------------------> QemuEnded
//!     `----deadline: SIGKILL--------------------> TooSlow
//! ```
//!
//! Must never outlive its deadline by more than the kernel needs to end a process, nor leave a QEMU or a
//! file behind.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::decision::{Accelerator, Outcome};
use super::firmware;

/// Where even nested KVM is well below it; TCG needs 100 ms.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// How long a killed QEMU may take to go. The kernel may be stuck in KVM; then it goes later, without us.
const KILL_WITHIN: Duration = Duration::from_millis(200);
/// Enough of a complaint to understand it.
const MAX_COMPLAINT_BYTES: u64 = 4096;

/// The trial itself could not be made; this says nothing about the accelerator.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("cannot write the trial guest's firmware to a temporary file: check that {} is writable", std::env::temp_dir().display())]
    Firmware { source: io::Error },
    #[error("cannot start {program}: install QEMU (qemu-system-x86), or correct the path")]
    Start { program: String, source: io::Error },
    #[error("cannot wait for the trial guest")]
    Wait { source: io::Error },
}

/// Runs the guest on exactly this board and CPU.
pub async fn run(program: &Path, accelerator: Accelerator, machine: &str, cpu: &str) -> Result<Outcome, TrialError> {
    let mut rom = tempfile::NamedTempFile::new().map_err(|source| TrialError::Firmware { source })?;
    rom.write_all(&firmware::image())
        .map_err(|source| TrialError::Firmware { source })?;
    let mut child = Command::new(program)
        .args(arguments(accelerator, machine, cpu, rom.path()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| TrialError::Start {
            program: program.display().to_string(),
            source,
        })?;
    let Ok(ended) = timeout_at(Instant::now() + DEADLINE, finish(&mut child)).await else {
        child.start_kill().map_err(|source| TrialError::Wait { source })?;
        // Collected here or, if the kernel holds it, by the runtime later.
        let _collected = timeout_at(Instant::now() + KILL_WITHIN, child.wait()).await;
        return Ok(Outcome::TooSlow { after: DEADLINE });
    };
    let (status, said) = ended.map_err(|source| TrialError::Wait { source })?;
    Ok(read_outcome(status, &said))
}

/// The board and CPU of the VM to come, and nothing else that could keep a guest from running.
fn arguments(accelerator: Accelerator, machine: &str, cpu: &str, rom: &Path) -> Vec<OsString> {
    let machine = format!("{machine},accel={accelerator}");
    let report = format!("isa-debug-exit,iobase={:#x},iosize=0x4", firmware::EXIT_PORT);
    let mut arguments: Vec<OsString> = [
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-m",
        "16",
    ]
    .map(OsString::from)
    .into();
    arguments.extend(["-machine", &machine, "-cpu", cpu, "-device", &report, "-bios"].map(OsString::from));
    arguments.push(rom.into());
    arguments
}

/// Reads to the end of what is allowed, then on into nothing: a full pipe must not hold QEMU up.
async fn finish(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(MAX_COMPLAINT_BYTES).read_to_end(&mut said).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}

fn read_outcome(status: ExitStatus, said: &str) -> Outcome {
    match status.code() {
        Some(firmware::STATUS_PASSED) => Outcome::Ran,
        Some(firmware::STATUS_FAILED) => Outcome::Miscomputed,
        Some(0) => Outcome::Reset,
        code => Outcome::QemuEnded {
            how: match (code, status.signal()) {
                (Some(code), _) => format!("status {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "no status".to_owned(),
            },
            said: complaint(said),
        },
    }
}

/// The last line that is no warning, on one line, without the program's own name.
fn complaint(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .rfind(|line| !line.contains("warning:"))
        .or_else(|| lines().next_back());
    let line = line.unwrap_or_default();
    let line = line.split_once(": ").map_or(
        line,
        |(program, rest)| {
            if program.contains("qemu") { rest } else { line }
        },
    );
    line.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn an_end_is_read_for_what_it_is() {
        assert_eq!(read_outcome(exited(85), ""), Outcome::Ran);
        assert_eq!(read_outcome(exited(43), ""), Outcome::Miscomputed);
        assert_eq!(read_outcome(exited(0), ""), Outcome::Reset);
        let ended = read_outcome(
            exited(1),
            "qemu-system-x86_64: warning: old\nqemu-system-x86_64: no such CPU\n",
        );
        let expected = Outcome::QemuEnded {
            how: "status 1".to_owned(),
            said: "no such CPU".to_owned(),
        };
        assert_eq!(ended, expected);
        let aborted = read_outcome(
            ExitStatus::from_raw(6),
            "error: failed to set MSR 0x345\nqemu-system-x86_64: kvm.c:1",
        );
        assert!(matches!(aborted, Outcome::QemuEnded { how, .. } if how == "signal 6"));
    }

    #[test]
    fn the_trial_runs_on_the_board_and_cpu_it_was_asked_about() {
        let arguments = arguments(Accelerator::Kvm, "pc-q35-7.2", "host,-vmx", Path::new("/rom"));
        let text: Vec<_> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
        assert!(
            text.windows(2).any(|pair| pair == ["-machine", "pc-q35-7.2,accel=kvm"]),
            "{text:?}"
        );
        assert!(text.windows(2).any(|pair| pair == ["-cpu", "host,-vmx"]), "{text:?}");
        assert!(text.windows(2).any(|pair| pair == ["-bios", "/rom"]), "{text:?}");
    }
}
