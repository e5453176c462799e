//! The `chainfire` program as a client.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::deadline::Interrupt;

/// No call takes this long; a call that does is ended.
const CALL_WITHIN: Duration = Duration::from_secs(15);

/// Calls one or more servers.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    servers: String,
    interrupt: Interrupt,
}

/// The part of `chainfire status -o json` that the demo needs.
#[derive(Debug, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub leader_id: u64,
    pub member: Member,
    #[serde(default)]
    pub members: Vec<Member>,
    #[serde(default)]
    pub applied_index: u64,
    #[serde(default)]
    pub problem: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub voter: bool,
}

impl Status {
    /// Why this member cannot serve as one of `voters`, if so.
    pub fn check_serving(&self, voters: usize) -> Result<()> {
        if let Some(problem) = self.problem.as_deref().filter(|problem| !problem.is_empty()) {
            bail!("member {} says: {problem}", self.member.id);
        }
        if self.leader_id == 0 {
            bail!("member {} knows no leader", self.member.id);
        }
        let known = self.members.iter().filter(|member| member.voter).count();
        if known != voters {
            bail!("member {} knows {known} of {voters} voters", self.member.id);
        }
        Ok(())
    }
}

impl Client {
    pub fn new(program: PathBuf, servers: String, interrupt: Interrupt) -> Self {
        Self {
            program,
            servers,
            interrupt,
        }
    }

    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.call(&["put", key, value]).map(drop)
    }

    pub fn get(&self, key: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Found {
            value: String,
        }
        Ok(self.json::<Found>(&["get", key])?.value)
    }

    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    /// What a person would see.
    pub fn table(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.call(arguments)?.trim_end().to_owned())
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.call(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("chainfire {} answered {text:?}", arguments.join(" ")))
    }

    fn call(&self, arguments: &[&str]) -> Result<String> {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .args(["--server", &self.servers])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        // Answers here are far smaller than a pipe holds, so the child never blocks on us.
        let what = format!("chainfire {}", arguments.join(" "));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_member_serves_with_a_leader_all_voters_and_no_problem() {
        let good = r#"{"leader_id":1,"member":{"id":2,"address":"a:1","voter":true},"problem":"","term":3,
                      "members":[{"id":1,"voter":true},{"id":2,"voter":true}]}"#;
        status(good).check_serving(2).unwrap();
        assert!(status(good).check_serving(3).is_err());
        assert!(
            status(&good.replace("\"leader_id\":1", "\"leader_id\":0"))
                .check_serving(2)
                .is_err()
        );
        let ill = good.replace("\"problem\":\"\"", "\"problem\":\"the disk is full\"");
        let error = status(&ill).check_serving(2).unwrap_err();
        assert!(error.to_string().contains("the disk is full"));
    }
}
