//! The way to the cluster: every server of the list, every port its members name, and what its hosts say of
//! themselves.

use std::time::{Duration, Instant};

use plasmavmc_proto::api::{ClusterStatusRequest, Host, ListHostsRequest, host};
use tokio::net::TcpStream;

use super::{Finding, Verdict};
use crate::context::Context;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

pub async fn findings(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in context.reach.servers() {
        findings.push(port("server", server.address()).await);
    }
    let status = match context
        .reach
        .ask("ask how the cluster is", ClusterStatusRequest {})
        .await
    {
        Ok(status) => status,
        Err(failure) => {
            let remedy = "start plasmavmc-server, name another with --server, or look at this machine only: --local";
            findings.push(Finding::new("cluster", Verdict::Bad, failure.to_string()).with(remedy));
            return findings;
        }
    };
    findings.push(match (status.has_quorum, status.cluster_id.is_empty()) {
        (true, _) => Finding::good("cluster", format!("has a quorum, led by {}", status.leader)),
        (false, true) => Finding::new("cluster", Verdict::Warning, "this server belongs to none yet")
            .with("plasmavmc cluster init, or plasmavmc cluster join"),
        (false, false) => Finding::new("cluster", Verdict::Bad, "has no quorum: nothing can be changed")
            .with("see which members are missing: plasmavmc cluster members"),
    });
    if status.version != env!("CARGO_PKG_VERSION") {
        let says = format!(
            "the server is {}, this command {}",
            status.version,
            env!("CARGO_PKG_VERSION")
        );
        findings.push(Finding::new("version", Verdict::Note, says));
    }
    for warning in &status.warnings {
        findings.push(Finding::new("cluster", Verdict::Warning, warning));
    }
    for member in &status.members {
        findings.push(port(&format!("member {}", member.name), &member.address).await);
    }
    findings.extend(hosts(context).await);
    findings
}

async fn hosts(context: &Context) -> Vec<Finding> {
    let hosts = match context.reach.ask("list hosts", ListHostsRequest { stale: true }).await {
        Ok(answer) => answer.hosts,
        Err(failure) => return vec![Finding::new("hosts", Verdict::Warning, failure.to_string())],
    };
    let mut findings = Vec::new();
    for host in &hosts {
        findings.extend(of_host(host));
        for address in &host.addresses {
            findings.push(port(&format!("host {}", host.name), address).await);
        }
    }
    findings
}

fn of_host(host: &Host) -> Vec<Finding> {
    let check = format!("host {}", host.name);
    let mut findings = Vec::new();
    if host.state() != host::State::Alive {
        let says = "no beats of it come: its server is down, or cut off from the others";
        findings.push(Finding::new(&check, Verdict::Bad, says));
    }
    if host.accelerator.starts_with("kvm") {
        findings.push(Finding::good(&check, format!("accelerator {}", host.accelerator)));
    } else if !host.accelerator.is_empty() {
        let says = format!(
            "accelerator {}: guests run many times slower than with KVM",
            host.accelerator
        );
        findings.push(Finding::new(&check, Verdict::Warning, says));
    }
    findings.extend(
        host.warnings
            .iter()
            .map(|warning| Finding::new(&check, Verdict::Warning, warning)),
    );
    findings
}

/// Whether anybody listens there, seen from here.
async fn port(check: &str, address: &str) -> Finding {
    let begun = Instant::now();
    match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {
            let ms = begun.elapsed().as_secs_f64() * 1000.0;
            Finding::good(check, format!("{address} listens, {ms:.1} ms away"))
        }
        Ok(Err(error)) => Finding::new(check, Verdict::Bad, format!("{address}: {error}"))
            .with("is its server running, and does a firewall let the port through?"),
        Err(_) => Finding::new(check, Verdict::Bad, format!("{address} does not answer"))
            .with("is the host on, and does a firewall let the port through?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_listens_is_told_from_one_that_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(port("x", &address).await.verdict, Verdict::Good);
        drop(listener);
        assert_eq!(port("x", &address).await.verdict, Verdict::Bad);
    }

    #[test]
    fn a_host_says_what_is_wrong_with_it() {
        let host = Host {
            name: "h1".to_owned(),
            state: host::State::Silent.into(),
            accelerator: "tcg: the probe hung".to_owned(),
            warnings: vec!["an unknown QEMU runs".to_owned()],
            ..Host::default()
        };
        let verdicts: Vec<Verdict> = of_host(&host).iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Bad, Verdict::Warning, Verdict::Warning]);
    }
}
