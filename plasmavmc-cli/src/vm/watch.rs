//! `plasmavmc vm watch`: what is there, then every change, over breaks of the connection.

use plasmavmc_proto::api::watch_vms_response::change::Change;
use plasmavmc_proto::api::{Vm, WatchVmsRequest, WatchVmsResponse};

use crate::args::WatchArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::fields::{Node, node_of};
use crate::resume::{End, Next, resumed};
use crate::show::{clock_time, now_ms, vm_line};

pub async fn run(context: &Context, args: WatchArgs) -> Result<(), Failure> {
    let vm = args.vm.clone().unwrap_or_default();
    let mut names = Names::default();
    let mut from = args.from;
    loop {
        let request = |from_revision| WatchVmsRequest {
            from_revision,
            id: vm.clone(),
        };
        let each = |response: WatchVmsResponse| {
            let is_enough = args.once && response.is_current;
            let revision = response.revision;
            show(context, response, &mut names)?;
            Ok(if is_enough { Next::Enough } else { Next::From(revision) })
        };
        match resumed(&context.reach, "watch VMs", from, request, each).await? {
            End::Enough => return Ok(()),
            // The one VM that was watched is gone.
            End::Ended if !vm.is_empty() => return Ok(()),
            End::Ended => {
                let why = "the server has ended it".to_owned();
                return Err(Failure::BrokeOff {
                    doing: "watching VMs".to_owned(),
                    why,
                });
            }
            End::Compacted => {
                context.screen.note("changes were missed; everything that is there:");
                from = 0;
            }
        }
    }
}

/// What a VM that is gone was called.
#[derive(Debug, Default)]
struct Names(std::collections::BTreeMap<String, String>);

impl Names {
    fn keep(&mut self, vm: &Vm) {
        self.0.insert(vm.id.clone(), vm.name.clone());
    }

    fn forget(&mut self, id: &str) -> String {
        self.0.remove(id).unwrap_or_else(|| id.to_owned())
    }
}

fn show(context: &Context, response: WatchVmsResponse, names: &mut Names) -> Result<(), Failure> {
    let revision = response.revision;
    for change in response.changes.into_iter().filter_map(|change| change.change) {
        let time = clock_time(now_ms());
        let node = |name: &str, value: Node| {
            Node::Map(vec![
                ("revision".to_owned(), Node::Unsigned(revision)),
                (name.to_owned(), value),
            ])
        };
        match change {
            Change::Vm(vm) => {
                names.keep(&vm);
                context
                    .screen
                    .streamed(|| node("vm", node_of(&vm)), || format!("{time}  {}", vm_line(&vm)))?;
            }
            Change::Removed(id) => {
                let name = names.forget(&id);
                context.screen.streamed(
                    || node("removed", Node::text(id.clone())),
                    || format!("{time}  {name} is gone"),
                )?;
            }
        }
    }
    Ok(())
}
