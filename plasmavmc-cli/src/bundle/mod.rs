//! `plasmavmc support-bundle`: one file with what somebody who helps needs to see.
//!
//! Everything in it comes through the public API, which has no secrets; what a kernel command line looks like it
//! hides is taken out besides. What could not be had is named in the bundle: a sick cluster is just what it is for.

mod metrics;
mod redact;
mod tar;

use std::path::PathBuf;
use std::time::Duration;

use plasmavmc_proto::api::{ClusterStatusRequest, ExplainVmRequest, ListHostsRequest, ListVmsRequest};

use crate::args::{BundleArgs, EventsArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::fields::{Node, node_of};
use crate::show::{clock_time, event_line, print};
use crate::{events, ops, vm};
use redact::redacted;
use tar::Archive;

/// Of a cluster with very many VMs those that are worst are explained.
const EXPLAINED: usize = 50;
const OPERATIONS: u32 = 1000;
const EVENTS_SILENCE: Duration = Duration::from_secs(1);

pub async fn run(context: &Context, args: BundleArgs) -> Result<(), Failure> {
    let now_ms = context.screen.now_ms;
    let stem = format!("plasmavmc-support-{}", clock_time(now_ms).replace(':', ""));
    let to = args.to.unwrap_or_else(|| PathBuf::from(format!("{stem}.tar")));
    let mut bundle = Bundle {
        archive: Archive::new(&stem, now_ms / 1000),
        missing: Vec::new(),
    };
    bundle.collect(context).await;
    let missing = bundle.missing.len();
    let bytes = bundle.finish();
    let doing = || format!("write {}", to.display());
    tokio::fs::write(&to, bytes)
        .await
        .map_err(|error| Failure::io(doing(), error))?;
    if missing > 0 {
        context.screen.note(&format!(
            "{missing} parts could not be had; missing.txt in the bundle says why"
        ));
    }
    print(&to.display().to_string())
}

struct Bundle {
    archive: Archive,
    missing: Vec<String>,
}

impl Bundle {
    async fn collect(&mut self, context: &Context) {
        let reach = &context.reach;
        let servers: Vec<&str> = reach.servers().iter().map(|server| server.address()).collect();
        let version = format!(
            "plasmavmc {}\nservers {}\n",
            env!("CARGO_PKG_VERSION"),
            servers.join(",")
        );
        self.archive.add("version.txt", version.as_bytes());
        let status = reach.ask("ask how the cluster is", ClusterStatusRequest {}).await;
        self.part("status.json", status.map(|status| node_of(&status)));
        // A server that is cut off still tells what it knows.
        let hosts = reach.ask("list hosts", ListHostsRequest { stale: true }).await;
        self.part(
            "hosts.json",
            hosts.map(|answer| Node::List(answer.hosts.iter().map(node_of).collect())),
        );
        self.vms(context).await;
        let operations = ops::all(context, "", true, OPERATIONS).await;
        self.part(
            "operations.json",
            operations.map(|found| Node::List(found.iter().map(node_of).collect())),
        );
        self.events(context).await;
        for server in servers {
            let name = format!("metrics-{}.txt", server.replace([':', '/', '[', ']'], "_"));
            match metrics::fetch(server).await {
                Ok(text) => self.archive.add(&name, text.as_bytes()),
                Err(why) => self.missing.push(format!("{name}: {why}")),
            }
        }
    }

    async fn vms(&mut self, context: &Context) {
        let request = ListVmsRequest {
            stale: true,
            ..ListVmsRequest::default()
        };
        let vms = match vm::all_vms(context, request).await {
            Ok(vms) => vms,
            Err(failure) => return self.missing.push(format!("vms.json: {failure}")),
        };
        self.part("vms.json", Ok(Node::List(vms.iter().map(node_of).collect())));
        let mut worst: Vec<_> = vms.iter().collect();
        // Those that run as they should are explained last.
        worst.sort_by_key(|vm| vm.power_on && vm.state() == plasmavmc_proto::api::vm::State::Running);
        for vm in worst.into_iter().take(EXPLAINED) {
            let explained = context
                .reach
                .ask("explain a VM", ExplainVmRequest { id: vm.id.clone() })
                .await;
            self.part(
                &format!("explain/{}.json", vm.id),
                explained.map(|explained| node_of(&explained)),
            );
        }
    }

    async fn events(&mut self, context: &Context) {
        let all = EventsArgs {
            follow: false,
            from: None,
            vm: None,
            host: None,
        };
        match events::past(context, &all, None, EVENTS_SILENCE).await {
            Ok(events) => {
                let lines: String = events.iter().map(|event| format!("{}\n", event_line(event))).collect();
                self.archive.add("events.txt", lines.as_bytes());
            }
            Err(failure) => self.missing.push(format!("events.txt: {failure}")),
        }
    }

    fn part(&mut self, name: &str, node: Result<Node, Failure>) {
        match node {
            Ok(node) => {
                let text = serde_json::to_string_pretty(&redacted(&node)).unwrap_or_default();
                self.archive.add(name, text.as_bytes());
            }
            Err(failure) => self.missing.push(format!("{name}: {failure}")),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.missing.is_empty() {
            self.archive
                .add("missing.txt", format!("{}\n", self.missing.join("\n")).as_bytes());
        }
        self.archive.finish()
    }
}
