//! What is done to a VM that is there: each is one call, answered with an operation that this command follows.

use std::time::{Duration, Instant};

use plasmavmc_proto::api::{
    DeleteVmRequest, GetVmRequest, Operation, PauseVmRequest, RebootVmRequest, ResetVmRequest, RestartVmRequest,
    ResumeVmRequest, StartVmRequest, StopVmRequest, vm,
};

use super::confirm::{confirm, is_asked};
use crate::args::{DeleteArgs, Form, PowerArgs, QuickArgs, RestartArgs, StopArgs, WaitArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress;
use crate::reach::Ask;
use crate::show::{milliseconds, state_word};

pub async fn start(context: &Context, args: PowerArgs) -> Result<(), Failure> {
    let timeout_s = seconds(args.within);
    let request = StartVmRequest {
        id: args.vm.clone(),
        request_id: context.request_id(),
        timeout_s,
        wait: false,
    };
    carry_out(context, Deed::new("start", "started", &args.vm), request, args.wait).await
}

pub async fn stop(context: &Context, args: StopArgs) -> Result<(), Failure> {
    let StopArgs { power, force } = args;
    let request = StopVmRequest {
        id: power.vm.clone(),
        force,
        request_id: context.request_id(),
        timeout_s: seconds(power.within),
        wait: false,
    };
    carry_out(context, Deed::new("stop", "stopped", &power.vm), request, power.wait).await
}

pub async fn reboot(context: &Context, args: PowerArgs) -> Result<(), Failure> {
    let timeout_s = seconds(args.within);
    let request = RebootVmRequest {
        id: args.vm.clone(),
        request_id: context.request_id(),
        timeout_s,
        wait: false,
    };
    carry_out(context, Deed::new("reboot", "rebooted", &args.vm), request, args.wait).await
}

pub async fn restart(context: &Context, args: RestartArgs) -> Result<(), Failure> {
    let RestartArgs { power, force } = args;
    let request = RestartVmRequest {
        id: power.vm.clone(),
        force,
        request_id: context.request_id(),
        timeout_s: seconds(power.within),
        wait: false,
    };
    carry_out(
        context,
        Deed::new("restart", "restarted", &power.vm),
        request,
        power.wait,
    )
    .await
}

pub async fn reset(context: &Context, args: QuickArgs) -> Result<(), Failure> {
    let request = ResetVmRequest {
        id: args.vm.clone(),
        request_id: context.request_id(),
        wait: false,
    };
    carry_out(context, Deed::new("reset", "reset", &args.vm), request, args.wait).await
}

pub async fn pause(context: &Context, args: QuickArgs) -> Result<(), Failure> {
    let request = PauseVmRequest {
        id: args.vm.clone(),
        request_id: context.request_id(),
        wait: false,
    };
    carry_out(context, Deed::new("pause", "paused", &args.vm), request, args.wait).await
}

pub async fn resume(context: &Context, args: QuickArgs) -> Result<(), Failure> {
    let request = ResumeVmRequest {
        id: args.vm.clone(),
        request_id: context.request_id(),
        wait: false,
    };
    carry_out(context, Deed::new("resume", "resumed", &args.vm), request, args.wait).await
}

pub async fn delete(context: &Context, args: DeleteArgs) -> Result<(), Failure> {
    let mut id = args.vm.clone();
    if !args.yes && is_asked() {
        // What was agreed to is deleted, whatever takes its name meanwhile.
        id = confirm_deletion(context, &args).await?;
    }
    let request = DeleteVmRequest {
        id,
        force: args.force,
        generation: args.generation.unwrap_or(0),
        request_id: context.request_id(),
        wait: false,
    };
    carry_out(context, Deed::new("delete", "deleted", &args.vm), request, args.wait).await
}

async fn confirm_deletion(context: &Context, args: &DeleteArgs) -> Result<String, Failure> {
    let doing = format!("look at vm {}", args.vm);
    let vm = context
        .reach
        .ask(
            &doing,
            GetVmRequest {
                id: args.vm.clone(),
                stale: false,
            },
        )
        .await?;
    let state = state_word(vm.state());
    let plug = match vm.state() {
        vm::State::Stopped | vm::State::Failed | vm::State::Pending => "",
        _ if args.force => "; the plug is pulled",
        _ => "",
    };
    confirm(&format!(
        "Delete vm {} (vmid {}, {state}{plug}) for good?",
        vm.name, vm.vmid
    ))?;
    Ok(vm.id)
}

/// A deed in words.
struct Deed<'a> {
    verb: &'static str,
    past: &'static str,
    vm: &'a str,
}

impl<'a> Deed<'a> {
    fn new(verb: &'static str, past: &'static str, vm: &'a str) -> Self {
        Self { verb, past, vm }
    }
}

async fn carry_out<Q: Ask<Answer = Operation>>(
    context: &Context,
    deed: Deed<'_>,
    request: Q,
    wait: WaitArgs,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let operation = context
        .reach
        .ask(&format!("{} {}", deed.verb, deed.vm), request)
        .await?;
    if wait.no_wait {
        context
            .screen
            .note(&format!("not waited for; plasmavmc op wait {}", operation.id));
        return context.screen.one(&operation, || operation.id.clone());
    }
    let ended = progress::to_end(context, operation).await?;
    if context.screen.quiet && context.screen.form == Form::Table {
        return Ok(());
    }
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let name = if ended.vm_name.is_empty() {
        deed.vm
    } else {
        ended.vm_name.as_str()
    };
    context
        .screen
        .one(&ended, || format!("{} {name} in {}", deed.past, milliseconds(took)))
}

/// 0: as the cluster sees fit.
fn seconds(within: Option<Duration>) -> u32 {
    within.map_or(0, |within| u32::try_from(within.as_secs()).unwrap_or(u32::MAX).max(1))
}
