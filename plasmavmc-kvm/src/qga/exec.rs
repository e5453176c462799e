//! Running programs in a guest.
//!
//! The agent starts a program and tells its number; what became of it has to be asked for again and again,
//! and is told once.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::agent::Agent;
use super::error::QgaError;

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub path: String,
    pub args: Vec<String>,
    /// `NAME=value`; the agent's own environment if empty.
    pub env: Vec<String>,
    pub input: Vec<u8>,
    /// Kept of each of the two outputs. The agent has a limit of its own, of 16 MB.
    pub output_limit_bytes: usize,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecEnd {
    Exited(i64),
    /// By a signal; on Windows by an exception.
    Signalled(i64),
    /// The agent did not say.
    Unknown,
}

/// An output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub bytes: Vec<u8>,
    /// There was more.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    pub end: ExecEnd,
    pub stdout: Captured,
    pub stderr: Captured,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

/// As the agent tells it. Outputs stay text until they are decoded to the caller's limit.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    exited: bool,
    exitcode: Option<i64>,
    signal: Option<i64>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

/// Between two questions whether a program has ended: short at first, since most end at once.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Exec {
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            input: Vec::new(),
            output_limit_bytes: 1024 * 1024,
        }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

impl Agent {
    /// Runs a program and waits for its end. The deadline ends the waiting, not the program: the agent has
    /// no way to end one.
    pub async fn exec(&self, exec: &Exec, within: Duration) -> Result<ExecOutcome, QgaError> {
        let deadline = Instant::now() + within;
        let mut arguments = json!({ "path": exec.path, "arg": exec.args, "capture-output": true });
        if !exec.env.is_empty() {
            arguments["env"] = json!(exec.env);
        }
        if !exec.input.is_empty() {
            arguments["input-data"] = json!(STANDARD.encode(&exec.input));
        }
        let started = self.execute_raw("guest-exec", arguments, within).await?;
        let Started { pid } = self.understood("guest-exec", Started::deserialize(started))?;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QgaError::StillRunning {
                    vm: self.vm(),
                    path: exec.path.clone(),
                    pid,
                    after: within,
                });
            }
            match self.exec_outcome(pid, exec.output_limit_bytes, left).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                // The program runs on while its agent is out of reach for a moment.
                Err(error) if error.is_momentary() => {}
                Err(source) => {
                    return Err(QgaError::Untold {
                        vm: self.vm(),
                        path: exec.path.clone(),
                        pid,
                        source: Box::new(source),
                    });
                }
            }
            // The agent cannot tell us by itself.
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What became of a program that was started; nothing while it runs. The agent tells it once.
    pub async fn exec_outcome(
        &self,
        pid: i64,
        output_limit_bytes: usize,
        within: Duration,
    ) -> Result<Option<ExecOutcome>, QgaError> {
        const COMMAND: &str = "guest-exec-status";
        let status = self.execute_raw(COMMAND, json!({ "pid": pid }), within).await?;
        let status = self.understood(COMMAND, Status::deserialize(status))?;
        if !status.exited {
            return Ok(None);
        }
        let end = match (status.exitcode, status.signal) {
            (_, Some(signal)) => ExecEnd::Signalled(signal),
            (Some(code), None) => ExecEnd::Exited(code),
            (None, None) => ExecEnd::Unknown,
        };
        let captured = |text: &str, truncated| self.captured(COMMAND, text, truncated, output_limit_bytes);
        Ok(Some(ExecOutcome {
            end,
            stdout: captured(&status.out_data, status.out_truncated)?,
            stderr: captured(&status.err_data, status.err_truncated)?,
        }))
    }

    fn captured(&self, command: &str, text: &str, truncated: bool, limit_bytes: usize) -> Result<Captured, QgaError> {
        let mut bytes = self.decoded(command, text)?;
        let is_longer = bytes.len() > limit_bytes;
        bytes.truncate(limit_bytes);
        Ok(Captured {
            bytes,
            truncated: truncated || is_longer,
        })
    }

    pub(super) fn decoded(&self, command: &str, text: &str) -> Result<Vec<u8>, QgaError> {
        let decoded = STANDARD.decode(text);
        self.understood(command, decoded.map_err(serde::de::Error::custom))
    }

    pub(super) fn understood<T>(&self, command: &str, read: Result<T, serde_json::Error>) -> Result<T, QgaError> {
        read.map_err(|error| QgaError::Unexpected {
            vm: self.vm(),
            command: command.to_owned(),
            source: error.into(),
        })
    }
}
