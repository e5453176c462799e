//! `plasmavmc host`.

use std::time::{Duration, Instant};

use plasmavmc_proto::api::prepare_host_shutdown_request::Vms;
use plasmavmc_proto::api::{
    ActivateHostRequest, DrainHostRequest, GetHostRequest, Host, ListHostsRequest, ListVmsRequest,
    PrepareHostShutdownRequest, host, vm,
};

use crate::args::{HostCommand, LeavingVms};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::StepLine;
use crate::show::{host_text, hosts_table};

/// For what had its plug pulled to be gone, and for that to be known.
const GRACE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        HostCommand::PrepareShutdown {
            host,
            this_host: _,
            vms,
            within,
            no_wait,
        } => prepare_shutdown(context, host, vms, within, no_wait).await,
        HostCommand::Activate { host } => {
            let doing = format!("activate host {host}");
            show(context, &reach.ask(&doing, ActivateHostRequest { id: host }).await?)
        }
    }
}

/// Without a host it is the one of the server that is asked.
async fn prepare_shutdown(
    context: &Context,
    host: Option<String>,
    vms: LeavingVms,
    within: Duration,
    no_wait: bool,
) -> Result<(), Failure> {
    if host.is_none() {
        context.reach.only_server("--this-host")?;
    }
    let doing = match &host {
        Some(host) => format!("prepare the shutdown of host {host}"),
        None => "prepare the shutdown of this host".to_owned(),
    };
    let request = PrepareHostShutdownRequest {
        id: host.unwrap_or_default(),
        vms: match vms {
            LeavingVms::Move => Vms::Move,
            LeavingVms::Stay => Vms::Stay,
        }
        .into(),
        timeout_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
    };
    let mut host = context.reach.ask(&doing, request).await?;
    if !no_wait && host.mode() == host::Mode::ShuttingDown {
        host = wait_until_empty(context, host, within).await?;
    }
    show(context, &host)
}

/// Waits until no VM is left on a host: none is shown there that may run, and its own beat says so.
async fn wait_until_empty(context: &Context, mut host: Host, within: Duration) -> Result<Host, Failure> {
    let begun = Instant::now();
    let mut line = StepLine::new(&context.screen);
    let doing = format!("see what is left on host {}", host.name);
    loop {
        let left = vms_on(context, &host.name).await?;
        host = context
            .reach
            .ask(&doing, GetHostRequest { id: host.id.clone() })
            .await?;
        if left.is_empty() && host.vms == 0 {
            return Ok(host);
        }
        if begun.elapsed() > within + GRACE {
            return Err(Failure::StillThere {
                host: host.name,
                vms: left,
                waited: begun.elapsed(),
            });
        }
        if !left.is_empty() {
            line.say(format!("{} has yet to be rid of {}", host.name, left.join(", ")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The names of the VMs on a host of which something may run.
async fn vms_on(context: &Context, host: &str) -> Result<Vec<String>, Failure> {
    use vm::State;
    let live = [
        State::Starting,
        State::Running,
        State::Paused,
        State::Frozen,
        State::Stopping,
        State::Unknown,
    ];
    let mut request = ListVmsRequest {
        host: host.to_owned(),
        states: live.map(i32::from).to_vec(),
        ..ListVmsRequest::default()
    };
    let mut names = Vec::new();
    loop {
        let doing = format!("list the VMs of host {host}");
        let page = context.reach.ask(&doing, request.clone()).await?;
        names.extend(page.vms.into_iter().map(|vm| vm.name));
        if page.next_page_token.is_empty() {
            return Ok(names);
        }
        request.page_token = page.next_page_token;
    }
}

fn show(context: &Context, host: &Host) -> Result<(), Failure> {
    context.screen.one(host, || host_text(host))
}
