//! `plasmavmc doctor`: what would keep this machine, or the way to the cluster, from working, and what to do.
//!
//! It changes nothing but one file it writes and removes, and it has an answer for everything it could not find out.

mod clock;
mod devices;
mod disk;
mod limits;
mod network;
mod servers;

use std::time::Duration;

use crate::args::DoctorArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::fields::Node;
use crate::show::{Cell, Table, Tone};

/// For a program that is asked something; none of them has to think.
const PROGRAM_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Nothing to decide on.
    Note,
    /// It works, but not well, or not everything.
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    pub check: String,
    pub verdict: Verdict,
    pub says: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

impl Finding {
    pub fn new(check: &str, verdict: Verdict, says: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            says: says.into(),
            remedy: String::new(),
        }
    }

    pub fn good(check: &str, says: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, says)
    }

    pub fn with(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

pub async fn run(context: &Context, args: DoctorArgs) -> Result<(), Failure> {
    let mut findings = devices::findings();
    findings.extend(clock::findings().await);
    findings.extend(limits::findings());
    findings.push(disk::finding(&args.dir).await);
    findings.extend(network::findings());
    if !args.local {
        findings.extend(servers::findings(context).await);
    }
    let node = Node::List(findings.iter().map(node_of).collect());
    context.screen.node(&node, || text(&findings, context.screen.colours))?;
    match findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad)
        .count()
    {
        0 => Ok(()),
        bad => Err(Failure::Unhealthy(bad)),
    }
}

fn word(verdict: Verdict) -> (&'static str, Tone) {
    match verdict {
        Verdict::Good => ("ok", Tone::Good),
        Verdict::Note => ("note", Tone::Plain),
        Verdict::Warning => ("warning", Tone::Warning),
        Verdict::Bad => ("bad", Tone::Bad),
    }
}

fn node_of(finding: &Finding) -> Node {
    let fields = [
        ("check", finding.check.as_str()),
        ("verdict", word(finding.verdict).0),
        ("says", &finding.says),
        ("remedy", &finding.remedy),
    ];
    Node::Map(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Node::text(value)))
            .collect(),
    )
}

fn text(findings: &[Finding], colours: bool) -> String {
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND"]);
    for finding in findings {
        let (word, tone) = word(finding.verdict);
        table.row(vec![
            finding.check.clone().into(),
            Cell::toned(word, tone),
            finding.says.clone().into(),
        ]);
    }
    let remedies = findings.iter().filter(|finding| !finding.remedy.is_empty());
    let remedies: Vec<String> = remedies
        .map(|finding| format!("  {}: {}", finding.check, finding.remedy))
        .collect();
    let table = table.written(colours);
    if remedies.is_empty() {
        table
    } else {
        format!("{table}\n\nWhat to do:\n{}", remedies.join("\n"))
    }
}

/// What a program prints, if it is there and ends well in time.
pub(super) async fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_WITHIN, command.output())
        .await
        .ok()?
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_listed_with_what_to_do() {
        let findings = [
            Finding::good("clock", "synchronised"),
            Finding::new("/dev/kvm", Verdict::Bad, "is not there").with("switch it on in the firmware"),
        ];
        assert_eq!(
            text(&findings, false),
            "CHECK     VERDICT  FOUND\nclock     ok       synchronised\n/dev/kvm  bad      is not there\n\n\
             What to do:\n  /dev/kvm: switch it on in the firmware"
        );
        assert_eq!(node_of(&findings[1]).get("verdict"), Some(&Node::text("bad")));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_says_nothing() {
        assert_eq!(output_of("/nowhere/program", &[]).await, None);
        assert_eq!(output_of("false", &[]).await, None);
        assert_eq!(output_of("echo", &["yes"]).await.as_deref(), Some("yes"));
    }
}
