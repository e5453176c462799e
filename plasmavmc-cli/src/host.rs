//! `plasmavmc host`.

use plasmavmc_proto::api::{ActivateHostRequest, DrainHostRequest, GetHostRequest, Host, ListHostsRequest};

use crate::args::HostCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::show::{host_text, hosts_table};

pub async fn run(context: &Context, command: HostCommand) -> Result<(), Failure> {
    let reach = &context.reach;
    match command {
        HostCommand::List { stale } => {
            let hosts = reach.ask("list hosts", ListHostsRequest { stale }).await?.hosts;
            context
                .screen
                .list(&hosts, || hosts_table(&hosts, context.screen.colours))
        }
        HostCommand::Get { host } => {
            let doing = format!("look at host {host}");
            show(context, &reach.ask(&doing, GetHostRequest { id: host }).await?)
        }
        HostCommand::Drain { host, maintenance } => {
            let doing = format!("drain host {host}");
            show(
                context,
                &reach.ask(&doing, DrainHostRequest { id: host, maintenance }).await?,
            )
        }
        HostCommand::Activate { host } => {
            let doing = format!("activate host {host}");
            show(context, &reach.ask(&doing, ActivateHostRequest { id: host }).await?)
        }
    }
}

fn show(context: &Context, host: &Host) -> Result<(), Failure> {
    context.screen.one(host, || host_text(host))
}
