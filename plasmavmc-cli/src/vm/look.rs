//! Looking at VMs.

use plasmavmc_proto::api::{ExplainVmRequest, GetVmRequest, ListVmsRequest, Vm};

use crate::args::{ExplainArgs, GetArgs, ListArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::show::{explain_text, vm_text, vms_table};

pub async fn get(context: &Context, args: GetArgs) -> Result<(), Failure> {
    let doing = format!("look at vm {}", args.vm);
    let vm = context
        .reach
        .ask(
            &doing,
            GetVmRequest {
                id: args.vm,
                stale: args.stale,
            },
        )
        .await?;
    if context.screen.quiet && context.screen.form == crate::args::Form::Table {
        return crate::show::print(&vm.id);
    }
    context.screen.one(&vm, || vm_text(&vm, context.screen.now_ms))
}

pub async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let is_filtered = args.host.is_some() || !args.states.is_empty();
    let request = ListVmsRequest {
        host: args.host.unwrap_or_default(),
        states: args.states,
        stale: args.stale,
        ..ListVmsRequest::default()
    };
    let vms = all_vms(context, request).await?;
    let screen = &context.screen;
    if vms.is_empty() {
        screen.note(if is_filtered {
            "no VM is like this"
        } else {
            "no VMs; plasmavmc vm create --help makes one"
        });
    }
    if screen.quiet && screen.form == crate::args::Form::Table {
        let ids: Vec<&str> = vms.iter().map(|vm| vm.id.as_str()).collect();
        return crate::show::print(&ids.join("\n"));
    }
    screen.list(&vms, || vms_table(&vms, args.wide, screen.colours, screen.now_ms))
}

/// Page by page, until there are no more.
pub async fn all_vms(context: &Context, request: ListVmsRequest) -> Result<Vec<Vm>, Failure> {
    let mut vms = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = context.reach.ask(
            "list VMs",
            ListVmsRequest {
                page_token: page_token.clone(),
                ..request.clone()
            },
        );
        let page = page.await?;
        let is_last = page.next_page_token.is_empty() || page.next_page_token == page_token;
        vms.extend(page.vms);
        if is_last {
            return Ok(vms);
        }
        page_token = page.next_page_token;
    }
}

pub async fn explain(context: &Context, args: ExplainArgs) -> Result<(), Failure> {
    let doing = format!("explain vm {}", args.vm);
    let explained = context.reach.ask(&doing, ExplainVmRequest { id: args.vm }).await?;
    let screen = &context.screen;
    screen.one(&explained, || explain_text(&explained, screen.colours, screen.now_ms))
}
