//! Changing what a VM is made of.
//!
//! A change of a part is made to what was read, and sent with the generation it was read at: somebody else's change
//! in between is never undone. Unless the caller named the generation, it is then looked at again and repeated.

use plasmavmc_proto::api::{GetVmRequest, UpdateVmRequest, Vm, VmSpec};
use prost_types::FieldMask;
use tonic::Code;

use super::file::read_over;
use super::set::set_all;
use crate::args::UpdateArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::show::vm_line;

/// Several others may change it at once, but not for ever.
const ATTEMPTS: u32 = 5;

pub async fn run(context: &Context, args: UpdateArgs) -> Result<(), Failure> {
    let doing = format!("update vm {}", args.vm);
    if let Some(file) = &args.file {
        let request = UpdateVmRequest {
            id: args.vm.clone(),
            spec: Some(read_over(&VmSpec::default(), file)?),
            update_mask: None,
            generation: args.generation.unwrap_or(0),
            request_id: context.request_id(),
        };
        let vm = context.reach.ask(&doing, request).await?;
        return shown(context, &vm);
    }
    let changes = changes(&args);
    if changes.is_empty() {
        return Err(Failure::Usage(format!(
            "nothing to change in {}; --set FIELD=VALUE, --vcpus, --memory or --file",
            args.vm
        )));
    }
    // What is malformed is told before anybody is asked.
    set_all_of(&VmSpec::default(), &changes)
        .or_else(|failure| if has_entries(&changes) { Ok(()) } else { Err(failure) })?;
    let mut attempt = 1;
    loop {
        match change_once(context, &doing, &args, &changes).await {
            Err(Failure::Answered { answer, .. })
                if answer.code == Code::Aborted && args.generation.is_none() && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(failure) => return Err(failure),
            Ok(vm) => return shown(context, &vm),
        }
    }
}

fn set_all_of(spec: &VmSpec, changes: &[String]) -> Result<(), Failure> {
    set_all(spec, changes)
        .map(|_| ())
        .map_err(|error| Failure::Usage(format!("--set {error}")))
}

/// Only the VM tells how many entries its lists have.
fn has_entries(changes: &[String]) -> bool {
    changes
        .iter()
        .any(|change| change.split('=').next().is_some_and(|path| path.contains('[')))
}

fn changes(args: &UpdateArgs) -> Vec<String> {
    let mut changes = args.sets.clone();
    changes.extend(args.vcpus.map(|vcpus| format!("vcpus={vcpus}")));
    changes.extend(args.memory.map(|mb| format!("memory_mb={mb}")));
    changes
}

async fn change_once(context: &Context, doing: &str, args: &UpdateArgs, changes: &[String]) -> Result<Vm, Failure> {
    let vm = context
        .reach
        .ask(
            doing,
            GetVmRequest {
                id: args.vm.clone(),
                stale: false,
            },
        )
        .await?;
    let spec = vm.spec.unwrap_or_default();
    let changed = set_all(&spec, changes).map_err(|error| Failure::Usage(format!("--set {error}")))?;
    let request = UpdateVmRequest {
        id: vm.id,
        spec: Some(changed.spec),
        update_mask: Some(FieldMask { paths: changed.fields }),
        generation: args.generation.unwrap_or(vm.generation),
        request_id: context.request_id(),
    };
    context.reach.ask(doing, request).await
}

fn shown(context: &Context, vm: &Vm) -> Result<(), Failure> {
    if context.screen.quiet && context.screen.form == crate::args::Form::Table {
        return Ok(());
    }
    context.screen.one(vm, || {
        format!("updated to generation {}: {}", vm.generation, vm_line(vm))
    })
}
