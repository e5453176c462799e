//! The program `plasmavmc`, used as a user uses it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::deadline::Interrupt;

/// Booting a guest without KVM on a busy machine is the longest.
const CALL_WITHIN: Duration = Duration::from_secs(180);

#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    servers: String,
    interrupt: Interrupt,
}

impl Cli {
    pub fn new(program: PathBuf, servers: String, interrupt: Interrupt) -> Self {
        Self {
            program,
            servers,
            interrupt,
        }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What lets so many hosts join.
    pub fn token(&self, uses: &str) -> Result<String> {
        let token = self.call(&["cluster", "token", "--uses", uses, "--quiet"])?;
        let token = token.split_whitespace().last().context("no token was printed")?;
        Ok(token.to_owned())
    }

    /// Fails unless so many hosts are in the cluster and heard of.
    pub fn check_alive(&self, hosts: usize) -> Result<()> {
        let status = self.json(&["cluster", "status"])?;
        let alive = number(&status, "hosts_alive");
        let members = status["members"].as_array().map_or(0, Vec::len);
        ensure!(
            alive == Some(hosts as u64) && members == hosts,
            "{alive:?} hosts are alive, {members} servers are members"
        );
        Ok(())
    }

    pub fn vm(&self, name: &str) -> Result<Vm> {
        let vm = self.json(&["vm", "get", name])?;
        let text = |key: &str| vm[key].as_str().unwrap_or_default().to_owned();
        Ok(Vm {
            id: text("id"),
            state: text("state").to_lowercase(),
            host: text("host"),
            agent: text("agent"),
            pid: number(&vm, "pid").unwrap_or_default(),
        })
    }

    /// What a person would see.
    pub fn table(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.call(arguments)?.trim_end().to_owned())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.call(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("plasmavmc {} answered {text:?}", arguments.join(" ")))
    }

    fn call(&self, arguments: &[&str]) -> Result<String> {
        let mut child = Command::new(&self.program)
            .args(["--server", &self.servers])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        // Answers here are far smaller than a pipe holds, so the child never blocks on us.
        let what = format!("plasmavmc {}", arguments.join(" "));
        let ended = self
            .interrupt
            .await_condition(&what, CALL_WITHIN, || match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err(anyhow!("no answer")),
                Err(error) => Err(error.into()),
            });
        if ended.is_err() {
            // It may have ended just now; then there is nothing to kill.
            let _ = child.kill();
        }
        let output = child.wait_with_output()?;
        if !ended?.success() {
            bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The part of a VM that the demo needs.
#[derive(Debug)]
pub struct Vm {
    pub id: String,
    pub state: String,
    pub host: String,
    pub agent: String,
    pub pid: u64,
}

/// JSON of protobuf writes 64-bit numbers as texts.
fn number(value: &Value, key: &str) -> Option<u64> {
    let value = &value[key];
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_protobuf_writes_them() {
        let value = serde_json::json!({ "small": 3, "big": "4", "none": "x" });
        assert_eq!(number(&value, "small"), Some(3));
        assert_eq!(number(&value, "big"), Some(4));
        assert_eq!(number(&value, "none"), None);
        assert_eq!(number(&value, "missing"), None);
    }
}
